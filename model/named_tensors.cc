#include "model/named_tensors.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "model/checkpoint/layout.h"

namespace qeval::model {
namespace {

/// Tensors that checkpoints carry beside the weights and that change nothing: tables that the program
/// computes itself, the head of a tied model, a remainder of MobileQuant's training, and the rest of a model
/// of which this one is the part for text.
bool is_left_over(std::string_view name, bool tied, const TensorNames& names) {
  if (name.ends_with(".rotary_emb.inv_freq") || name.ends_with("temp_weight")) return true;
  if (tied && (name == names.head + ".weight" || name == names.head + ".weight_scale")) return true;
  const auto ends = [&](const std::string& suffix) { return name.ends_with(suffix); };
  if (std::ranges::any_of(names.ignored_suffixes, ends)) return true;
  const auto begins = [&](const std::string& prefix) { return name.starts_with(prefix); };
  if (std::ranges::any_of(names.ignored_prefixes, begins)) return true;
  const auto is_part = [&](const std::string& part) {
    return name.starts_with(names.root) && name.substr(names.root.size()).starts_with(part);
  };
  if (std::ranges::any_of(names.ignored_parts, is_part)) return true;
  const bool inside_another = names.root.find("language_model.") != std::string::npos;
  return inside_another && !name.starts_with(names.root) && !name.starts_with(names.head);
}

}  // namespace

const TensorView& NamedTensors::tensor(const std::string& name, const std::vector<int64_t>& shape) {
  const TensorView& view = checkpoint_.require(name);
  if (view.shape != shape) {
    fail("{}: tensor {} has shape {}; the configuration asks for {}", checkpoint_.path().string(), name,
         shape_text(view.shape), shape_text(shape));
  }
  if (!info(view.dtype).is_float) {
    fail("{}: tensor {} is of type {}; accepted: a floating-point type", checkpoint_.path().string(), name,
         info(view.dtype).name);
  }
  used_.insert(name);
  return view;
}

std::string NamedTensors::name_in_file(Module module, int64_t layer, int64_t head) const {
  return names_.root + fmt::format(fmt::runtime(place(module).name), layer, head);
}
std::string NamedTensors::unified_name(Module module, int64_t layer) const {
  const std::string_view name = module_name(module);
  return is_after_blocks(module) ? std::string(name) : fmt::format("model.layers.{}.{}", layer, name);
}

LinearWeights NamedTensors::weights(const TensorPlace& place, const std::string& unified,
                                    ModuleRequest::Kind kind, int64_t rows, int64_t cols) {
  LinearWeights result;
  if (quantization_ != nullptr) {
    const ModuleRequest request{.name = place.name,
                                .rows = place.rows != 0 ? place.rows : rows,
                                .cols = cols,
                                .kind = kind,
                                .transposed = place.transposed};
    ModuleTensors tensors(checkpoint_, request);
    std::optional<QuantizedModule> module = quantization_->read(tensors);
    for (const TensorView& tensor : tensors.taken()) used_.insert(tensor.name);
    if (module) {
      result.input = module->input;
      result.output = module->output;
    }
    if (module && module->weight) {
      result.weight.name = unified;
      result.weight.rows = rows;
      result.weight.cols = cols;
      result.weight.stored = StoredWeight(module->weight, place.first_row);
      result.weight.block_rows = place.block_rows;
      result.weight.block_stride = place.block_stride;
      return result;
    }
  }
  result.weight = matrix(place, unified, rows, cols);
  return result;
}

void NamedTensors::skip_zero_bias(const std::string& name) {
  const TensorView* bias = quantization_ != nullptr ? checkpoint_.find(name + ".bias") : nullptr;
  if (bias == nullptr) return;
  for (const float value : vector(name + ".bias", bias->shape)) {
    if (value == 0) continue;
    fail("{}: tensor {}.bias is not zero, and {} has no bias there", checkpoint_.path().string(),
         printable(name), config_.architecture);
  }
}

Matrix NamedTensors::matrix(const TensorPlace& place, const std::string& unified, int64_t rows,
                            int64_t cols) {
  const std::string name = place.name + ".weight";
  const int64_t stored_rows = place.rows != 0 ? place.rows : rows;
  Matrix result;
  result.name = unified;
  result.rows = rows;
  result.cols = cols;
  if (place.transposed) {
    transpose(tensor(name, {cols, stored_rows}), place.first_row, result);
    return result;
  }
  // GGUF drops the dimension of a single row.
  const TensorView* found = stored_rows == 1 ? checkpoint_.find(name) : nullptr;
  const bool flat = found != nullptr && found->shape == std::vector{cols};
  const TensorView& view = tensor(name, flat ? std::vector{cols} : std::vector{stored_rows, cols});
  const DTypeInfo& type = info(view.dtype);
  const int64_t row_bytes = cols / type.block_size * type.block_bytes;
  result.stored = StoredWeight(view.dtype, cols, view.bytes.data() + place.first_row * row_bytes);
  result.block_rows = place.block_rows;
  result.block_stride = place.block_stride;
  return result;
}

void NamedTensors::transpose(const TensorView& view, int64_t first, Matrix& result, int64_t step) {
  const DTypeInfo& type = info(view.dtype);
  if (type.block_size != 1) {
    fail("{}: tensor {} is of type {} and stored transposed; accepted: a type of single elements",
         checkpoint_.path().string(), view.name, type.name);
  }
  const int64_t size = type.block_bytes, stored = view.shape[1];
  auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(result.rows * result.cols * size));
  for (int64_t r = 0; r < result.rows; ++r) {
    std::byte* row = buffer->data() + r * result.cols * size;
    for (int64_t c = 0; c < result.cols; ++c) {
      std::memcpy(row + c * size, view.bytes.data() + (c * stored + first + r * step) * size,
                  static_cast<size_t>(size));
    }
  }
  result.stored = StoredWeight(view.dtype, result.cols, buffer->data());
  model_.transposed.push_back(std::move(buffer));
}

