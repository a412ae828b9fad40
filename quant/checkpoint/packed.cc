#include "quant/checkpoint/packed.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/export.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {
namespace {

using model::DType;
using model::FolderMatrix;
using model::TensorSource;
using nlohmann::json;

/// The version of the library whose layout this is: from 0.18 on, codes of any width are packed densely.
constexpr const char* kLayoutVersion = "0.20.0";

template <typename T>
TensorSource stored(std::string name, DType dtype, std::vector<int64_t> shape, std::vector<T> elements) {
  const auto width = static_cast<size_t>(shape.back());
  return {.name = std::move(name),
          .shape = std::move(shape),
          .dtype = dtype,
          .elements = [elements = std::move(elements), width](int64_t first, int64_t count, std::byte* out) {
            const std::span<const T> part(elements.data() + static_cast<size_t>(first) * width,
                                          static_cast<size_t>(count) * width);
            std::ranges::copy(std::as_bytes(part), out);
          }};
}

// ---- numbers

float widened(DType dtype, uint16_t bits) {
  float value = 0;
  model::decode(dtype, reinterpret_cast<const std::byte*>(&bits), 1, &value);
  return value;
}

bool holds(DType dtype, float value) {
  const uint16_t bits = dtype == DType::f16 ? model::narrow_f16(value) : model::narrow_bf16(value);
  return std::bit_cast<uint32_t>(widened(dtype, bits)) == std::bit_cast<uint32_t>(value);
}

/// The smallest float type that holds all of a tensor's numbers.
DType smallest_type(const TensorSource& tensor) {
  bool bf16 = true, f16 = true;
  const int64_t rows = tensor.shape.size() == 1 ? 1 : tensor.shape.front();
  std::vector<float> row(static_cast<size_t>(tensor.shape.back()));
  for (int64_t r = 0; r < rows && (bf16 || f16); ++r) {
    tensor.rows(r, 1, row.data());
    bf16 = bf16 && std::ranges::all_of(row, [](float value) { return holds(DType::bf16, value); });
    f16 = f16 && std::ranges::all_of(row, [](float value) { return holds(DType::f16, value); });
  }
  return bf16 ? DType::bf16 : f16 ? DType::f16 : DType::f32;
}

TensorSource exact_numbers(const FolderMatrix& matrix) {
  TensorSource source = model::number_source(matrix);
  const DType* type = matrix.matrix.stored.plain_type();
  const bool half = type != nullptr && (*type == DType::bf16 || *type == DType::f16);
  source.dtype = half ? *type : smallest_type(source);
  return source;
}

// ---- GGUF blocks that are integers times scales

/// How a type's scales lie in a block.
struct ScaledBlocks {
  DType type;
  int64_t group;     ///< elements of a scale
  DType scale_type;  ///< f16: as stored, at the front of the block; f32: a product
};
constexpr ScaledBlocks kScaledBlocks[] = {{DType::q8_0, 32, DType::f16},
                                          {DType::q4_0, 32, DType::f16},
                                          {DType::q5_0, 32, DType::f16},
                                          {DType::q6_k, 16, DType::f32}};

/// A matrix of such blocks as int8 codes and scales.
class IntegerBlocks {
 public:
  IntegerBlocks(const model::Matrix& matrix, const ScaledBlocks& blocks)
      : matrix_(matrix), blocks_(blocks), row_(static_cast<size_t>(matrix.cols)) {}

  int64_t groups() const { return matrix_.cols / blocks_.group; }
  /// Scales [groups] of a row.
  void read_scales(int64_t r, float* scales) const {
    const model::DTypeInfo& type = model::info(blocks_.type);
    const std::byte* block = matrix_.stored.row(matrix_.stored_row(r));
    const int64_t per_block = type.block_size / blocks_.group;
    for (int64_t g = 0; g < groups(); ++g) {
      const std::byte* own = block + g / per_block * type.block_bytes;
      uint16_t d = 0;
      std::memcpy(&d, own + (blocks_.type == DType::q6_k ? type.block_bytes - 2 : 0), sizeof d);
      scales[g] = widened(DType::f16, d);
      if (blocks_.type != DType::q6_k) continue;
      // ql[128], qh[64], scales[16], d
      scales[g] *= static_cast<float>(static_cast<int8_t>(own[192 + g % per_block]));
    }
  }
  /// Codes [cols] of a row. False where they times the scales are not exactly what the blocks say.
  bool read_codes(int64_t r, int8_t* codes) {
    std::vector<float> scales(static_cast<size_t>(groups()));
    read_scales(r, scales.data());
    matrix_.decode_rows(r, 1, row_.data());
    for (int64_t c = 0; c < matrix_.cols; ++c) {
      const float value = row_[static_cast<size_t>(c)];
      const float scale = scales[static_cast<size_t>(c / blocks_.group)];
      // Where the scale is 0, the sign is all there is of a code.
      const float code = scale == 0 ? (std::signbit(value) ? -1.0F : 0.0F) : std::nearbyint(value / scale);
      if (!(code >= -128 && code <= 127)) return false;
      codes[c] = static_cast<int8_t>(code);
      const float back = static_cast<float>(codes[c]) * scale;
      if (std::bit_cast<uint32_t>(back) != std::bit_cast<uint32_t>(value)) return false;
    }
    return true;
  }
  bool is_exact() {
    std::vector<int8_t> codes(static_cast<size_t>(matrix_.cols));
    for (int64_t r = 0; r < matrix_.rows; ++r) {
      if (!read_codes(r, codes.data())) return false;
    }
    return true;
  }

