// `config.json` of Hugging Face and unified folders. What the families differ in is in architectures/; here
// is what holds for every one: which family it is, and what a multimodal configuration nests.

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/architectures/architecture.h"
#include "model/config_check.h"
#include "model/hadamard.h"

namespace qeval::model {
namespace {

using nlohmann::json;

/// The text model's object of a nested configuration, with what only the outer one says of it.
json text_config(const JsonObject& outer) {
  json text = outer.object("text_config").value();
  for (const char* key :
       {"tie_word_embeddings", "bos_token_id", "eos_token_id", "model_type", kWeightLayoutKey}) {
    const auto own = text.find(key);
    if ((own == text.end() || own->is_null()) && outer.find(key) != nullptr) text[key] = *outer.find(key);
  }
  return text;
}

/// A special token beyond the vocabulary is none; other tools leave such ids in files.
void drop_special_tokens_beyond(ModelConfig& config, const std::string& where) {
  for (const auto& [key, token] :
       {std::pair{"bos_token_id", &config.bos_token_id}, {"eos_token_id", &config.eos_token_id}}) {
    if (!*token || **token < config.vocab_size) continue;
    config.warnings.push_back(fmt::format("{}: {} is {}, but there are {} tokens: taken as none", where, key,
                                          **token, config.vocab_size));
    token->reset();
  }
}

/// The rotation that qeval made, as unified_config() writes it.
std::optional<Rotation> read_rotation(const JsonObject& fields, const ModelConfig& config) {
  if (fields.find(kRotationKey) == nullptr) return std::nullopt;
  const JsonObject own = fields.object(kRotationKey);
  Rotation rotation{.residual = own.boolean("residual"),
                    .values = own.boolean("values"),
                    .down_block = own.integer("down_block"),
                    .query_key_block = own.integer("query_key_block"),
                    .seed = own.seed("seed")};
  const auto check = [&](const char* key, int64_t block, int64_t width) {
    if (block == 0 || (block > 0 && width % block == 0 && has_hadamard(block))) return;
    own.refuse(key, fmt::format("0 (none), or the order of a Hadamard matrix that divides {}", width));
  };
  check("down_block", rotation.down_block, config.intermediate_size);
  check("query_key_block", rotation.query_key_block, config.head_dim);
  if (rotation.query_key_block != 0 && config.latent) own.refuse("query_key_block", "0 of latent attention");
  return rotation;
}

std::string known_types() {
  std::string names;
  for (const Architecture& architecture : architectures()) {
    names += (names.empty() ? "" : ", ") + std::string(architecture.model_type);
  }
  return names;
}

}  // namespace

ModelConfig read_config(const std::filesystem::path& config_json) {
  json document = parse_strict_json(read_file(config_json), config_json.string());
  std::string where = config_json.string();
  if (const JsonObject outer(document, where); outer.find("text_config") != nullptr) {
    document = text_config(outer);
    where += ": text_config";
  }
  // How the file's tensors are coded (checkpoint/quantized/) is no property of the model.
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (document.is_object()) document.erase(key);
  }
  const JsonObject fields(document, where);
  const std::string type = fields.string("model_type");
  const Architecture* architecture = find_architecture(type);
  if (architecture == nullptr) fields.refuse("model_type", known_types());
  ModelConfig config = architecture->read(fields);
  for (const char* key : {"num_local_experts", "num_experts", "num_experts_per_tok"}) {
    if (!config.experts && fields.integer(key, 0) > 1) {
      fields.refuse(key, fmt::format("1 (a {} model has no mixture of experts)", type));
    }
  }
  config.architecture = type;
  if (!is_papers_block(config) || fields.has(kWeightLayoutKey)) config.source = document.dump();
  config.rotation = read_rotation(fields, config);
  apply_rotation(config);
  // qeval writes quantized checkpoints under their architecture's own name, too.
  if (config.norm == NormKind::rms)
    config.l2norm_as_rmsnorm = fields.boolean("l2norm_as_rmsnorm", config.l2norm_as_rmsnorm);
  config.norm_eps = fields.number(kFinalNormEpsKey, config.norm_eps);
  check_config(config, fields.where());
  drop_special_tokens_beyond(config, fields.where());
  config.graph = make_graph(config);
  return config;
}

}  // namespace qeval::model
