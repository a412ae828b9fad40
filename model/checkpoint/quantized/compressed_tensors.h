#pragma once

#include "model/checkpoint/quantized/format.h"
#include "model/checkpoint/quantized/name_pattern.h"

namespace qeval::model {

// The config of compressed-tensors, read.

enum class CtStrategy : uint8_t { tensor, channel, group, block, token };
enum class CtFormat : uint8_t { packed, integers, floats, nvfp4, mxfp4, mxfp8 };

/// What one of a group's `weights`, `input_activations`, `output_activations` says.
struct CtArguments {
  int bits = 8;
  bool is_float = false, symmetric = true, dynamic = false, ordered = false;
  bool tensor_group = false;  ///< groups whose scales have a scale of their own (NVFP4)
  bool power_of_two = false;  ///< scales are E8M0
  CtStrategy strategy = CtStrategy::tensor;
  int64_t group_size = 0, block_rows = 0, block_cols = 0;
};

/// One of `config_groups`.
struct CtGroup {
  std::string where;
  CtFormat format = CtFormat::packed;
  std::optional<CtArguments> weights, input, output;
};

/// Who is hit by a target or an entry of `ignore`: a module of that name, of a name that begins with a match
/// of the regular expression, or of that class.
struct CtTarget {
  std::string text;
  std::optional<NamePattern> pattern;

  bool hits(const ModuleRequest& request) const;
  bool is_class() const { return !pattern && (text == "Linear" || text == "Embedding"); }
};

struct CtConfig {
  std::string where;
  std::vector<CtGroup> groups;
  std::vector<std::pair<CtTarget, size_t>> targets;  ///< and the group each belongs to, in the file's order
  std::vector<CtTarget> ignored;
  /// Whether codes are packed densely (0.18 and later), where `version` says.
  std::optional<bool> dense;
  bool beside_floats = false;  ///< kWeightCodes: every packed weight is there as floats, too
  std::optional<Quantization::CacheRounding> cache;

  /// The group of a module, or null. `note` is told where the file's order of regular expressions and that of
  /// their letters differ.
  const CtGroup* find(const ModuleRequest& request, const std::function<void(std::string)>& note) const;
};

CtConfig read_compressed_tensors_config(const QuantizationConfig& config);

}  // namespace qeval::model
