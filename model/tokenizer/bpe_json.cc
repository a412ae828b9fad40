// tokenizer.json of Hugging Face's tokenizers, as far as byte-level BPE goes. Everything that would change
// ids and is not understood is refused by name.
#include <unordered_map>

#include "base/error.h"
#include "model/tokenizer/bpe_tokenizer.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/special_tokens.h"

namespace qeval::model {
namespace {

using nlohmann::json;

constexpr int kMaxNesting = 8;

const json& object_field(const json& object, std::string_view key, const std::string& where) {
  const json* field = find_field(object, key);
  if (field == nullptr) fail("{}: '{}' is missing", where, key);
  if (!field->is_object()) fail("{}: '{}' is {}; an object is expected", where, key, field->type_name());
  return *field;
}

const json& array_field(const json& object, std::string_view key, const std::string& where) {
  const json* field = find_field(object, key);
  if (field == nullptr) fail("{}: '{}' is missing", where, key);
  if (!field->is_array()) fail("{}: '{}' is {}; an array is expected", where, key, field->type_name());
  return *field;
}

/// Calls visit(step, its type) for a step, or for each step of a Sequence, whose list has one of the names
/// `lists`.
template <typename Visit>
void for_each_step(const json& step, std::string_view list, const std::string& where, const Visit& visit,
                   int nesting = 0) {
  const std::string type = string_field(step, "type", where);
  if (type != "Sequence") {
    visit(step, type);
    return;
  }
  if (nesting == kMaxNesting) fail("{}: more than {} nested Sequences", where, kMaxNesting);
  for (const json& inner : array_field(step, list, where))
    for_each_step(inner, list, where, visit, nesting + 1);
}

bool reads_nfc(const json& file, const std::string& name) {
  const json* normalizer = find_field(file, "normalizer");
  if (normalizer == nullptr) return false;
  const std::string where = name + ": normalizer";
  bool nfc = false;
  for_each_step(*normalizer, "normalizers", where, [&](const json&, const std::string& type) {
    if (type != "NFC")
      fail("{} '{}' is not supported; accepted are NFC, a Sequence of it, null", where, printable(type));
    nfc = true;
  });
  return nfc;
}

PreTokenizerStage read_split(const json& step, const std::string& where) {
  const json& pattern = object_field(step, "pattern", where);
  PreTokenizerStage stage;
  if (find_field(pattern, "Regex") != nullptr) {
    stage.pattern = string_field(pattern, "Regex", where + ": pattern");
  } else {
    stage.pattern = escape_pattern(string_field(pattern, "String", where + ": pattern"));
  }
  if (stage.pattern.empty()) fail("{}: the pattern of a Split is empty", where);
  const std::string behavior = string_field(step, "behavior", where);
  const bool invert = bool_field_or(step, "invert", false, where);
  if (behavior == "Removed") {
    stage.keep_matches = invert;
    stage.keep_gaps = !invert;
  } else if (behavior != "Isolated") {
    fail("{}: behavior '{}' of a Split is not supported; accepted are Isolated, Removed", where,
         printable(behavior));
  }
  return stage;
}

std::vector<PreTokenizerStage> read_pre_tokenizer(const json& file, const std::string& name) {
  const std::string where = name + ": pre_tokenizer";
  std::vector<PreTokenizerStage> stages;
  bool byte_level = false;
  for_each_step(object_field(file, "pre_tokenizer", name), "pretokenizers", where,
                [&](const json& step, const std::string& type) {
                  if (byte_level) fail("{}: '{}' after ByteLevel is not supported", where, printable(type));
                  if (type == "ByteLevel") {
                    byte_level = true;
                    const bool cuts = bool_field_or(step, "use_regex", true, where);
                    stages.push_back({.pattern = std::string(cuts ? kGpt2Pattern : ""),
                                      .prefix_space = bool_field_or(step, "add_prefix_space", true, where)});
                  } else if (type == "Split") {
                    stages.push_back(read_split(step, where));
                  } else if (type == "Digits") {
                    const bool individual = bool_field_or(step, "individual_digits", false, where);
                    stages.push_back({.pattern = individual ? R"(\p{N})" : R"(\p{N}+)"});
                  } else {
                    fail(
                        "{} '{}' is not supported; accepted are ByteLevel, Split, Digits, a Sequence of them",
                        where, printable(type));
                  }
                });
  if (!byte_level) {
    fail(
        "{}: there is no ByteLevel step, so this is not a byte-level tokenizer; for a SentencePiece model "
        "give its "
        "tokenizer.model",
        where);
  }
  return stages;
}

void read_model(const json& model, const std::string& name, BpeDefinition& definition) {
  const std::string where = name + ": model";
  // Files of early versions name no type.
  const std::string type = find_field(model, "type") == nullptr ? "BPE" : string_field(model, "type", where);
  if (type != "BPE") fail("{} type '{}' is not supported; BPE is", where, printable(type));
  if (bool_field_or(model, "byte_fallback", false, where)) {
    fail("{}: byte_fallback means a SentencePiece model; give its tokenizer.model", where);
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix", "unk_token"}) {
    const json* field = find_field(model, key);
    if (field != nullptr && !(field->is_string() && field->get<std::string>().empty())) {
      fail("{}: '{}' is not supported in a byte-level tokenizer; null is accepted", where, key);
    }
  }
  if (const json* dropout = find_field(model, "dropout"); dropout != nullptr && *dropout != 0) {
    fail("{}: 'dropout' makes ids random; null is accepted", where);
  }
  definition.ignore_merges = bool_field_or(model, "ignore_merges", false, where);

  for (const auto& [text, id] : object_field(model, "vocab", where).items()) {
    definition.vocabulary.push_back({text, read_token_id(id, where + ": vocab")});
  }
  const MergeReader reader(definition.vocabulary, where);
  const json& merges = array_field(model, "merges", where);
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

/// The special token that a template puts before a single text; nullopt where it puts none.
std::optional<std::string> read_leading_token(const json& step, const std::string& where) {
  std::optional<std::string> leading;
  bool text_seen = false;
  for (const json& part : array_field(step, "single", where)) {
    if (!part.is_object()) fail("{}: 'single' holds {}; an object is expected", where, part.type_name());
    if (find_field(part, "Sequence") != nullptr) {
      text_seen = true;
      continue;
    }
    const std::string token = string_field(object_field(part, "SpecialToken", where), "id", where);
    if (text_seen)
      fail("{}: '{}' after the text is not supported; one token before it is", where, printable(token));
    if (leading) fail("{}: a second token before the text, '{}', is not supported", where, printable(token));
    leading = token;
  }
  return leading;
}

/// What the file itself puts before a text: no answer (nullopt), nothing (""), or a token.
std::optional<std::string> read_post_processor(const json& file, const std::string& name) {
  std::optional<std::string> leading;
  const json* processor = find_field(file, "post_processor");
  if (processor == nullptr) return leading;
  const std::string where = name + ": post_processor";
  for_each_step(*processor, "processors", where, [&](const json& step, const std::string& type) {
    if (type == "ByteLevel") return;
    if (type != "TemplateProcessing") {
      fail("{} '{}' is not supported; accepted are ByteLevel, TemplateProcessing, a Sequence of them, null",
           where, printable(type));
    }
    if (leading) fail("{}: a second TemplateProcessing is not supported", where);
    leading = read_leading_token(step, where).value_or("");
  });
  return leading;
}

int32_t id_of(const BpeDefinition& definition, const std::string& content, const std::string& where) {
  for (const AddedToken& token : definition.added_tokens) {
    if (token.content == content) return token.id;
  }
  for (const BpeDefinition::Token& token : definition.vocabulary) {
    if (token.text == content) return token.id;
  }
  fail("{}: token '{}' is not in the vocabulary", where, printable(content));
}

}  // namespace

BpeDefinition read_bpe_json(const std::filesystem::path& file, const std::filesystem::path& folder) {
  const std::string name = file.string();
  const json root = read_json_object(file);
  BpeDefinition definition;
  read_model(object_field(root, "model", name), name, definition);
  if (find_field(root, "added_tokens") != nullptr) {
    const std::string where = name + ": added_tokens";
    for (const json& token : array_field(root, "added_tokens", name)) {
      if (!token.is_object() || !token.contains("id")) fail("{}: 'id' is missing", where);
      definition.added_tokens.push_back(read_added_token(token, read_token_id(token["id"], where), where));
    }
  }
  definition.nfc = reads_nfc(root, name);
  definition.pre_tokenizer = read_pre_tokenizer(root, name);

  const TokenizerConfig config = folder.empty() ? TokenizerConfig() : read_tokenizer_config(folder);
  for (const AddedToken& token : config.added_tokens) {
    const auto same_id = [&](const AddedToken& other) { return other.id == token.id; };
    if (std::none_of(definition.added_tokens.begin(), definition.added_tokens.end(), same_id)) {
      definition.added_tokens.push_back(token);
    }
  }
  const std::string where = (folder.empty() ? file : folder / "tokenizer_config.json").string();
  if (config.bos_token) definition.bos_id = id_of(definition, *config.bos_token, where);
  if (config.eos_token) definition.eos_id = id_of(definition, *config.eos_token, where);
  const std::optional<std::string> leading = read_post_processor(root, name);
  definition.adds_bos = leading ? !leading->empty() : config.add_bos_token.value_or(false);
  if (leading && !leading->empty()) {
    const int32_t id = id_of(definition, *leading, name + ": post_processor");
    if (definition.bos_id.value_or(id) != id) {
      fail("{}: the post_processor puts '{}' before a text, but {} names '{}' as bos_token", name,
           printable(*leading), where, printable(*config.bos_token));
    }
    definition.bos_id = id;
  }
  if (definition.adds_bos && !definition.bos_id)
    fail("{}: add_bos_token is true, but there is no bos_token", where);
  return definition;
}

}  // namespace qeval::model
