// The tensors of compressed-tensors. Scales: [1] (tensor), [out, 1] (channel), [out, G] (group),
// [⌈out/r⌉, ⌈in/c⌉] (block). W = (q − z) · s.
// pack-quantized: weight_packed I32 [out, words], codes + 2^(bits−1), low bits first, ⌊32/bits⌋ a word
// (0.17.1 and older) or dense; weight_zero_point I32 [words, G], + 2^(bits−1) too, packed along out;
// weight_shape I64 [2]; weight_g_idx I32 [in] where columns are in groups in another order. int-quantized,
// float-quantized: weight I8 or F8_E4M3 [out, in]; weight_zero_point I8. nvfp4-pack-quantized: weight_packed
// U8 [out, in/2], E2M1, the low nibble first; weight_scale F8_E4M3 [out, in/16]; weight_global_scale F32 [1];
// W = v · (scale / global). mxfp4-pack-quantized: weight_scale U8 [out, in/32], powers of two.
// mxfp8-quantized: weight F8_E4M3, weight_scale U8 [out, in/32].

#include "model/checkpoint/quantized/compressed_tensors.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "model/checkpoint/layout.h"

namespace qeval::model {
namespace {

int64_t dense_words(int64_t count, int bits) {
  return divide_up(count * bits, 32);
}
int64_t loose_words(int64_t count, int bits) {
  return divide_up(count, 32 / bits);
}

/// Whether `words` words that hold `count` codes are dense; nothing where both layouts have that many.
std::optional<bool> packing_of(int64_t words, int64_t count, int bits) {
  const bool dense = words == dense_words(count, bits), loose = words == loose_words(count, bits);
  if (32 % bits == 0 || !loose) return true;  // or of a wrong width, which taking the tensor says
  return dense ? std::nullopt : std::optional(false);
}

std::pair<int64_t, int64_t> read_shape(const TensorView& tensor) {
  int64_t shape[2] = {};
  if (tensor.dtype == DType::i64 && tensor.bytes.size() == sizeof shape)
    std::memcpy(shape, tensor.bytes.data(), sizeof shape);
  return {shape[0], shape[1]};
}

/// What the widths of the checkpoint's other tensors say of the packing.
std::optional<bool> packing_elsewhere(const CtConfig& config, const Checkpoint& checkpoint) {
  constexpr std::string_view kSuffix = ".weight_packed";
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (!tensor.name.ends_with(kSuffix) || tensor.shape.size() != 2) continue;
    ModuleRequest request{.name = tensor.name.substr(0, tensor.name.size() - kSuffix.size())};
    const TensorView* shape = checkpoint.find(request.name + ".weight_shape");
    const CtGroup* group = config.find(request, [](const std::string&) {});
    if (shape == nullptr || group == nullptr || !group->weights || group->format != CtFormat::packed)
      continue;
    const auto [rows, cols] = read_shape(*shape);
    const int bits = group->weights->bits;
    constexpr int64_t kMost = int64_t{1} << 40;
    if (32 % bits == 0 || cols < 1 || cols > kMost || rows < 1 || rows > kMost) continue;
    if (const auto found = packing_of(tensor.shape[1], cols, bits)) return found;
    const TensorView* zeros = checkpoint.find(request.name + ".weight_zero_point");
    if (zeros == nullptr || zeros->dtype != DType::i32 || zeros->shape.size() != 2) continue;
    if (const auto found = packing_of(zeros->shape[0], rows, bits)) return found;
  }
  return std::nullopt;
}

class ModuleReader {
 public:
  ModuleReader(const CtConfig& config, const CtGroup& group, ModuleTensors& tensors)
      : config_(config), group_(group), tensors_(tensors) {}

  std::shared_ptr<CodedWeight> read() {
    switch (group_.format) {
      case CtFormat::packed:
        return without_zeros(read_packed());
      case CtFormat::integers:
        return without_zeros(read_integers());
      case CtFormat::floats:
        return read_fp8(tensors_, text("FP8"), read_scales(), group_columns());
      case CtFormat::nvfp4: {
        StoredScales scales = byte_scales(StoredScales::Type::f8_e4m3, {DType::f8_e4m3});
        scales.global = tensors_.scalar("weight_global_scale");
        scales.divides = true;
        return read_e2m1(tensors_, "weight_packed", text("NVFP4"), scales, group_columns());
      }
      case CtFormat::mxfp4:
        return read_e2m1(tensors_, "weight_packed", text("MXFP4"),
                         byte_scales(StoredScales::Type::e8m0, {DType::u8, DType::f8_e8m0}), group_columns());
      case CtFormat::mxfp8:
        return read_fp8(tensors_, text("MXFP8"),
                        byte_scales(StoredScales::Type::e8m0, {DType::u8, DType::f8_e8m0}), group_columns());
    }
    return nullptr;
  }