 private:
  const model::Matrix& matrix_;
  const ScaledBlocks& blocks_;
  std::vector<float> row_;
};

// ---- codes

bool quantizes_activations(const QuantConfig& qcfg, const model::ModelConfig& config) {
  return std::ranges::any_of(all_points(config), [&](const Point& point) {
    return point.slot != Slot::weight && qcfg[point].enabled();
  });
}

/// The codes of the matrix that is being written: none is kept longer.
struct CodesAtHand {
  const model::Matrix* matrix = nullptr;
  QuantizedMatrix codes;

  const QuantizedMatrix& of(const model::Matrix& wanted, const QuantSpec& spec) {
    if (matrix != &wanted) codes = quantized_weight(wanted, spec);
    matrix = &wanted;
    return codes;
  }
};

class PackedWriter {
 public:
  PackedWriter(const model::Model& model, const QuantConfig& qcfg)
      : model_(model),
        qcfg_(qcfg),
        layout_(model::published_layout(model, "float32")
                    .value_or(model::unified_layout(model.config, "float32"))),
        rounds_activations_(quantizes_activations(qcfg, model.config)) {}

  /// Floats, and the codes that the model holds beside them.
  void write_beside_floats(const std::filesystem::path& folder) {
    layout_ = model::unified_layout(model_.config, "float32");
    always_packs_ = true;
    const std::vector<TensorSource> tensors = model::folder_tensors(
        model_, layout_, [&](const FolderMatrix& matrix, std::vector<TensorSource>& out) {
          out.push_back(model::number_source(matrix));
          if (matrix.matrix.stored.coded() != nullptr) {
            add_codes(matrix, qcfg_[{matrix.layer, *matrix.module, Slot::weight}], out);
          } else if (matrix.is_linear()) {
            left_in_float_.push_back(matrix.name);
          }
        });
    json config = layout_.config;
    config["weight_codes"] = quantization_config();
    model::write_folder(folder, tensors, config, DType::f32);
  }

  void write(const std::filesystem::path& folder) {
    std::vector<TensorSource> tensors = model::folder_tensors(
        model_, layout_,
        [&](const FolderMatrix& matrix, std::vector<TensorSource>& out) { add(matrix, out); });
    for (TensorSource& tensor : tensors) {
      if (!tensor.dtype) tensor.dtype = smallest_type(tensor);
    }
    json config = layout_.config;
    if (!groups_.empty()) config["quantization_config"] = quantization_config();
    model::write_folder(folder, tensors, config, DType::f32);
  }

 private:
  struct Group {
    json weights;
    std::string format;
    std::vector<std::string> modules;
    bool embedding = false;
  };

  void add(const FolderMatrix& matrix, std::vector<TensorSource>& out) {
    const bool has_point =
        matrix.module && (!is_after_blocks(*matrix.module) || *matrix.module == Module::head);
    const QuantSpec spec = has_point ? qcfg_[{matrix.layer, *matrix.module, Slot::weight}] : QuantSpec{};
    if (spec.bits <= 8 && add_codes(matrix, spec, out)) return;
    if (!matrix.is_linear() && add_blocks(matrix, out)) return;
    out.push_back(exact_numbers(matrix));
    if (matrix.is_linear()) left_in_float_.push_back(matrix.name);
    if (&matrix.matrix == &model_.embedding && model_.config.tie_word_embeddings)
      left_in_float_.push_back(layout_.head);
  }

