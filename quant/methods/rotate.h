#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/methods/editable_model.h"

namespace qeval::quant {

/// Which rotations a model is given (docs/specification.md#rotations): none; those that the weights absorb,
/// R1 of the residual stream and R2 of the heads' values; or R4 in front of the down projection, too, which
/// is an operation of the graph.
enum class RotationKind : uint8_t { none, offline, online };
RotationKind parse_rotation_kind(std::string_view name);
std::string_view name(RotationKind kind);
inline constexpr std::string_view kRotationKinds = "none, offline, online";

struct RotationOptions {
  RotationKind kind = RotationKind::none;
  bool keys = false;  ///< R3 of queries and keys, an operation as well
  /// Of R4: channels of a block; 0: as many as there are, where there is a Hadamard matrix of that order.
  int64_t block = 0;
  uint64_t seed = 0;  ///< of the signs
  bool any() const { return kind != RotationKind::none || keys; }
  bool operator==(const RotationOptions&) const = default;
};

/// What a rotation did, and which of the wanted ones an edge of the model's graph forbids, a sentence each.
struct RotationResult {
  std::vector<std::string> left_out;
};

/// Throws Error naming the first operation of the model that no rotation goes through.
void require_rotatable(const model::ModelConfig& config);

/// Rotates a model: R = H · diag(±1) / √n, H a Hadamard matrix (model/hadamard.h), in blocks of the largest
/// power of two where there is none of that order. Norms of the residual stream are folded into the linear
/// maps behind them first (of LayerNorm, the mean into what writes the stream, the bias into what reads it),
/// a tied head is untied. In float the model computes what it computed. A rotation that the graph forbids is
/// left out and named; where all of them are, that is an Error.
RotationResult rotate(EditableModel& model, const RotationOptions& options);

}  // namespace qeval::quant