 private:
  const CtArguments& weights() const { return *group_.weights; }
  int64_t rows() const { return tensors_.request().rows; }
  int64_t cols() const { return tensors_.request().cols; }
  int64_t group_columns() const {
    const int64_t own = weights().strategy == CtStrategy::group   ? weights().group_size
                        : weights().strategy == CtStrategy::block ? weights().block_cols
                                                                  : cols();
    return std::min(own, cols());
  }
  int64_t groups() const { return divide_up(cols(), group_columns()); }
  std::string text(const std::string& type) const {
    const CtArguments& w = weights();
    const std::string grid = w.strategy == CtStrategy::tensor ? "per tensor"
                             : w.strategy == CtStrategy::block
                                 ? fmt::format("{}x{}", w.block_rows, w.block_cols)
                                 : group_text(w.strategy == CtStrategy::group ? w.group_size : -1);
    return fmt::format("compressed-tensors {} {}", type, grid);
  }

  StoredScales read_scales() {
    switch (weights().strategy) {
      case CtStrategy::tensor:
        return {.type = StoredScales::Type::one, .global = tensors_.scalar("weight_scale")};
      case CtStrategy::block: {
        const int64_t across = divide_up(cols(), weights().block_cols);
        StoredScales scales =
            tensors_.scales("weight_scale", {divide_up(rows(), weights().block_rows), across}, across, 1);
        scales.rows_per_scale = weights().block_rows;
        return scales;
      }
      default:
        return tensors_.scales("weight_scale", {rows(), groups()}, groups(), 1);
    }
  }

  StoredScales byte_scales(StoredScales::Type type, std::initializer_list<DType> types) {
    const TensorView& tensor = tensors_.take("weight_scale", {rows(), groups()}, types);
    return {.type = type, .data = tensor.bytes.data(), .row_step = groups(), .group_step = 1};
  }

  /// Signed zero points, a byte each; null where there are none.
  const TensorView* byte_zeros() {
    const char* suffix = "weight_zero_point";
    if (!tensors_.has(suffix) && weights().symmetric) return nullptr;
    switch (weights().strategy) {
      case CtStrategy::tensor: {
        const TensorView& zeros = tensors_.take_any(suffix, {DType::i8});
        if (zeros.bytes.size() != 1)
          fail("{} has shape {}; the configuration asks for [1]", tensors_.where(suffix),
               shape_text(zeros.shape));
        return &zeros;
      }
      case CtStrategy::block: {
        if (weights().block_rows != 1) fail("{}: zero points of blocks are not read", tensors_.where(suffix));
        [[fallthrough]];
      }
      default:
        return &tensors_.take(suffix, {rows(), groups()}, {DType::i8});
    }
  }

  /// What the config calls symmetric has no zero points, or zeros.
  std::shared_ptr<CodedWeight> without_zeros(std::shared_ptr<CodedWeight> weight) const {
    if (!weights().symmetric || weight->zeros.layout == StoredZeros::Layout::none) return weight;
    const int32_t middle = 1 << ((weight->codes.is_bytes() ? 8 : weights().bits) - 1);
    std::vector<float> grid_scales(static_cast<size_t>(groups()));
    std::vector<int32_t> grid_zeros(static_cast<size_t>(groups()));
    for (int64_t row = 0; row < rows(); ++row) {
      weight->read_grids(row, 0, groups(), grid_scales.data(), grid_zeros.data());
      for (int64_t g = 0; g < groups(); ++g) {
        const int32_t zero = grid_zeros[static_cast<size_t>(g)] - middle;
        if (zero != 0)
          fail("{} holds {} in row {}, but {}: weights: symmetric is true; accepted with it: 0",
               tensors_.where("weight_zero_point"), zero, row, group_.where);
      }
    }
    return weight;
  }

  std::shared_ptr<CodedWeight> read_integers() {
    const TensorView& codes = tensors_.take("weight", {rows(), cols()}, {DType::i8});
    const StoredScales scales = read_scales();
    const TensorView* zeros = byte_zeros();
    auto weight = make_coded(tensors_, text(fmt::format("int{}", weights().bits)), group_columns());
    weight->scales = scales;
    use_signed_bytes(*weight, codes, zeros);
    return weight;
  }

  bool is_dense(std::string_view suffix, int64_t words, int64_t count) {
    if (const auto found = packing_of(words, count, weights().bits)) return *found;
    if (!packing_) packing_ = packing_elsewhere(config_, tensors_.checkpoint());
    if (!packing_) packing_ = config_.dense;
    if (!packing_) {
      fail("{}: {} words of {} codes of {} bits can be packed in two ways; accepted: a config with `version`",
           tensors_.where(suffix), words, count, weights().bits);
    }
    return *packing_;
  }

