// tokenizer.json of Hugging Face's tokenizers, of the kinds BPE and Unigram. Everything that would change ids
// and is not understood is refused by name.
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/json_object.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/definition.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/tokenizer_class.h"
#include "model/tokenizer/tokenizer_steps.h"

namespace qeval::model {
namespace {

using nlohmann::json;

std::optional<int32_t> find_token(const TokenizerDefinition& definition, std::string_view text) {
  for (const TokenizerDefinition::Token& token : definition.vocabulary) {
    if (token.text == text) return token.id;
  }
  return std::nullopt;
}

void read_unigram(const json& model, const std::string& where, TokenizerDefinition& definition) {
  definition.unigram = true;
  for (const json& entry : JsonObject(model, where).array("vocab")) {
    const auto id = static_cast<int32_t>(definition.vocabulary.size());
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      fail("{}: vocab entry {} is {}; [\"token\", score] is expected", where, id,
           printable(entry.dump(), 60));
    }
    if (id > kMaxTokenId) fail("{}: more than {} tokens", where, kMaxTokenId + 1);
    definition.vocabulary.push_back({entry[0].get<std::string>(), id, entry[1].get<double>()});
  }
  if (definition.vocabulary.empty()) fail("{}: vocab is empty", where);
  if (const json* unknown = find_field(model, "unk_id")) {
    definition.unknown_id = read_token_id(*unknown, where + ": unk_id");
    if (static_cast<size_t>(*definition.unknown_id) >= definition.vocabulary.size()) {
      fail("{}: unk_id is {}, but there are {} tokens", where, *definition.unknown_id,
           definition.vocabulary.size());
    }
  }
}

/// An unknown token counts where something lacks a token; where nothing does, it need not exist.
void read_unknown_token(const json& model, const std::string& where, TokenizerDefinition& definition) {
  if (find_field(model, "unk_token") == nullptr) return;
  const std::string unknown = JsonObject(model, where).string("unk_token");
  definition.unknown_id = find_token(definition, unknown);
  if (definition.unknown_id || unknown.empty()) return;
  std::array<bool, 256> spelt{};
  for (const auto& token : definition.vocabulary) {
    if (const auto bytes = bytes_of_byte_level(token.text); bytes && bytes->size() == 1)
      spelt[static_cast<unsigned char>(bytes->front())] = true;
  }
  if (!definition.byte_level || std::find(spelt.begin(), spelt.end(), false) != spelt.end())
    fail("{}: unk_token '{}' is not in the vocabulary", where, printable(unknown));
}

void read_bpe(const json& model, const std::string& where, TokenizerDefinition& definition) {
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json* field = find_field(model, key);
    if (field != nullptr && !(field->is_string() && field->get<std::string>().empty()))
      fail("{}: '{}' is not supported; null is accepted", where, key);
  }
  if (const json* dropout = find_field(model, "dropout"); dropout != nullptr && *dropout != 0) {
    fail("{}: 'dropout' makes ids random; null is accepted", where);
  }
  definition.ignore_merges = JsonObject(model, where).boolean("ignore_merges", false);
  definition.fuse_unknown = JsonObject(model, where).boolean("fuse_unk", false);
  for (const auto& [text, id] : JsonObject(model, where).object("vocab").value().items()) {
    definition.vocabulary.push_back({text, read_token_id(id, where + ": vocab")});
  }
  read_unknown_token(model, where, definition);
  const MergeReader reader(definition.vocabulary, where);
  const json& merges = JsonObject(model, where).array("merges");
  definition.merges.reserve(merges.size());
  for (const json& merge : merges) {
    const size_t rank = definition.merges.size();
    if (merge.is_string()) {
      definition.merges.push_back(reader.read(merge.get_ref<const std::string&>(), rank));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      definition.merges.push_back(
          reader.read(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(), rank));
    } else {
      fail("{}: merge {} is {}; \"a b\" or [\"a\", \"b\"] is expected", where, rank,
           printable(merge.dump(), 60));
    }
  }
}

void read_model(const json& model, const std::string& name, TokenizerDefinition& definition) {
  const std::string where = name + ": model";
  // Files of early versions name no type.
  const std::string type =
      find_field(model, "type") == nullptr ? "BPE" : JsonObject(model, where).string("type");
  if (type != "BPE" && type != "Unigram")
    fail("{} type '{}' is not supported; BPE and Unigram are", where, printable(type));
  definition.byte_fallback = JsonObject(model, where).boolean("byte_fallback", false);
  if (type == "BPE") {
    read_bpe(model, where, definition);
  } else {
    if (definition.byte_level) fail("{}: a Unigram behind a ByteLevel step is not supported", where);
    read_unigram(model, where, definition);
  }
}

}  // namespace

TokenizerDefinition read_tokenizer_json(const std::filesystem::path& file,
                                        const std::filesystem::path& folder) {
  const std::string name = file.string();
  const json root = read_json_object(file);
  TokenizerConfig config = folder.empty() ? TokenizerConfig() : read_tokenizer_config(folder);
  TokenizerDefinition definition;
  // What a class takes from its own source need not be understood here.
  TokenizerClass tokenizer_class = TokenizerClass::kAsFile;
  if (!folder.empty()) {
    const json* steps = find_field(root, "pre_tokenizer");
    const bool byte_level = steps != nullptr && steps->dump().find("\"ByteLevel\"") != std::string::npos;
    tokenizer_class = find_tokenizer_class(folder, byte_level);
  }
  definition.byte_level = false;
  if (tokenizer_class == TokenizerClass::kAsFile) {
    ReadPreTokenizer read = read_pre_tokenizer(root, name);
    definition.pre_tokenizer = std::move(read.stages);
    definition.byte_level = read.byte_level;
    definition.normalizer = read_normalizer(root, name);
    read_decoder(root, name, definition);
  }
  read_model(JsonObject(root, name).object("model").value(), name, definition);
  apply_tokenizer_class(tokenizer_class, config, definition, name);

  if (find_field(root, "added_tokens") != nullptr) {
    const std::string where = name + ": added_tokens";
    for (const json& token : JsonObject(root, name).array("added_tokens")) {
      if (!token.is_object() || !token.contains("id")) fail("{}: 'id' is missing", where);
      definition.added_tokens.push_back(read_added_token(token, read_token_id(token["id"], where), where));
    }
  }
  TokenAdder adder(definition);
  adder.add(config);
  const std::vector<LeadingToken> leading = read_post_processor(root, name);
  for (const LeadingToken& token : leading) {
    const auto id = token.id ? token.id : adder.find(token.content);
    if (!id) fail("{}: post_processor: token '{}' is not in the vocabulary", name, printable(token.content));
    // This class makes its own, without any token.
    if (tokenizer_class != TokenizerClass::kGptNeox) definition.leading_ids.push_back(*id);
  }
  // A file alone says nothing else of its BOS.
  if (folder.empty() && definition.leading_ids.size() == 1)
    definition.bos_id = definition.leading_ids.front();
  return definition;
}

}  // namespace qeval::model
