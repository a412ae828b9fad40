#include "model/tokenizer/tokenizer_class.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/json_object.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace qeval::model {
namespace {

using Stage = PreTokenizerStage;
using Step = NormalizerStep;

/// Qwen's patterns, as the classes have them.
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The class that transformers registers for a model_type, where it is one of ours; every other type has the
/// general one or none.
constexpr auto kClassOfType = std::to_array<std::pair<std::string_view, std::string_view>>({
    {"cohere", "CohereTokenizer"},
    {"cohere2", "CohereTokenizer"},
    {"codegen", "GPT2Tokenizer"},
    {"gpt2", "GPT2Tokenizer"},
    {"gpt_neo", "GPT2Tokenizer"},
    {"gptj", "GPT2Tokenizer"},
    {"opt", "GPT2Tokenizer"},
    {"phi", "GPT2Tokenizer"},
    {"starcoder2", "GPT2Tokenizer"},
    {"gemma", "GemmaTokenizer"},
    {"gemma2", "GemmaTokenizer"},
    {"gemma3", "GemmaTokenizer"},
    {"gemma3_text", "GemmaTokenizer"},
    {"gemma3n", "GemmaTokenizer"},
    {"gemma3n_text", "GemmaTokenizer"},
    {"gpt_neox", "GPTNeoXTokenizer"},
    {"mpt", "GPTNeoXTokenizer"},
    {"olmo", "GPTNeoXTokenizer"},
    {"olmoe", "GPTNeoXTokenizer"},
    {"qwen2", "Qwen2Tokenizer"},
    {"qwen2_moe", "Qwen2Tokenizer"},
    {"qwen3", "Qwen2Tokenizer"},
    {"qwen3_moe", "Qwen2Tokenizer"},
    {"qwen3_next", "Qwen2Tokenizer"},
    {"qwen3_5", "Qwen3_5Tokenizer"},
    {"qwen3_5_text", "Qwen3_5Tokenizer"},
    {"qwen3_5_moe", "Qwen3_5Tokenizer"},
    {"qwen3_5_moe_text", "Qwen3_5Tokenizer"},
});

/// Types whose files may name any class: the general one loads them.
constexpr auto kGeneralTypes = std::to_array<std::string_view>({
    "ernie4_5",
    "ernie4_5_moe",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt_bigcode",
    "granite",
    "granitemoe",
    "granitemoehybrid",
    "granitemoeshared",
    "hyperclovax",
    "internlm2",
    "internlm3",
    "jamba",
    "minicpm3",
    "minimax_m2",
    "ministral",
    "ministral3",
    "mistral",
    "mistral3",
    "mixtral",
    "nemotron",
    "olmo2",
    "olmo3",
    "persimmon",
    "phi3",
    "phimoe",
    "stablelm",
});

/// Types whose files' class is known to be wrong.
constexpr auto kWrongClassTypes = std::to_array<std::string_view>(
    {"ernie4_5", "ernie4_5_moe", "hyperclovax", "internlm2", "internlm3", "jamba", "minicpm3", "minimax_m2",
     "nemotron", "phi3", "phimoe", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text"});

constexpr auto kMistralTypes =
    std::to_array<std::string_view>({"ministral", "ministral3", "mistral", "mistral3", "mixtral"});

constexpr auto kClasses = std::to_array<std::pair<std::string_view, TokenizerClass>>({
    {"LlamaTokenizer", TokenizerClass::kLlama},
    {"GemmaTokenizer", TokenizerClass::kGemma},
    {"GPT2Tokenizer", TokenizerClass::kGpt2},
    {"CodeGenTokenizer", TokenizerClass::kCodeGen},
    {"GPTNeoXTokenizer", TokenizerClass::kGptNeox},
    {"Qwen2Tokenizer", TokenizerClass::kQwen2},
    {"Qwen3_5Tokenizer", TokenizerClass::kQwen35},
    {"CohereTokenizer", TokenizerClass::kCohere},
});

/// Classes that make something else of a SentencePiece model than the general one does.
constexpr auto kOtherSentencePieceClasses = std::to_array<std::string_view>({
    "AlbertTokenizer",      "BarthezTokenizer",    "BertGenerationTokenizer",
    "BigBirdTokenizer",     "CamembertTokenizer",  "CodeLlamaTokenizer",
    "CpmTokenizer",         "DebertaV2Tokenizer",  "FNetTokenizer",
    "GPTSw3Tokenizer",      "LayoutXLMTokenizer",  "M2M100Tokenizer",
    "MBart50Tokenizer",     "MBartTokenizer",      "MLukeTokenizer",
    "MarianTokenizer",      "NllbTokenizer",       "PLBartTokenizer",
    "PegasusTokenizer",     "ReformerTokenizer",   "RemBertTokenizer",
    "SeamlessM4TTokenizer", "SiglipTokenizer",     "Speech2TextTokenizer",
    "SpeechT5Tokenizer",    "T5Tokenizer",         "UdopTokenizer",
    "XGLMTokenizer",        "XLMRobertaTokenizer", "XLNetTokenizer",
});

template <typename Pairs>
auto find_in(const Pairs& pairs, std::string_view key) -> decltype(&pairs[0].second) {
  const auto entry = std::find_if(pairs.begin(), pairs.end(), [&](const auto& p) { return p.first == key; });
  return entry == pairs.end() ? nullptr : &entry->second;
}

template <typename Names>
bool holds(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// A string of a folder's JSON file, empty where there is none.
std::string read_text(const std::filesystem::path& file, std::string_view key) {
  if (!std::filesystem::exists(file)) return "";
  const nlohmann::json object = read_json_object(file);
  const nlohmann::json* text = find_field(object, key);
  return text != nullptr && text->is_string() ? text->get<std::string>() : "";
}

std::string read_model_type(const std::filesystem::path& folder) {
  const std::string source = read_text(folder / "tokenizer_config.json", kSourceModelType);
  return source.empty() ? read_text(folder / "config.json", "model_type") : source;
}

/// ByteLevel's own cutting, or only its spelling of bytes.
void add_byte_level(std::vector<Stage>& stages, bool prefix_space, bool cuts) {
  if (prefix_space) stages.push_back({.kind = Stage::Kind::kPrefixSpace});
  if (cuts) stages.push_back({.pattern = std::string(kGpt2Pattern)});
  stages.push_back({.kind = Stage::Kind::kByteLevel});
}

/// A default counts where the file does not mention the role.
void add_defaults(TokenizerConfig& config,
                  std::initializer_list<std::pair<std::string_view, std::string_view>> defaults) {
  for (const auto& [role, content] : defaults) {
    const auto has_role = [&](const NamedSpecialToken& named) { return named.role == role; };
    if (std::none_of(config.special_tokens.begin(), config.special_tokens.end(), has_role)) {
      config.special_tokens.push_back(
          {std::string(role), AddedToken{.content = std::string(content), .special = true}});
    }
  }
}

void become_byte_level(TokenizerDefinition& definition) {
  definition.byte_level = true;
  definition.byte_fallback = false;
  definition.ignore_merges = false;
  definition.fuse_unknown = false;
  definition.unknown_id.reset();
  definition.normalizer.clear();
  definition.pre_tokenizer.clear();
}

void become_characters(TokenizerDefinition& definition) {
  definition.byte_level = false;
  definition.byte_fallback = true;
  definition.ignore_merges = false;
  definition.fuse_unknown = true;
  definition.unknown_id.reset();
  definition.normalizer.clear();
  definition.pre_tokenizer.clear();
  definition.spells_spaces = true;
}

}  // namespace

TokenizerClass find_tokenizer_class(const std::filesystem::path& folder, bool byte_level) {
  const std::string type = read_model_type(folder);
  const std::string_view* of_type = find_in(kClassOfType, type);
  const std::string stated = tokenizer_class_name(folder);
  std::string_view name = stated;
  // A Llama 3 that calls itself LlamaTokenizer.
  if (name == "LlamaTokenizer" && byte_level && !holds(kMistralTypes, type) && !holds(kWrongClassTypes, type))
    return TokenizerClass::kAsFile;
  if (holds(kGeneralTypes, type)) return TokenizerClass::kAsFile;
  if (of_type != nullptr && (name.empty() || (name != *of_type && holds(kWrongClassTypes, type))))
    name = *of_type;
  const TokenizerClass* found = find_in(kClasses, name);
  return found == nullptr ? TokenizerClass::kAsFile : *found;
}

std::string tokenizer_class_name(const std::filesystem::path& folder) {
  std::string name = read_text(folder / "tokenizer_config.json", "tokenizer_class");
  if (name.empty()) name = read_text(folder / "config.json", "tokenizer_class");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

void refuse_other_sentencepiece_class(const std::filesystem::path& folder) {
  const std::string name = tokenizer_class_name(folder);
  if (holds(kGeneralTypes, read_model_type(folder)) || !holds(kOtherSentencePieceClasses, name)) return;
  fail(
      "{}: the tokenizer class {} is not supported with a tokenizer.model; accepted are LlamaTokenizer, "
      "GemmaTokenizer, none, or a tokenizer.json",
      folder.string(), name);
}

std::string deciding_model_type(const std::filesystem::path& folder) {
  const std::string type = read_model_type(folder);
  const bool decides = find_in(kClassOfType, type) != nullptr || holds(kGeneralTypes, type) ||
                       holds(kMistralTypes, type) || holds(kWrongClassTypes, type);
  return decides ? type : "";
}

void add_default_tokens(TokenizerClass tokenizer_class, TokenizerConfig& config) {
  switch (tokenizer_class) {
    case TokenizerClass::kAsFile:
      break;
    case TokenizerClass::kLlama:
      add_defaults(config, {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}});
      break;
    case TokenizerClass::kGemma:
      add_defaults(config, {{"bos_token", "<bos>"},
                            {"eos_token", "<eos>"},
                            {"unk_token", "<unk>"},
                            {"pad_token", "<pad>"},
                            {"mask_token", "<mask>"}});
      break;
    case TokenizerClass::kGptNeox:
      add_defaults(config, {{"pad_token", "<|padding|>"}});
      [[fallthrough]];
    case TokenizerClass::kGpt2:
    case TokenizerClass::kCodeGen:
      add_defaults(
          config,
          {{"bos_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}});
      break;
    case TokenizerClass::kQwen2:
    case TokenizerClass::kQwen35:
      add_defaults(
          config,
          {{"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}, {"pad_token", "<|endoftext|>"}});
      break;
    case TokenizerClass::kCohere:
      add_defaults(config, {{"bos_token", "<BOS_TOKEN>"},
                            {"eos_token", "<|END_OF_TURN_TOKEN|>"},
                            {"unk_token", "<UNK>"},
                            {"sep_token", "<SEP>"},
                            {"pad_token", "<PAD>"},
                            {"cls_token", "<CLS>"},
                            {"mask_token", "<MASK_TOKEN>"}});
      break;
  }
}

void apply_tokenizer_class(TokenizerClass tokenizer_class, TokenizerConfig& config,
                           TokenizerDefinition& definition, const std::string& name) {
  if (tokenizer_class == TokenizerClass::kAsFile) return;
  if (definition.unigram) {
    fail(
        "{}: the model is a Unigram, but the folder's tokenizer class is one for BPE; accepted are BPE, or "
        "another 'tokenizer_class' in tokenizer_config.json",
        name);
  }
  add_default_tokens(tokenizer_class, config);
  const bool prefix_space = config.add_prefix_space.value_or(false);
  const Step nfc{.kind = Step::Kind::kNfc};
  switch (tokenizer_class) {
    case TokenizerClass::kAsFile:
      break;
    case TokenizerClass::kLlama:
      become_characters(definition);
      definition.pre_tokenizer.push_back({.kind = Stage::Kind::kMarkSpaces});
      definition.drops_leading_space = config.add_prefix_space.value_or(true);
      if (config.add_prefix_space.value_or(true)) {
        definition.pre_tokenizer.push_back({.kind = config.legacy.value_or(false)
                                                        ? Stage::Kind::kPrefixMark
                                                        : Stage::Kind::kPrefixMarkOnce});
      }
      break;
    case TokenizerClass::kGemma:
      become_characters(definition);
      definition.drops_leading_space = false;
      definition.normalizer.push_back(
          {.kind = Step::Kind::kReplace, .pattern = " ", .text = std::string(kSpaceMark)});
      if (const auto unknown = config.content_of("unk_token")) {
        for (const auto& token : definition.vocabulary) {
          if (token.text == *unknown) definition.unknown_id = token.id;
        }
      }
      break;
    case TokenizerClass::kGpt2:
    case TokenizerClass::kCodeGen:
      become_byte_level(definition);
      add_byte_level(definition.pre_tokenizer, prefix_space, true);
      break;
    case TokenizerClass::kGptNeox:
      become_byte_level(definition);
      definition.normalizer.push_back(nfc);
      add_byte_level(definition.pre_tokenizer, prefix_space, true);
      break;
    case TokenizerClass::kQwen2:
    case TokenizerClass::kQwen35:
      become_byte_level(definition);
      definition.normalizer.push_back(nfc);
      definition.pre_tokenizer.push_back(
          {.pattern =
               std::string(tokenizer_class == TokenizerClass::kQwen2 ? kQwen2Pattern : kQwen35Pattern)});
      add_byte_level(definition.pre_tokenizer, prefix_space, false);
      break;
    case TokenizerClass::kCohere:
      become_byte_level(definition);
      definition.normalizer.push_back(nfc);
      definition.pre_tokenizer.push_back({.pattern = R"(\p{N})"});
      add_byte_level(definition.pre_tokenizer, prefix_space, true);
      break;
  }
}

TokenAdder::TokenAdder(TokenizerDefinition& definition) : definition_(definition) {
  for (const auto& token : definition.vocabulary) {
    ids_.emplace(token.text, token.id);
    next_ = std::max(next_, token.id + 1);
  }
  for (const AddedToken& token : definition.added_tokens) {
    added_.emplace(token.content, token.id);
    next_ = std::max(next_, token.id + 1);
  }
}

void TokenAdder::add(AddedToken token) {
  if (added_.contains(token.content)) return;
  const auto known = ids_.find(token.content);
  token.id = known != ids_.end() ? known->second : next_;
  next_ = std::max(next_, token.id + 1);
  added_.emplace(token.content, token.id);
  definition_.added_tokens.push_back(std::move(token));
}

void TokenAdder::add(const TokenizerConfig& config) {
  for (const AddedToken& token : config.added_tokens) add(token);
  std::vector<NamedSpecialToken> named = config.special_tokens;
  std::stable_sort(named.begin(), named.end(), [](const auto& a, const auto& b) {
    const auto place = [](const std::string& role) { return std::ranges::find(kSpecialTokenRoles, role); };
    return place(a.role) < place(b.role);
  });
  for (const NamedSpecialToken& special : named) {
    if (special.token) add(*special.token);
  }
  const auto id_of = [&](std::string_view role) -> std::optional<int32_t> {
    const auto content = config.content_of(role);
    return content ? find(*content) : std::nullopt;
  };
  definition_.bos_id = id_of("bos_token");
  definition_.eos_id = id_of("eos_token");
}

std::optional<int32_t> TokenAdder::find(const std::string& content) const {
  for (const auto* ids : {&added_, &ids_}) {
    if (const auto found = ids->find(content); found != ids->end()) return found->second;
  }
  return std::nullopt;
}

}  // namespace qeval::model
