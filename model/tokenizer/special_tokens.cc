#include "model/tokenizer/special_tokens.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "model/tokenizer/json_fields.h"

namespace qeval::model {
namespace {

using nlohmann::json;

/// A special token is a string or an object with a "content".
std::optional<std::string> read_special(const json& object, std::string_view key, const std::string& where) {
  const json* field = find_field(object, key);
  if (field == nullptr) return std::nullopt;
  if (field->is_string()) return field->get<std::string>();
  if (!field->is_object()) {
    fail("{}: '{}' is {}; a string or an object with 'content' is expected", where, key, field->type_name());
  }
  return string_field(*field, "content", fmt::format("{}: '{}'", where, key));
}

int32_t read_id_key(const std::string& key, const std::string& where) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size()) {
    fail("{}: '{}' is not a token id", where, printable(key, 40));
  }
  return read_token_id(id, where);
}

/// {"ID": {"content", …}, …}
void read_added_tokens_decoder(const json& decoder, const std::string& where,
                               std::map<int32_t, AddedToken>& tokens) {
  if (!decoder.is_object()) fail("{}: an object is expected, not {}", where, decoder.type_name());
  for (const auto& [key, value] : decoder.items()) {
    const int32_t id = read_id_key(key, where);
    tokens.emplace(id, read_added_token(value, id, where));
  }
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  std::map<int32_t, AddedToken> added;
  json main = json::object();
  if (const auto file = folder / "tokenizer_config.json"; std::filesystem::exists(file)) {
    main = read_json_object(file);
    const std::string where = file.string();
    config.bos_token = read_special(main, "bos_token", where);
    config.eos_token = read_special(main, "eos_token", where);
    if (find_field(main, "add_bos_token") != nullptr) {
      config.add_bos_token = bool_field_or(main, "add_bos_token", false, where);
    }
    if (bool_field_or(main, "add_eos_token", false, where))
      fail("{}: 'add_eos_token' is true; accepted: false, since a score continues the text", where);
    config.legacy = bool_field_or(main, "legacy", true, where);
    if (const json* decoder = find_field(main, "added_tokens_decoder")) {
      read_added_tokens_decoder(*decoder, where + ": 'added_tokens_decoder'", added);
    }
  }
  if (const auto file = folder / "special_tokens_map.json"; std::filesystem::exists(file)) {
    const json map = read_json_object(file);
    if (!main.contains("bos_token")) config.bos_token = read_special(map, "bos_token", file.string());
    if (!main.contains("eos_token")) config.eos_token = read_special(map, "eos_token", file.string());
  }
  if (const auto file = folder / "added_tokens.json"; std::filesystem::exists(file)) {
    const json map = read_json_object(file);
    for (const auto& [content, value] : map.items()) {
      const int32_t id = read_token_id(value, file.string());
      added.emplace(id, read_added_token({{"content", content}}, id, file.string()));
    }
  }
  for (auto& [id, token] : added) config.added_tokens.push_back(std::move(token));
  return config;
}

}  // namespace qeval::model
