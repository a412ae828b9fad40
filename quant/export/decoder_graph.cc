#include "quant/export/decoder_graph.h"

#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/setting.h"
#include "model/rotary.h"
#include "quant/export/export.h"
#include "quant/export/graph_builder.h"
#include "quant/export/weight_codes.h"

namespace qeval::quant {

void require_graph_form(const model::ModelConfig& config) {
  require_operations(config, "export", [](const model::Operation& operation) {
    const auto* activate = std::get_if<model::ActivateOp>(&operation);
    return !model::is_beyond_dense(operation) && !std::holds_alternative<model::SplitLatentOp>(operation) &&
           (activate == nullptr || activate->kind != model::Activation::xielu);
  });
}

namespace {

/// The first rotary embedding of a model that is accepted; nullptr where there is none.
template <typename Accepts>
const model::RotateOp* find_rotary(const model::Graph& graph, const Accepts& accepts) {
  for (const model::BlockGraph& block : graph.blocks) {
    for (const model::Operation& operation : block.operations) {
      const auto* op = std::get_if<model::RotateOp>(&operation);
      if (op != nullptr && accepts(*op)) return op;
    }
  }
  return nullptr;
}

/// What the graph has no form for, by name.
void refuse_operations(const ModelConfig& config, int64_t max_positions) {
  require_graph_form(config);
  // One graph has one table.
  if (config.length_class(max_positions) != 0) {
    const auto original = [](const model::Rotary& rotary) {
      return rotary.length_class(std::numeric_limits<int64_t>::max()) != 0
                 ? rotary.scaling.original_max_position_embeddings
                 : std::numeric_limits<double>::infinity();
    };
    const double most =
        std::min(original(config.rotary), config.local_rotary ? original(*config.local_rotary)
                                                              : std::numeric_limits<double>::infinity());
    fail(
        "{} model: the rotary embedding of more than {} tokens depends on a sequence's length, which an "
        "exported graph has no form for; accepted: {} {} or less",
        config.architecture, most, setting("max-length"), most);
  }
}

}  // namespace

void GraphBuilder::build(int64_t max_positions) {
  g_.input("input_ids", onnx::TensorProto::INT64, {"batch", "sequence"});
  at(Value::residual).name = embed(max_positions);
  if (quantization_.first) add_first_token(max_positions);
  add_tables(max_positions);
  add_masks();
  for (layer_ = 0; layer_ < config_.num_layers; ++layer_) block();
  layer_ = 0;
  std::string last = at(Value::residual).name;
  if (config_.graph.final_norm) last = norm(*config_.graph.final_norm, last);
  head(last);
  g_.output("logits", onnx::TensorProto::FLOAT, {"batch", "sequence", std::to_string(config_.vocab_size)});
}

std::string GraphBuilder::positions_table(const std::string& table, const std::string& name, int64_t width,
                                          int64_t max_positions,
                                          const std::function<void(TensorFile&)>& fill) {
  g_.external(table, onnx::TensorProto::FLOAT, {max_positions, width}, fill);
  return g_.node("Slice", {table, axis(0), length(), axis(0)}, name);
}

void GraphBuilder::add_first_token(int64_t max_positions) {
  positions_table("first_token.table", "first_token", 1, max_positions, [&](TensorFile& file) {
    std::vector<float> column(static_cast<size_t>(max_positions), 0.0F);
    column[0] = 1;
    file.write(std::as_bytes(std::span(column)));
  });
  g_.node("Equal", {"first_token", scalar(1.0F)}, "is_first_token");
}

std::string GraphBuilder::length() {
  if (!has_length_) {
    g_.node("Shape", {"input_ids"}, "length", {OnnxGraph::integer("start", 1), OnnxGraph::integer("end", 2)});
    has_length_ = true;
  }
  return "length";
}

std::string GraphBuilder::embed(int64_t max_positions) {
  const std::string table = add_matrix(g_, "model.embed_tokens.weight", model_.embedding, false);
  const std::string name = residual_name(0);
  struct Step {
    std::string op;
    std::function<std::string()> operand;
    std::string name;
  };
  std::vector<Step> steps;
  const float scale = (config_.scale_embedding ? std::sqrt(static_cast<float>(config_.hidden_size)) : 1.0F) *
                      config_.embedding_factor;
  if (scale != 1.0F) steps.push_back({"Mul", [=, this] { return scalar(scale); }, "embedding.scaled"});
  if (config_.embedding_size != 0) {
    steps.push_back(
        {"MatMul",
         [this] { return add_matrix(g_, "model.embedding_in.weight", model_.embedding_in.weight, true); },
         "embedding.widened"});
  }
  if (config_.learned_positions) {
    steps.push_back({"Add", [=, this] { return learned_positions(max_positions); }, name});
  }
  // The last step makes the residual stream.
  std::string x = g_.node("Gather", {table, "input_ids"}, steps.empty() ? name : "embedding");
  for (size_t i = 0; i < steps.size(); ++i) {
    x = g_.node(steps[i].op, {x, steps[i].operand()}, i + 1 == steps.size() ? name : steps[i].name);
  }
  return x;
}

std::string GraphBuilder::learned_positions(int64_t max_positions) {
  const model::Matrix& learned = model_.positions;
  return positions_table("model.positions.weight", "positions", learned.cols, max_positions,
                         [&](TensorFile& file) {
                           std::vector<float> row(static_cast<size_t>(learned.cols));
                           for (int64_t p = 0; p < max_positions; ++p) {
                             learned.decode_rows(p + config_.position_offset, 1, row.data());
                             file.write(std::as_bytes(std::span(row)));
                           }
                         });
}

void GraphBuilder::add_tables(int64_t max_positions) {
  for (const bool local : {false, true}) {
    const auto is_of_table = [&](const auto& op) { return op.local == local; };
    if (find_rotary(config_.graph, is_of_table) == nullptr) continue;
    const std::string prefix = local ? "local_" : "";
    const model::RotaryTable rotary(local ? *config_.local_rotary : config_.rotary, max_positions);
    length();
    for (const bool sine : {false, true}) {
      positions_table((local ? "rotary.local." : "rotary.") + std::string(sine ? "sines" : "cosines"),
                      prefix + (sine ? "sines" : "cosines"), rotary.half(), max_positions,
                      [&](TensorFile& file) {
                        for (int64_t p = 0; p < max_positions; ++p) {
                          const float* row = sine ? rotary.sines(p) : rotary.cosines(p);
                          file.write(std::as_bytes(std::span(row, static_cast<size_t>(rotary.half()))));
                        }
                      });
    }
  }
  const model::RotateOp* growing =
      find_rotary(config_.graph, [](const auto& op) { return op.position_beta != 0; });
  if (growing == nullptr) return;
  positions_table("rotary.position_factors", "position_factors", 1, max_positions, [&](TensorFile& file) {
    for (int64_t p = 0; p < max_positions; ++p) {
      const float factor = model::position_factor(*growing, p);
      file.write(std::as_bytes(std::span(&factor, 1)));
    }
  });
}

std::string GraphBuilder::mask_name(int64_t window) {
  return window == 0 ? "mask" : fmt::format("mask.{}", window);
}

void GraphBuilder::add_masks() {
  std::set<int64_t> windows;
  for (const model::BlockGraph& block : config_.graph.blocks) windows.insert(block.attention().window);
  g_.node("Concat", {length(), "length"}, "square", {OnnxGraph::integer("axis", 0)});
  // Added to a score it gives exactly this, so that its exponential is 0; an infinity would not survive
  // every runtime.
  g_.node("Expand", {scalar(std::numeric_limits<float>::lowest()), "square"}, "lowest");
  const auto triangle = [&](int64_t diagonal, const std::string& constant, bool upper,
                            const std::string& out) {
    g_.node("Trilu", {"lowest", g_.constant(constant, std::span(&diagonal, 1), {})}, out,
            {OnnxGraph::integer("upper", upper ? 1 : 0)});
  };
  triangle(1, "mask.diagonal", true, "mask");
  for (const int64_t window : windows) {
    if (window == 0) continue;
    const std::string name = mask_name(window);
    triangle(-window, name + ".diagonal", false, name + ".outside");
    g_.node("Add", {"mask", name + ".outside"}, name);  // the two do not overlap
  }
}

void GraphBuilder::head(const std::string& normed) {
  std::string narrow = normed;
  if (config_.embedding_size != 0) {
    narrow = g_.node(
        "MatMul", {normed, add_matrix(g_, "model.embedding_out.weight", model_.embedding_out.weight, true)},
        "embedding.narrowed");
  }
  std::string x = rounded({0, Module::head, Slot::input}, narrow);
  if (prefix_) x = with_constant(x, prefix_->normed, {1, 1, std::ssize(prefix_->normed)}, "prefix_normed");
  const Point out{0, Module::head, Slot::output};
  const bool quantized = quantization_.qcfg[{0, Module::head, Slot::weight}].enabled();
  std::string logits;
  if (config_.tie_word_embeddings && (!quantized || form_ == PointForm::names) && model_.head.bias.empty()) {
    g_.node("Transpose", {"model.embed_tokens.weight"}, "lm_head.weight",
            {OnnxGraph::integers("perm", {1, 0})});
    logits = rounded(out, g_.node("MatMul", {x, "lm_head.weight"}, point_name(out)));
  } else {
    logits = product(Module::head, x, model_.head);
  }
  if (config_.logit_factor != 1.0F) {
    logits = g_.node("Mul", {logits, scalar(config_.logit_factor)}, "logits.scaled");
  }
  if (config_.logit_softcap != 0) logits = soft_cap(logits, config_.logit_softcap, "logits.capped");
  g_.node("Identity", {logits}, "logits");
}

void refuse_dynamic_points(const QuantConfig& qcfg, const ModelConfig& config) {
  for (const Point& point : all_points(config)) {
    if (qcfg[point].enabled() && qcfg[point].dynamic) {
      fail("{}: takes its range at run time, which an export cannot; accepted: static ranges",
           point_name(point));
    }
  }
}

void add_decoder(OnnxGraph& graph, const model::Model& model, const Quantization& quantization,
                 int64_t max_positions, PointForm form) {
  refuse_operations(model.config, max_positions);
  refuse_dynamic_points(quantization.qcfg, model.config);
  GraphBuilder(graph, model, quantization, form).build(max_positions);
}

}  // namespace qeval::quant