  const int32_t* read_order() {
    const char* suffix = "weight_g_idx";
    if (!tensors_.has(suffix)) {
      if (weights().ordered)
        fail("{} is missing, which {}: weights: actorder asks for", tensors_.where(suffix), group_.where);
      return nullptr;
    }
    const TensorView& tensor = tensors_.take(suffix, {cols()}, {DType::i32});
    const auto* order = reinterpret_cast<const int32_t*>(tensor.bytes.data());
    // One −1 says that the whole tensor is not used.
    if (std::find(order, order + cols(), -1) != order + cols()) return nullptr;
    for (int64_t i = 0; i < cols(); ++i) {
      if (order[i] < 0 || order[i] >= groups())
        fail("{} holds {} at {}; accepted: 0 to {}, the groups that the scales have", tensors_.where(suffix),
             order[i], i, groups() - 1);
    }
    return order;
  }

  void read_packed_zeros(StoredZeros& zeros) {
    const char* suffix = "weight_zero_point";
    const TensorView* tensor = tensors_.find(suffix);
    const int bits = weights().bits;
    if (tensor == nullptr || tensor->dtype != DType::i32) {
      // Whole bytes, which say the signed zero point.
      const TensorView* bytes = byte_zeros();
      if (bytes == nullptr) return;
      zeros.layout = StoredZeros::Layout::int8;
      zeros.data = bytes->bytes.data();
      zeros.row_step = weights().strategy == CtStrategy::tensor ? 0 : groups();
      zeros.group_step = weights().strategy == CtStrategy::tensor ? 0 : 1;
      return;
    }
    const bool dense = tensor->shape.size() == 2 ? is_dense(suffix, tensor->shape[0], rows()) : true;
    const TensorView& packed = tensors_.take(
        suffix, {dense ? dense_words(rows(), bits) : loose_words(rows(), bits), groups()}, {DType::i32});
    zeros.layout = dense ? StoredZeros::Layout::column_stream : StoredZeros::Layout::column_words;
    zeros.data = packed.bytes.data();
    zeros.bits = bits;
    zeros.stride = groups();
    zeros.constant = 0;  // what is added to the codes is added to these as well
  }

  std::shared_ptr<CodedWeight> read_packed() {
    const int bits = weights().bits;
    const TensorView& shape = tensors_.take("weight_shape", {2}, {DType::i64, DType::i32});
    int64_t sizes[2] = {};
    if (shape.dtype == DType::i64) {
      std::memcpy(sizes, shape.bytes.data(), sizeof sizes);
    } else {
      for (size_t i = 0; i < 2; ++i) {
        int32_t size = 0;
        std::memcpy(&size, shape.bytes.data() + 4 * i, sizeof size);
        sizes[i] = size;
      }
    }
    if (sizes[0] != rows() || sizes[1] != cols()) {
      fail("{} says [{}, {}]; the configuration asks for [{}, {}]", tensors_.where("weight_shape"), sizes[0],
           sizes[1], rows(), cols());
    }
    const TensorView* found = tensors_.find("weight_packed");
    const int64_t width = found != nullptr && found->shape.size() == 2 ? found->shape[1] : 0;
    const bool dense = is_dense("weight_packed", width, cols());
    packing_ = dense;
    const int64_t words = dense ? dense_words(cols(), bits) : loose_words(cols(), bits);
    const TensorView& codes = tensors_.take("weight_packed", {rows(), words}, {DType::i32});
    const StoredScales scales = read_scales();
    StoredZeros zeros{.constant = 1 << (bits - 1)};
    read_packed_zeros(zeros);
    const int32_t* order = read_order();
    auto weight = make_coded(tensors_, text(fmt::format("int{}", bits)), group_columns());
    weight->codes.layout = dense ? CodeLayout::rows_stream : CodeLayout::rows_words;
    weight->codes.bits = bits;
    weight->codes.data = codes.bytes.data();
    weight->codes.stride = words * 4;
    weight->scales = scales;
    weight->zeros = zeros;
    weight->group_of = order;
    weight->groups = groups();
    return weight;
  }

