#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "model/forwarding_arithmetic.h"
#include "quant/arithmetic/fake_arithmetic.h"

namespace qeval::quant {

/// Refuses a model of whose operations a prefix has none (experts, recurrent mixers and the like).
void require_prefix(const model::ModelConfig& config);
/// Runs the token alone and takes what there is to keep of it: of the float model.
Prefix make_prefix(const model::Model& model, int32_t token);
/// The same where weights are rounded as `qcfg` says, and activations are not: of a model that has learned
/// with them.
Prefix make_prefix(const model::Model& model, const QuantConfig& qcfg, int32_t token);

/// The grids of position 0 where a prefix stands there: keys and values have as many bits as the others', on
/// ranges of their own, those of the constants; nothing else is rounded, since nothing is computed.
FirstToken prefix_grids(const Prefix& prefix, const QuantConfig& qcfg, const model::ModelConfig& config);
/// The same, of a quantization with a prefix, for an arithmetic that has no unrounded values: what is
/// computed at position 0, and then not used, is on the grids of the other positions.
FirstToken prefix_grids_of_integers(const Quantization& quantization, const model::ModelConfig& config);

/// The prefix as the simulation has it, on its grids.
Prefix rounded_prefix(const Quantization& quantization);

/// The file of a checkpoint's folder that holds its prefix.
inline constexpr const char* kPrefixFile = "prefix.json";
nlohmann::ordered_json prefix_json(const Prefix& prefix);
/// Errors name the file and the field: another number of layers or of values than the model's, a token that
/// it lacks.
Prefix read_prefix(const std::filesystem::path& file, const model::ModelConfig& config);

/// The arithmetic of a quantized model with its positions' grids, and its prefix where it has one: a sequence
/// that begins with another token than the prefix is then an Error that names both.
std::unique_ptr<model::Arithmetic> make_fake_arithmetic(const model::Model& model,
                                                        const Quantization& quantization,
                                                        int64_t max_positions);
std::unique_ptr<model::Arithmetic> make_integer_arithmetic(const model::Model& model,
                                                           const Quantization& quantization,
                                                           int64_t max_positions);

}  // namespace qeval::quant
