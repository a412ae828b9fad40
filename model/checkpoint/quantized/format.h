#pragma once

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json_object.h"
#include "model/checkpoint/activation_rounding.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/stored_weight.h"

namespace qeval::model {

/// A module whose weight is asked for, by its name in the file.
struct ModuleRequest {
  std::string name;            ///< without ".weight"
  int64_t rows = 0, cols = 0;  ///< output and input features of the stored tensor
  /// linear: inside a block; outside: a linear map that is neither in a block nor the head.
  enum class Kind : uint8_t { linear, embedding, head, outside } kind = Kind::linear;
  bool transposed = false;  ///< plain, it is stored as [cols, rows] (GPT-2's Conv1D)
};

/// What a reader finds for it.
struct QuantizedModule {
  std::shared_ptr<CodedWeight> weight;
  std::optional<ActivationRounding> input, output;
};

/// The tensors of one module: those of a checkpoint whose names begin with "MODULE.". What is taken is
/// checked and remembered.
class ModuleTensors {
 public:
  ModuleTensors(const Checkpoint& checkpoint, const ModuleRequest& request)
      : checkpoint_(checkpoint), request_(request) {}

  const ModuleRequest& request() const { return request_; }
  bool has(std::string_view suffix) const { return find(suffix) != nullptr; }
  const TensorView* find(std::string_view suffix) const;
  /// Of these names the first that is there; Error that lists them where none is.
  const char* first_of(std::initializer_list<const char*> suffixes) const;
  /// Throws Error where the tensor is missing or of another type or shape.
  const TensorView& take(std::string_view suffix, const std::vector<int64_t>& shape,
                         std::initializer_list<DType> types);
  /// The same without a condition on the shape.
  const TensorView& take_any(std::string_view suffix, std::initializer_list<DType> types);
  /// A scale of shape [] or [1]: Error unless it is finite and above 0, or 0 where that is a value of its
  /// own.
  float scalar(std::string_view suffix, bool may_be_zero = false);
  /// A scale's tensor of any float type, for grids whose indices take these steps.
  StoredScales scales(std::string_view suffix, const std::vector<int64_t>& shape, int64_t row_step,
                      int64_t group_step);
  /// "FILE: tensor MODULE.SUFFIX", for messages.
  std::string where(std::string_view suffix) const;
  /// What was taken, in that order.
  const std::vector<TensorView>& taken() const { return taken_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  std::string name(std::string_view suffix) const;

  const Checkpoint& checkpoint_;
  const ModuleRequest& request_;
  std::vector<TensorView> taken_;
};

/// The key of config.json that says what codes lie beside the float weights of a folder, as
/// `quantization_config` says it of codes in their place (qeval's own).
inline constexpr const char* kWeightCodes = "weight_codes";

/// The float types that scales are stored in.
inline constexpr std::initializer_list<DType> kFloats{DType::f32, DType::f16, DType::bf16};

/// A quantization config: `fields` for values, `ordered` for maps whose order counts.
struct QuantizationConfig {
  std::string where;  ///< "FILE: quantization_config"
  std::filesystem::path folder;
  nlohmann::json fields;
  nlohmann::ordered_json ordered;
  /// --gptq-zeros: "v1", "v2", or empty.
  std::string gptq_zeros;

  JsonObject object() const { return {fields, where}; }
  /// Refuses a field that is neither in `known` nor null, false or empty, by its name.
  void refuse_unknown(std::initializer_list<std::string_view> known) const;
  /// Refuses each of these that is neither absent nor null, false or empty.
  void refuse(std::initializer_list<const char*> fields, std::string_view why) const;
};

/// How the checkpoint's modules are to be read.
struct Quantization {
  std::string method;  ///< quant_method
  /// The weight of a module, or nothing where it is plain. Throws Error where its tensors are not what the
  /// config says.
  std::function<std::optional<QuantizedModule>(ModuleTensors& tensors)> read;
  /// Of keys and values in the cache: the tensor beside them that has the scale, and the rounding without it.
  struct CacheRounding {
    std::string key_suffix, value_suffix;  ///< behind "LAYER.self_attn."
    ActivationRounding rounding;
  };
  std::optional<CacheRounding> cache;
  /// Ends of tensor names that are read by nobody and may be.
  std::vector<std::string> ignored_suffixes;
  std::string ignored_note;  ///< what is then to be said
  /// What reading modules found that is worth a warning; may be null.
  std::shared_ptr<std::vector<std::string>> notes;
};

/// What a folder says of its quantization: `quantization_config` or `compression_config` of config.json,
/// quantize_config.json or hf_quant_config.json. Nothing where there is none. An unknown method is an Error
/// that names it and those that are known.
std::optional<Quantization> find_quantization(const std::filesystem::path& folder,
                                              const Checkpoint& checkpoint, const std::string& gptq_zeros);

// What the formats' readers share.

/// Whether a module is quantized: what its tensors say, after a look at what the config says. Where the two
/// disagree, Error with the tensor and `rule`, the field of the config.
bool check_agreement(const ModuleTensors& tensors, std::string_view packed_suffix, bool packed,
                     bool may_be_packed, bool may_be_plain, const std::string& rule);

/// Names of modules that a config leaves alone.
struct SkippedNames {
  std::vector<std::string> names;