  const CtConfig& config_;
  const CtGroup& group_;
  ModuleTensors& tensors_;
  std::optional<bool> packing_;
};

/// `kind` is "input" or "output".
std::optional<ActivationRounding> read_rounding(ModuleTensors& tensors, const CtGroup& group,
                                                const std::optional<CtArguments>& given,
                                                const std::string& kind) {
  if (!given) return std::nullopt;
  const CtArguments& a = *given;
  const std::string where = fmt::format("{}: {}_activations", group.where, kind);
  ActivationRounding rounding;
  rounding.type = !a.is_float   ? ActivationRounding::Type::integer
                  : a.bits == 8 ? ActivationRounding::Type::e4m3
                                : ActivationRounding::Type::e2m1;
  rounding.bits = a.bits;
  rounding.symmetric = a.symmetric;
  if (a.is_float && !a.symmetric) fail("{}: symmetric is false; accepted with type float: true", where);
  if (!a.dynamic) {
    if (a.strategy != CtStrategy::tensor || (a.is_float && a.bits != 8))
      fail("{}: static activations of this strategy are not read; accepted: tensor", where);
    rounding.scale = tensors.scalar(kind + "_scale");
    const std::string zero = kind + "_zero_point";
    if (tensors.has(zero) || !a.symmetric) {
      const TensorView& tensor = tensors.take_any(zero, {DType::i8, DType::f8_e4m3});
      if (tensor.bytes.size() != 1)
        fail("{} has shape {}; the configuration asks for [1]", tensors.where(zero),
             shape_text(tensor.shape));
      rounding.zero_point = (std::to_integer<int32_t>(tensor.bytes[0]) ^ 0x80) - 0x80;  // signed
      if (a.symmetric && rounding.zero_point != 0)
        fail("{} is {}, but {}: symmetric is true", tensors.where(zero), rounding.zero_point, where);
    }
    return rounding;
  }
  if (a.strategy == CtStrategy::token) {
    if (a.is_float && a.bits == 4) fail("{}: num_bits is 4; accepted with strategy token: 8", where);
    rounding.source = ActivationRounding::Scale::token;
    return rounding;
  }
  if (a.strategy != CtStrategy::group)
    fail("{}: dynamic activations of this strategy are not read; accepted: token, group, tensor_group",
         where);
  rounding.group = a.group_size;
  if (tensors.request().cols % a.group_size != 0) {
    fail("{}: group_size is {}; accepted: a divisor of {}'s {} inputs", where, a.group_size,
         printable(tensors.request().name), tensors.request().cols);
  }
  rounding.source = ActivationRounding::Scale::group;
  if (a.tensor_group) {
    if (!a.is_float || a.bits != 4) fail("{}: tensor_group; accepted with 4-bit floats", where);
    rounding.source = ActivationRounding::Scale::two_level;
    rounding.global = tensors.scalar(kind + "_global_scale");
    rounding.global_divides = true;
  } else if (a.power_of_two) {
    if (!a.is_float || a.group_size != 32)
      fail("{}: scale_dtype torch.uint8; accepted with floats in groups of 32", where);
    rounding.source = ActivationRounding::Scale::power_of_two;
  } else if (a.is_float && a.bits == 4) {
    fail("{}: 4-bit floats; accepted with strategy tensor_group or scale_dtype torch.uint8", where);
  }
  return rounding;
}

std::optional<QuantizedModule> read_compressed_tensors_module(const CtConfig& config,
                                                              std::vector<std::string>& notes,
                                                              ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  const CtGroup* group = config.find(request, [&](std::string note) { notes.push_back(std::move(note)); });
  const TensorView* weight = tensors.find("weight");
  const bool codes = weight != nullptr && !info(weight->dtype).is_float;
  const bool packed = tensors.has("weight_packed") || codes;
  const bool must = group != nullptr && group->weights.has_value();
  const bool bytes = must && (group->format == CtFormat::integers || group->format == CtFormat::floats ||
                              group->format == CtFormat::mxfp8);
  check_agreement(tensors, codes || bytes ? "weight" : "weight_packed", packed, must, !must,
                  must ? group->where : config.where);
  if (group == nullptr) return std::nullopt;
  QuantizedModule result;
  if (must) {
    // The same weight as floats, which other programs read.
    if (config.beside_floats) tensors.take_any("weight", kFloats);
    result.weight = ModuleReader(config, *group, tensors).read();
  }
  result.input = read_rounding(tensors, *group, group->input, "input");
  result.output = read_rounding(tensors, *group, group->output, "output");
  return result;
}

}  // namespace

Quantization open_compressed_tensors(const QuantizationConfig& config) {
  auto settings = std::make_shared<const CtConfig>(read_compressed_tensors_config(config));
  Quantization result;
  auto notes = std::make_shared<std::vector<std::string>>();
  result.read = [settings, notes](ModuleTensors& tensors) {
    return read_compressed_tensors_module(*settings, *notes, tensors);
  };
  result.cache = settings->cache;
  result.notes = notes;
  return result;
}

}  // namespace qeval::model
