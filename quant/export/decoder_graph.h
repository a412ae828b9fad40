#pragma once

#include "model/weights.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/export/onnx_graph.h"

namespace qeval::quant {

/// What becomes of the points of a model in its graph.
enum class PointForm : uint8_t {
  nodes,  ///< QuantizeLinear and DequantizeLinear; weights as codes
  names   ///< nothing but the tensor's name; weights in float. For encodings, which refer to tensors by name
};

/// Adds the whole model: input_ids [batch, sequence] → logits [batch, sequence, vocab_size], causal attention
/// over the sequence, at most `max_positions` tokens, no key/value cache. It computes what FakeArithmetic
/// does, operation by operation; the tensor that a point rounds is named as the point
/// ("model.layers.3.mlp.w2.input").
///
/// Throws Error naming the point where it is dynamic (static ranges only) or has no exact form (point_codes).
void add_decoder(OnnxGraph& graph, const model::Model& model, const Quantization& quantization,
                 int64_t max_positions, PointForm form);

/// Throws Error naming the first point that takes its range at run time.
void refuse_dynamic_points(const QuantConfig& qcfg, const model::ModelConfig& config);

}  // namespace qeval::quant
