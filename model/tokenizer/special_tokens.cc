#include "model/tokenizer/special_tokens.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "base/json_object.h"

namespace qeval::model {
namespace {

using nlohmann::json;

/// A special token is a string or an object with a "content".
AddedToken read_special(const json& value, const std::string& where) {
  if (value.is_string()) return {.content = value.get<std::string>(), .special = true};
  if (!value.is_object()) {
    fail("{} is {}; a string or an object with 'content' is expected", where, value.type_name());
  }
  AddedToken token = read_added_token(value, 0, where);
  token.special = true;
  return token;
}

void name_special(TokenizerConfig& config, std::string_view role, std::optional<AddedToken> token) {
  if (token && token->content.empty()) token.reset();
  if (!role.empty()) {
    for (NamedSpecialToken& known : config.special_tokens) {
      if (known.role != role) continue;
      known.token = std::move(token);
      return;
    }
  }
  config.special_tokens.push_back({std::string(role), std::move(token)});
}

/// The tokens that `object` names by their roles, then those that have none: all keys that end in "_token"
/// and the lists of additional ones.
void read_special_tokens(const json& object, const std::string& where, TokenizerConfig& config) {
  for (const std::string_view role : kSpecialTokenRoles) {
    const auto field = object.find(role);
    if (field == object.end()) continue;
    std::optional<AddedToken> token;
    if (!field->is_null()) token = read_special(*field, fmt::format("{}: '{}'", where, role));
    name_special(config, role, std::move(token));
  }
  for (const auto& [key, value] : object.items()) {
    const bool has_role = std::ranges::find(kSpecialTokenRoles, key) != kSpecialTokenRoles.end();
    if (!has_role && key.ends_with("_token") && value.is_string())
      name_special(config, "", read_special(value, fmt::format("{}: '{}'", where, key)));
  }
  for (const std::string_view list : {"extra_special_tokens", "additional_special_tokens"}) {
    const json* tokens = find_field(object, list);
    if (tokens == nullptr || tokens->empty()) continue;
    if (!tokens->is_array() && !tokens->is_object())
      fail("{}: '{}' is {}; a list of tokens is expected", where, list, tokens->type_name());
    for (const auto& [key, value] : tokens->items())
      name_special(config, "", read_special(value, fmt::format("{}: '{}'", where, list)));
    break;  // the second is the first's old name
  }
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

std::optional<std::string> TokenizerConfig::content_of(std::string_view role) const {
  for (const NamedSpecialToken& named : special_tokens) {
    if (named.role == role && named.token) return named.token->content;
  }
  return std::nullopt;
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  std::map<int32_t, AddedToken> added;
  bool has_decoder = false;
  if (const auto file = folder / "tokenizer_config.json"; std::filesystem::exists(file)) {
    const json main = read_json_object(file);
    const std::string where = file.string();
    const auto flag = [&](std::string_view key) -> std::optional<bool> {
      if (find_field(main, key) == nullptr) return std::nullopt;
      return JsonObject(main, where).boolean(key, false);
    };
    read_special_tokens(main, where, config);
    config.add_bos_token = flag("add_bos_token");
    config.add_eos_token = flag("add_eos_token").value_or(false);
    config.add_prefix_space = flag("add_prefix_space");
    if (main.contains("legacy")) config.legacy = flag("legacy").value_or(false);
    // The second is the first's old name.
    const json* additional = find_field(main, "extra_special_tokens");
    const bool by_name = additional != nullptr && additional->is_object();
    config.lists_additional_tokens =
        (main.contains("extra_special_tokens") && !by_name) ||
        (main.contains("additional_special_tokens") && (additional == nullptr || additional->empty()));
    if (flag("split_special_tokens").value_or(false))
      fail("{}: 'split_special_tokens' is true, which is not supported; false is", where);
    if (const json* decoder = find_field(main, "added_tokens_decoder")) {
      has_decoder = true;
      read_added_tokens_decoder(*decoder, where + ": 'added_tokens_decoder'", added);
    }
  }
  // What transformers 5 reads beside an added_tokens_decoder, it leaves alone.
  if (const auto file = folder / "special_tokens_map.json"; !has_decoder && std::filesystem::exists(file)) {
    const json map = read_json_object(file);
    read_special_tokens(map, file.string(), config);
    const json* additional = find_field(map, "extra_special_tokens");
    config.lists_additional_tokens |= additional != nullptr && additional->is_array();
  }
  if (const auto file = folder / "added_tokens.json"; !has_decoder && std::filesystem::exists(file)) {
    const json map = read_json_object(file);
    for (const auto& [content, value] : map.items()) {
      const int32_t id = read_token_id(value, file.string());
      const bool special = std::ranges::any_of(config.special_tokens, [&](const NamedSpecialToken& named) {
        return named.token && named.token->content == content;
      });
      added.emplace(id, read_added_token({{"content", content}, {"special", special}}, id, file.string()));
    }
  }
  for (auto& [id, token] : added) config.added_tokens.push_back(std::move(token));
  return config;
}

}  // namespace qeval::model