  /// The module itself, or one that it is part of.
  bool surely(std::string_view module) const;
  /// Or what other tools take for it: a name that begins with one, ends in one or contains one.
  bool possibly(std::string_view module) const;
};
/// The list at the first of these keys that is there.
SkippedNames skipped_names(const JsonObject& fields, std::initializer_list<const char*> keys);

/// ⌈a / b⌉
constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// "g128"; "per channel" for −1 and 0.
std::string group_text(int64_t group);

/// GPTQ's tensors, which other methods store as well.
struct GptqLayout {
  std::string name = "GPTQ";
  int bits = 4;
  int64_t group_size = -1;  ///< −1: the whole row
  bool planar = false;
  bool symmetric = false;
  bool needs_order = false;  ///< g_idx must be there
  /// How zero points are stored: less one, borrowing across words; less one, field by field; as they are.
  enum class Zeros : uint8_t { v1, v1_fields, v2 } zeros = Zeros::v1;
  std::string zeros_label;  ///< the field and value that say so; empty: cannot be doubted
};
std::shared_ptr<CodedWeight> read_gptq_layout(ModuleTensors& tensors, const GptqLayout& layout);

/// AWQ's GEMM tensors.
std::shared_ptr<CodedWeight> read_awq_layout(ModuleTensors& tensors, const std::string& name,
                                             int64_t group_size);

/// FP8 codes with scales.
std::shared_ptr<CodedWeight> read_fp8(ModuleTensors& tensors, const std::string& name, StoredScales scales,
                                      int64_t group);
/// E2M1 codes, two to a byte, the low nibble first, with scales per group.
std::shared_ptr<CodedWeight> read_e2m1(ModuleTensors& tensors, std::string_view suffix,
                                       const std::string& name, StoredScales scales, int64_t group);
/// The matrices [rows, cols] of a layer's experts as gpt-oss stores them, from NAME_blocks and NAME_scales.
/// Rows of its gate_up_proj alternate, gate and up.
std::vector<std::shared_ptr<CodedWeight>> read_mxfp4_experts(const Checkpoint& checkpoint,
                                                             const std::string& name, int64_t experts,
                                                             int64_t rows, int64_t cols);
/// A matrix of this request with all that was taken so far.
std::shared_ptr<CodedWeight> make_coded(const ModuleTensors& tensors, std::string format, int64_t group);
/// Signed bytes with zero points (null: none) that have the scales' steps.
void use_signed_bytes(CodedWeight& weight, const TensorView& codes, const TensorView* zeros);

// One function per method, each in the file of its name.
Quantization open_gptq(const QuantizationConfig& config);
Quantization open_awq(const QuantizationConfig& config);
Quantization open_auto_round(const QuantizationConfig& config);
Quantization open_compressed_tensors(const QuantizationConfig& config);
Quantization open_fp8(const QuantizationConfig& config);
Quantization open_fbgemm_fp8(const QuantizationConfig& config);
Quantization open_modelopt(const QuantizationConfig& config);
Quantization open_bitsandbytes(const QuantizationConfig& config);
Quantization open_gemma(const QuantizationConfig& config);
Quantization open_mxfp4(const QuantizationConfig& config);
Quantization open_torchao(const QuantizationConfig& config);

}  // namespace qeval::model