  void add_to_group(const json& weights, const std::string& format, bool embedding,
                    const std::string& module) {
    auto group = std::ranges::find_if(groups_, [&](const Group& g) {
      return g.weights == weights && g.format == format && g.embedding == embedding;
    });
    if (group == groups_.end()) group = groups_.insert(group, {weights, format, {}, embedding});
    group->modules.push_back(module);
  }

  static json weights_json(int bits, bool symmetric, const std::string& strategy, int64_t group_size) {
    return {{"num_bits", bits},
            {"type", "int"},
            {"symmetric", symmetric},
            {"strategy", strategy},
            {"group_size", strategy == "group" ? json(group_size) : json()},
            {"dynamic", false}};
  }

  /// False where the layout has no room for a zero point: the matrix is then rounded when it is read.
  bool add_codes(const FolderMatrix& place, const QuantSpec& spec, std::vector<TensorSource>& out) {
    const model::Matrix& matrix = place.matrix;
    const QuantizedMatrix& codes = at_hand_.of(matrix, spec);
    const bool grouped = spec.group_size > 0;
    const std::string strategy = grouped ? "group" : spec.per_channel ? "channel" : "tensor";
    const bool packed = spec.bits < 8 || !rounds_activations_ || always_packs_;
    const bool packed_zeros = packed && !codes.per_tensor;
    if (!have_room(codes, packed_zeros)) return false;
    add_to_group(weights_json(spec.bits, spec.symmetric, strategy, spec.group_size),
                 packed ? "pack-quantized" : "int-quantized", false, place.name);
    const std::vector<int64_t> grids =
        codes.per_tensor ? std::vector<int64_t>{1} : std::vector{matrix.rows, matrix.cols / codes.group};
    out.push_back(packed ? packed_codes(place, spec) : byte_codes(place, spec));
    out.push_back(stored(place.name + ".weight_scale", DType::f32, grids, codes.scales));
    if (packed) {
      out.push_back(
          stored(place.name + ".weight_shape", DType::i64, {2}, std::vector{matrix.rows, matrix.cols}));
    }
    if (!spec.symmetric) out.push_back(zero_points(place.name, codes, grids, packed_zeros));
    return true;
  }

  TensorSource byte_codes(const FolderMatrix& place, const QuantSpec& spec) {
    const model::Matrix& matrix = place.matrix;
    return {.name = place.name + ".weight",
            .shape = {matrix.rows, matrix.cols},
            .dtype = DType::i8,
            .elements = [this, &matrix, spec](int64_t first, int64_t count, std::byte* out) {
              const QuantizedMatrix& codes = at_hand_.of(matrix, spec);
              std::memcpy(out, codes.codes.as<int8_t>() + first * matrix.cols,
                          static_cast<size_t>(count * matrix.cols));
            }};
  }

  TensorSource packed_codes(const FolderMatrix& place, const QuantSpec& spec) {
    const model::Matrix& matrix = place.matrix;
    const int64_t words = (matrix.cols * spec.bits + 31) / 32;
    return {.name = place.name + ".weight_packed",
            .shape = {matrix.rows, words},
            .dtype = DType::i32,
            .elements = [this, &matrix, spec, words](int64_t first, int64_t count, std::byte* out) {
              const QuantizedMatrix& codes = at_hand_.of(matrix, spec);
              std::vector<uint8_t> row(static_cast<size_t>(matrix.cols));
              std::vector<uint32_t> packed(static_cast<size_t>(words));
              const int half = 1 << (spec.bits - 1);
              for (int64_t r = 0; r < count; ++r) {
                const int8_t* own = codes.codes.as<int8_t>() + (first + r) * matrix.cols;
                std::transform(own, own + matrix.cols, row.begin(),
                               [half](int8_t code) { return static_cast<uint8_t>(code + half); });
                pack_stream(row.data(), matrix.cols, spec.bits, packed.data());
                std::memcpy(out + r * words * 4, packed.data(), static_cast<size_t>(words) * 4);
              }
            }};
  }

  /// Whether the layout has room for all zero points: as many bits as a code, or a byte.
  static bool have_room(const QuantizedMatrix& codes, bool packed) {
    const int reach = packed ? 1 << (codes.spec.bits - 1) : 128;
    return std::ranges::all_of(codes.zero_points,
                               [reach](int32_t zero) { return zero >= -reach && zero < reach; });
  }

