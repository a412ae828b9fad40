#include "model/tokenizer/tokenizer_steps.h"

#include "model/tokenizer/sentencepiece_model.h"

namespace qeval::model {
namespace {

using nlohmann::json;
using Stage = PreTokenizerStage;
using Step = NormalizerStep;

constexpr int kMaxNesting = 8;

/// Calls visit(step, its type) for a step, or for each step of a Sequence, whose list has the name `list`.
template <typename Visit>
void for_each_step(const json& step, std::string_view list, const std::string& where, const Visit& visit,
                   int nesting = 0) {
  const std::string type = JsonObject(step, where).string("type");
  if (type != "Sequence") {
    visit(step, type);
    return;
  }
  if (nesting == kMaxNesting) fail("{}: more than {} nested Sequences", where, kMaxNesting);
  for (const json& inner : JsonObject(step, where).array(list))
    for_each_step(inner, list, where, visit, nesting + 1);
}

/// {"Regex": …} or {"String": …}, as SplitPattern has it.
std::string read_pattern(const json& step, const std::string& type, const std::string& where) {
  const json& pattern = JsonObject(step, where).object("pattern").value();
  std::string read = find_field(pattern, "Regex") != nullptr
                         ? JsonObject(pattern, where + ": pattern").string("Regex")
                         : escape_pattern(JsonObject(pattern, where + ": pattern").string("String"));
  if (read.empty()) fail("{}: the pattern of a {} is empty", where, type);
  return read;
}

Stage::Behavior read_behavior(const json& step, std::string_view fallback, const std::string& where) {
  const std::string name = find_field(step, "behavior") == nullptr
                               ? std::string(fallback)
                               : JsonObject(step, where).string("behavior");
  if (name == "Isolated") return Stage::Behavior::kIsolated;
  if (name == "Removed") return Stage::Behavior::kRemoved;
  if (name == "Contiguous") return Stage::Behavior::kContiguous;
  if (name == "MergedWithPrevious") return Stage::Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Stage::Behavior::kMergedWithNext;
  fail(
      "{}: behavior '{}' is not supported; accepted are Isolated, Removed, Contiguous, MergedWithPrevious, "
      "MergedWithNext",
      where, printable(name));
}

/// "always", "first" or "never"; older files have `add_prefix_space` instead.
std::string read_prepend_scheme(const json& step, const std::string& where) {
  const bool prefix = JsonObject(step, where).boolean("add_prefix_space", true);
  if (find_field(step, "prepend_scheme") == nullptr) return prefix ? "always" : "never";
  std::string scheme = JsonObject(step, where).string("prepend_scheme");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    fail("{}: prepend_scheme '{}' is not supported; accepted are always, first, never", where,
         printable(scheme));
  }
  return scheme;
}

void require_space_mark(const json& step, const std::string& where) {
  const std::string replacement = JsonObject(step, where).string("replacement");
  if (replacement != kSpaceMark) {
    fail("{}: the replacement of Metaspace is '{}'; '{}' is accepted", where, printable(replacement),
         kSpaceMark);
  }
}

void add_metaspace(const json& step, const std::string& where, std::vector<Stage>& stages) {
  require_space_mark(step, where);
  stages.push_back({.kind = Stage::Kind::kMarkSpaces});
  const std::string scheme = read_prepend_scheme(step, where);
  if (scheme == "always") stages.push_back({.kind = Stage::Kind::kPrefixMark});
  if (scheme == "first") stages.push_back({.kind = Stage::Kind::kPrefixMarkOnce});
  if (JsonObject(step, where).boolean("split", true)) {
    stages.push_back({.pattern = std::string(kSpaceMark), .behavior = Stage::Behavior::kMergedWithNext});
  }
}

}  // namespace

std::vector<NormalizerStep> read_normalizer(const json& file, const std::string& name) {
  std::vector<Step> steps;
  const json* normalizer = find_field(file, "normalizer");
  if (normalizer == nullptr) return steps;
  const std::string where = name + ": normalizer";
  for_each_step(*normalizer, "normalizers", where, [&](const json& step, const std::string& type) {
    if (type == "NFC") {
      steps.push_back({.kind = Step::Kind::kNfc});
    } else if (type == "NFD") {
      steps.push_back({.kind = Step::Kind::kNfd});
    } else if (type == "NFKC") {
      steps.push_back({.kind = Step::Kind::kNfkc});
    } else if (type == "NFKD") {
      steps.push_back({.kind = Step::Kind::kNfkd});
    } else if (type == "Prepend") {
      steps.push_back({.kind = Step::Kind::kPrepend, .text = JsonObject(step, where).string("prepend")});
    } else if (type == "Replace") {
      steps.push_back({.kind = Step::Kind::kReplace,
                       .pattern = read_pattern(step, type, where),
                       .text = JsonObject(step, where).string("content")});
    } else if (type == "Strip") {
      if (JsonObject(step, where).boolean("strip_left", true))
        steps.push_back({.kind = Step::Kind::kReplace, .pattern = R"(\A\s+)"});
      if (JsonObject(step, where).boolean("strip_right", true))
        steps.push_back({.kind = Step::Kind::kReplace, .pattern = R"(\s+\z)"});
    } else {
      fail(
          "{} '{}' is not supported; accepted are NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, a Sequence "
          "of "
          "them, null",
          where, printable(type));
    }
  });
  return steps;
}