std::vector<float> NamedTensors::numbers(const std::string& name, int64_t count) {
  const TensorView& view = checkpoint_.require(name);
  if (view.element_count() != count) {
    fail("{}: tensor {} has shape {}; the configuration asks for {} numbers", checkpoint_.path().string(),
         printable(name), shape_text(view.shape), count);
  }
  return vector(name, view.shape);
}

std::vector<float> NamedTensors::vector(const std::string& name, const std::vector<int64_t>& shape) {
  const TensorView& view = tensor(name, shape);
  std::vector<float> values(static_cast<size_t>(view.element_count()));
  decode(view.dtype, view.bytes.data(), view.element_count(), values.data());
  return values;
}

std::vector<LinearWeights> NamedTensors::experts(const LinearOp& op, int64_t layer) {
  std::vector<LinearWeights> result;
  const TensorPlace& place = this->place(op.module);
  if (place.stacked) return stacked_experts(op, layer);
  for (int64_t e = 0; e < op.experts; ++e) {
    TensorPlace own = place;
    own.name = name_in_file(op.module, layer, e);
    LinearWeights& weights = result.emplace_back(
        this->weights(own, expert_name(op.module, layer, e), ModuleRequest::Kind::linear, op.rows, op.cols));
    if (op.bias) {
      weights.bias = vector(own.name + ".bias", {op.rows});
    } else {
      skip_zero_bias(own.name);
    }
  }
  return result;
}

std::string NamedTensors::expert_name(Module module, int64_t layer, int64_t expert) const {
  std::string name = unified_name(module, layer);
  const std::string_view group = "experts.";
  return name.insert(name.find(group) + group.size(), std::to_string(expert) + ".");
}