  /// Packed: `bits` bits each, down the rows; else a byte each.
  static TensorSource zero_points(const std::string& module, const QuantizedMatrix& codes,
                                  const std::vector<int64_t>& shape, bool packed) {
    const std::string name = module + ".weight_zero_point";
    const int bits = codes.spec.bits, half = 1 << (bits - 1);
    const auto& zeros = codes.zero_points;
    if (!packed) return stored(name, DType::i8, shape, std::vector<int8_t>(zeros.begin(), zeros.end()));
    const int64_t groups = shape.back(), words = (codes.rows * bits + 31) / 32;
    std::vector<uint32_t> all(static_cast<size_t>(words * groups)), column(static_cast<size_t>(words));
    std::vector<uint8_t> fields(static_cast<size_t>(codes.rows));
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t r = 0; r < codes.rows; ++r) {
        fields[static_cast<size_t>(r)] =
            static_cast<uint8_t>(zeros[static_cast<size_t>(r * groups + g)] + half);
      }
      pack_stream(fields.data(), codes.rows, bits, column.data());
      for (int64_t w = 0; w < words; ++w)
        all[static_cast<size_t>(w * groups + g)] = column[static_cast<size_t>(w)];
    }
    return stored(name, DType::i32, {words, groups}, std::move(all));
  }

  /// An embedding of scaled integers, and its tied head, whose module needs the scales as well; false where
  /// it is something else.
  bool add_blocks(const FolderMatrix& place, std::vector<TensorSource>& out) {
    const model::Matrix& matrix = place.matrix;
    if (&matrix != &model_.embedding) return false;
    const DType* type = matrix.stored.plain_type();
    const auto* blocks = std::ranges::find_if(
        kScaledBlocks, [&](const ScaledBlocks& b) { return type != nullptr && b.type == *type; });
    if (blocks == std::end(kScaledBlocks)) return false;
    auto integers = std::make_shared<IntegerBlocks>(matrix, *blocks);
    if (!integers->is_exact()) return false;
    out.push_back({.name = place.name + ".weight",
                   .shape = {matrix.rows, matrix.cols},
                   .dtype = DType::i8,
                   .elements = [integers, &matrix](int64_t first, int64_t count, std::byte* to) {
                     for (int64_t r = 0; r < count; ++r)
                       integers->read_codes(first + r, reinterpret_cast<int8_t*>(to) + r * matrix.cols);
                   }});
    const bool tied = model_.config.tie_word_embeddings;
    const json weights = weights_json(8, true, "group", blocks->group);
    for (const std::string& module : tied ? std::vector{place.name, layout_.head} : std::vector{place.name}) {
      out.push_back({.name = module + ".weight_scale",
                     .shape = {matrix.rows, integers->groups()},
                     .rows =
                         [integers](int64_t first, int64_t count, float* to) {
                           for (int64_t r = 0; r < count; ++r)
                             integers->read_scales(first + r, to + r * integers->groups());
                         },
                     .dtype = blocks->scale_type});
      add_to_group(weights, "int-quantized", true, module);
    }
    return true;
  }

  /// The largest group is called by its class, the others by the names of their modules.
  json quantization_config() {
    std::ranges::stable_sort(groups_, std::greater{},
                             [](const Group& group) { return group.embedding ? 0 : group.modules.size(); });
    json groups = json::object();
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& group = groups_[i];
      const bool by_class = i == 0 && !group.embedding;
      groups[fmt::format("group_{}", i)] = {{"targets", by_class ? json{"Linear"} : json(group.modules)},
                                            {"weights", group.weights},
                                            {"input_activations", nullptr},
                                            {"output_activations", nullptr},
                                            {"format", group.format}};
    }
    const bool one = std::ranges::all_of(
        groups_, [&](const Group& group) { return group.format == groups_.front().format; });
    return {
        {"quant_method", "compressed-tensors"}, {"format", one ? groups_.front().format : "mixed-precision"},
        {"quantization_status", "compressed"},  {"version", kLayoutVersion},
        {"config_groups", std::move(groups)},   {"ignore", left_in_float_}};
  }

  const model::Model& model_;
  const QuantConfig& qcfg_;
  model::FolderLayout layout_;
  const bool rounds_activations_;
  bool always_packs_ = false;
  std::vector<Group> groups_;
  std::vector<std::string> left_in_float_;
  CodesAtHand at_hand_;
};

}  // namespace

void write_packed(const model::Model& model, const QuantConfig& qcfg, const std::filesystem::path& folder) {
  PackedWriter(model, qcfg).write(folder);
}

void write_floats_and_codes(const model::Model& model, const QuantConfig& qcfg,
                            const std::filesystem::path& folder) {
  PackedWriter(model, qcfg).write_beside_floats(folder);
}

}  // namespace qeval::quant
