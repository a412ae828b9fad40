#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_object.h"
#include "model/tokenizer/definition.h"

namespace qeval::model {

// The parts of a tokenizer.json around its model. `file` is the whole of it, `name` its name for messages;
// what would change ids and is not understood is an Error that names it.

std::vector<NormalizerStep> read_normalizer(const nlohmann::json& file, const std::string& name);

struct ReadPreTokenizer {
  std::vector<PreTokenizerStage> stages;
  bool byte_level = false;  // there is a ByteLevel step, so pieces are taken byte by byte
};
ReadPreTokenizer read_pre_tokenizer(const nlohmann::json& file, const std::string& name);

/// Reads what the decoder does with spaces into `definition`.
void read_decoder(const nlohmann::json& file, const std::string& name, TokenizerDefinition& definition);

/// A token that the file puts before every text: its spelling, and the id where the file says it.
struct LeadingToken {
  std::string content;
  std::optional<int32_t> id = {};
};
std::vector<LeadingToken> read_post_processor(const nlohmann::json& file, const std::string& name);

}  // namespace qeval::model