std::vector<LinearWeights> NamedTensors::stacked_experts(const LinearOp& op, int64_t layer) {
  const TensorPlace& place = this->place(op.module);
  const std::string name = name_in_file(op.module, layer);
  const int64_t rows = place.rows != 0 ? place.rows : op.rows;
  std::vector<LinearWeights> result(static_cast<size_t>(op.experts));
  std::vector<std::shared_ptr<CodedWeight>> coded;
  if (quantization_ != nullptr && checkpoint_.find(name + "_blocks") != nullptr) {
    coded = read_mxfp4_experts(checkpoint_, name, op.experts, rows, op.cols);
    used_.insert(name + "_blocks");
    used_.insert(name + "_scales");
  }
  const std::string stored = place.bare ? name : name + ".weight";
  const TensorView* view = nullptr;
  if (coded.empty()) {
    view = &tensor(stored, place.transposed ? std::vector{op.experts, op.cols, rows}
                                            : std::vector{op.experts, rows, op.cols});
  }
  std::vector<float> biases;
  if (op.bias) biases = vector(name + (place.bare ? "_bias" : ".bias"), {op.experts, rows});
  for (int64_t e = 0; e < op.experts; ++e) {
    LinearWeights& own = result[static_cast<size_t>(e)];
    Matrix& matrix = own.weight;
    matrix.name = expert_name(op.module, layer, e);
    matrix.rows = op.rows;
    matrix.cols = op.cols;
    matrix.block_rows = place.block_rows;
    matrix.block_stride = place.block_stride;
    if (view == nullptr) {
      matrix.stored = StoredWeight(coded[static_cast<size_t>(e)], place.first_row);
    } else {
      place_expert(*view, e, place, rows, matrix);
    }
    for (int64_t r = 0; op.bias && r < op.rows; ++r) {
      const int64_t step = place.block_stride != 0 ? place.block_stride : 1;
      own.bias.push_back(biases[static_cast<size_t>(e * rows + place.first_row + r * step)]);
    }
  }
  return result;
}

void NamedTensors::place_expert(const TensorView& view, int64_t expert, const TensorPlace& place,
                                int64_t rows, Matrix& matrix) {
  TensorView part = view;
  part.shape.erase(part.shape.begin());
  const auto size = static_cast<int64_t>(view.bytes.size()) / view.shape[0];
  part.bytes = view.bytes.subspan(static_cast<size_t>(expert * size), static_cast<size_t>(size));
  if (place.transposed) {
    transpose(part, place.first_row, matrix, place.block_stride != 0 ? place.block_stride : 1);
    matrix.block_rows = matrix.block_stride = 0;
    return;
  }
  const DTypeInfo& type = info(view.dtype);
  const int64_t row_bytes = matrix.cols / type.block_size * type.block_bytes;
  matrix.stored = StoredWeight(view.dtype, matrix.cols, part.bytes.data() + place.first_row * row_bytes);
  if (row_bytes * rows != size) {
    fail("{}: tensor {}: rows are no whole blocks of {}", checkpoint_.path().string(), printable(view.name),
         type.name);
  }
}

void NamedTensors::check_unused() const {
  for (const TensorView& tensor : checkpoint_.tensors()) {
    if (used_.contains(tensor.name) || is_left_over(tensor.name, config_.tie_word_embeddings, names_))
      continue;
    const auto ends = [&](const std::string& suffix) { return tensor.name.ends_with(suffix); };
    if (quantization_ != nullptr && std::ranges::any_of(quantization_->ignored_suffixes, ends)) {
      model_.config.warnings.push_back(fmt::format("{}: tensor {}: {}", checkpoint_.path().string(),
                                                   printable(tensor.name), quantization_->ignored_note));
      continue;
    }
    fail("{}: tensor {} {} belongs to no part of a {} model of {} layers with this configuration",
         checkpoint_.path().string(), printable(tensor.name), shape_text(tensor.shape), config_.architecture,
         config_.num_layers);
  }
  for (const auto& [name, file] : checkpoint_.listed_only()) {
    if (!is_left_over(name, config_.tie_word_embeddings, names_))
      fail("{}: tensor {} is missing; the index lists it", file.string(), printable(name));
  }
}

}  // namespace qeval::model
