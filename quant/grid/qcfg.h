#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "quant/grid/points.h"
#include "quant/grid/quantizer.h"

namespace qeval::quant {

/// What is quantized and to how many bits: a spec for each point of a model.
using QuantConfig = PointMap<QuantSpec>;

/// A quantization scheme, from which the specs of all points follow (docs/specification.md#points).
struct Scheme {
  /// Weights of the projections. The down projection's are per output channel whatever this says; the block
  /// norms' weights are 16-bit per tensor wherever activations are quantized.
  QuantSpec weight{.bits = 8};
  /// Bits of the points that have 8 by default (those with 16 stay at 16); above 16 the activations and the
  /// norms' weights are left alone.
  int activation_bits = 8;
  /// Every 8- and 16-bit activation point takes its range at run time, per row.
  bool dynamic_activations = false;
  /// The codes and the static ranges that the checkpoint stores, as stored (stored_points.h); the rest as
  /// above.
  bool stored = false;
  bool operator==(const Scheme&) const = default;
};

/// "w8a8", "w4a8", "w4a8-sym", "w8a16" (every activation point 16-bit static), "w4a16", "w4a16-sym", "w3a16",
/// "w3a16-sym", "w8a16-sym" (weights per channel, activations untouched); each also with "-gN" behind it,
/// where weights have a grid per N inputs of a channel: "w4a8-g64". "stored": what a quantized checkpoint
/// stores, the rest as in w8a8. Anything else is an Error that lists them.
Scheme parse_scheme(std::string_view name);
inline constexpr std::string_view kSchemeNames =
    "w8a8, w4a8, w4a8-sym, w8a16, w4a16, w4a16-sym, w3a16, w3a16-sym, w8a16-sym, stored";
inline constexpr std::string_view kStoredScheme = "stored";
inline constexpr std::string_view kGroupsNote = "each also with groups of N inputs, -gN";
/// A name of kSchemeNames, of a scheme's name with "-gN" or without; another name as it is.
std::string_view scheme_stem(std::string_view name);

/// The specs of all points under a scheme. A group size that does not divide a projection's inputs is an
/// Error that names the module.
QuantConfig make_qcfg(const model::ModelConfig& config, const Scheme& scheme);

/// Throws Error where the weight at `point` has no whole number of groups.
void check_group_size(const QuantSpec& spec, const Point& point, const model::ModelConfig& config,
                      const std::string& where);

/// Reads default_qcfg.json: entries override the defaults (those of w8a8) slot by slot, values may be strings
/// (as the paper's files have them), numbers or booleans. Errors name the file, the module, the field and
/// what is accepted: a module or slot that the model lacks, bits outside 2 … 32, groups on anything but a
/// projection's weight, a group size that does not divide the inputs, per-channel activations.
QuantConfig read_qcfg(const std::filesystem::path& path, const model::ModelConfig& config);
/// The entries of position 0 in the same file ("first_token" of a module), which override those of `qcfg`;
/// nothing where the file has none.
std::optional<QuantConfig> read_first_qcfg(const std::filesystem::path& path, const QuantConfig& qcfg,
                                           const model::ModelConfig& config);
QuantConfig parse_qcfg(std::string_view text, const model::ModelConfig& config, const std::string& where);

/// The file's content: every enabled point, and the disabled ones that are enabled by default; every enabled
/// activation point of position 0, where that has a configuration.
nlohmann::ordered_json qcfg_json(const QuantConfig& qcfg, const model::ModelConfig& config,
                                 const QuantConfig* first = nullptr);

/// Static ranges of activations, where known.
using ActRanges = PointMap<std::optional<Range>>;

/// Grids of its own for whatever token stands at position 0 (docs/specification.md#the-first-token): static
/// ranges of every activation point, which rows at that position are rounded by instead.
struct FirstToken {
  QuantConfig qcfg;  ///< of weights it says what the other configuration says
  ActRanges ranges;  ///< of every point that needs one
};

/// What a sequence that begins with `token` keeps of it, computed once in float: constants in its place
/// (docs/specification.md#the-first-token).
struct Prefix {
  int32_t token = 0;
  std::vector<std::vector<float>> keys, values;  ///< by layer, as the attention reads them, all heads
  std::vector<float> normed;                     ///< what the head reads, [hidden]
};

/// The configuration of position 0 beside `qcfg`: 16 bits at every point that is rounded, but for keys and
/// values as the attention reads them, which keep their bits; points outside the blocks stay as they are.
QuantConfig make_first_qcfg(const QuantConfig& qcfg, const model::ModelConfig& config);

/// Reads act_dict.json. Errors name the file and the module: a module that the model lacks, an unknown slot,
/// a range that is not two finite numbers, min > max. Ranges for slots that no arithmetic of this model uses
/// are checked and left out.
ActRanges read_act_ranges(const std::filesystem::path& path, const model::ModelConfig& config);
ActRanges parse_act_ranges(std::string_view text, const model::ModelConfig& config, const std::string& where);

/// The ranges of position 0 in the same file.
ActRanges read_first_ranges(const std::filesystem::path& path, const model::ModelConfig& config);

nlohmann::ordered_json act_ranges_json(const ActRanges& ranges, const model::ModelConfig& config,
                                       const ActRanges* first = nullptr);

/// SiLU's sigmoid lies in [0, 1] where no other range is known; learned runs export one.
inline constexpr Range kSigmoidRange{0.0F, 1.0F};

/// The range of every static quantized activation point, defaults filled in. A point without one is an Error
/// that names it and `where`, the file (or origin) of the ranges.
ActRanges complete_ranges(const QuantConfig& qcfg, const ActRanges& ranges, const model::ModelConfig& config,
                          const std::string& where);

/// Whether a point takes a static range: enabled, not a weight, not dynamic.
bool needs_range(const QuantConfig& qcfg, const Point& point);

}  // namespace qeval::quant