ReadPreTokenizer read_pre_tokenizer(const json& file, const std::string& name) {
  ReadPreTokenizer read;
  auto& stages = read.stages;
  const json* pre_tokenizer = find_field(file, "pre_tokenizer");
  if (pre_tokenizer == nullptr) return read;
  const std::string where = name + ": pre_tokenizer";
  for_each_step(*pre_tokenizer, "pretokenizers", where, [&](const json& step, const std::string& type) {
    if (type == "ByteLevel") {
      if (read.byte_level) fail("{}: a second ByteLevel is not supported", where);
      read.byte_level = true;
      if (JsonObject(step, where).boolean("add_prefix_space", true))
        stages.push_back({.kind = Stage::Kind::kPrefixSpace});
      if (JsonObject(step, where).boolean("use_regex", true))
        stages.push_back({.pattern = std::string(kGpt2Pattern)});
      stages.push_back({.kind = Stage::Kind::kByteLevel});
    } else if (type == "Split") {
      stages.push_back({.pattern = read_pattern(step, type, where),
                        .behavior = read_behavior(step, "", where),
                        .invert = JsonObject(step, where).boolean("invert", false)});
    } else if (type == "Digits") {
      const bool individual = JsonObject(step, where).boolean("individual_digits", false);
      stages.push_back({.pattern = individual ? R"(\p{N})" : R"(\p{N}+)"});
    } else if (type == "Punctuation") {
      stages.push_back(
          {.pattern = R"([\p{P}$+<=>^`|~])", .behavior = read_behavior(step, "Isolated", where)});
    } else if (type == "WhitespaceSplit") {
      stages.push_back({.pattern = R"(\s+)", .behavior = Stage::Behavior::kRemoved});
    } else if (type == "CharDelimiterSplit") {
      const std::string delimiter = JsonObject(step, where).string("delimiter");
      if (delimiter.empty()) fail("{}: the delimiter of a CharDelimiterSplit is empty", where);
      stages.push_back({.pattern = escape_pattern(delimiter), .behavior = Stage::Behavior::kRemoved});
    } else if (type == "Metaspace") {
      if (read.byte_level) fail("{}: Metaspace after ByteLevel is not supported", where);
      add_metaspace(step, where, stages);
    } else {
      fail(
          "{} '{}' is not supported; accepted are ByteLevel, Split, Digits, Punctuation, WhitespaceSplit, "
          "CharDelimiterSplit, Metaspace, a Sequence of them, null",
          where, printable(type));
    }
  });
  return read;
}

void read_decoder(const json& file, const std::string& name, TokenizerDefinition& definition) {
  const json* decoder = find_field(file, "decoder");
  if (decoder == nullptr || definition.byte_level) return;
  const std::string where = name + ": decoder";
  for_each_step(*decoder, "decoders", where, [&](const json& step, const std::string& type) {
    if (type == "Metaspace") {
      definition.spells_spaces = true;
      definition.drops_leading_space = read_prepend_scheme(step, where) != "never";
    } else if (type == "Replace") {
      definition.spells_spaces |= read_pattern(step, type, where) == kSpaceMark;
    } else if (type == "Strip") {
      const json* start = find_field(step, "start");
      definition.drops_leading_space |= start != nullptr && start->is_number_integer() && *start > 0;
    }
  });
}

std::vector<LeadingToken> read_post_processor(const json& file, const std::string& name) {
  std::vector<LeadingToken> leading;
  const json* processor = find_field(file, "post_processor");
  if (processor == nullptr) return leading;
  const std::string where = name + ": post_processor";
  bool has_template = false;
  for_each_step(*processor, "processors", where, [&](const json& step, const std::string& type) {
    if (type == "ByteLevel") return;
    if (type != "TemplateProcessing") {
      fail("{} '{}' is not supported; accepted are ByteLevel, TemplateProcessing, a Sequence of them, null",
           where, printable(type));
    }
    if (has_template) fail("{}: a second TemplateProcessing is not supported", where);
    has_template = true;
    const json* specials = find_field(step, "special_tokens");
    bool text_seen = false;
    for (const json& part : JsonObject(step, where).array("single")) {
      if (!part.is_object()) fail("{}: 'single' holds {}; an object is expected", where, part.type_name());
      if (find_field(part, "Sequence") != nullptr) {
        text_seen = true;
        continue;
      }
      const std::string token =
          JsonObject(JsonObject(part, where).object("SpecialToken").value(), where).string("id");
      if (text_seen) {
        fail(
            "{}: '{}' after the text is not supported, since a score continues the text; accepted are tokens "
            "before it",
            where, printable(token));
      }
      const json* entry = specials == nullptr ? nullptr : find_field(*specials, token);
      const json* ids = entry == nullptr ? nullptr : find_field(*entry, "ids");
      if (ids == nullptr || !ids->is_array() || ids->empty()) {
        leading.push_back({token});
        continue;
      }
      for (const json& id : *ids) leading.push_back({token, read_token_id(id, where + ": special_tokens")});
    }
  });
  return leading;
}

}  // namespace qeval::model
