#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/checkpoint/tensor.h"
#include "tests/temporary_folder.h"

/// Writers of tiny checkpoints in every format that the project reads: for tests, from scratch, so that a
/// reader is not tested against itself.
namespace qeval::model::fixtures {

using test::TemporaryFolder;

void write(const std::filesystem::path& path, std::string_view bytes);

/// Cuts the file of these bytes at every length, the longest first, and expects an Error from `open` each
/// time.
void expect_error_at_every_length(const std::filesystem::path& path, std::string_view bytes,
                                  const std::function<void()>& open);

/// Changes every byte of the file in turn, in three ways. `open` must throw an Error or return: the
/// sanitizers watch that nothing else happens.
void survive_every_corrupted_byte(const std::filesystem::path& path, std::string_view bytes,
                                  const std::function<void()>& open);

/// The message of the Error that `action` throws; fails the test where it throws none or another exception.
std::string error_of(const std::function<void()>& action);

/// Little-endian bytes of a number.
template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string raw(const std::vector<float>& values);

/// `count` reproducible values in [-1, 1), multiples of 1/128 (exact in every float type).
std::vector<float> random_values(size_t count, uint32_t seed);

/// What a tensor of any float type holds.
std::vector<float> values_of(const TensorView& tensor);

struct Tensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  ///< outermost first
  std::string bytes;
};

/// An F32 tensor.
Tensor f32_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& values);

/// A safetensors file; `padding` spaces end its header.
std::string safetensors(const std::vector<Tensor>& tensors, size_t padding = 0);
/// The same from a header as given.
std::string safetensors(std::string_view header, std::string_view data);

/// GGUF metadata values and whole files, piece by piece, so that tests can get single fields wrong.
std::string gguf_string(std::string_view text);
std::string gguf_value(std::string_view key, uint32_t type, std::string_view value);
std::string gguf_u32(std::string_view key, uint32_t value);
std::string gguf_f32(std::string_view key, float value);
std::string gguf_text(std::string_view key, std::string_view value);

struct GgufParts {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> values;
  std::vector<Tensor> tensors;
  uint64_t alignment = 32;        ///< of the data; a value general.alignment must be among `values`
  std::vector<uint64_t> offsets;  ///< instead of the right ones, where not empty
  std::vector<uint32_t> types;    ///< instead of the right ones, where not empty
};
std::string gguf(const GgufParts& parts);

/// A zip archive of stored entries; `method` is what its headers say.
std::string zip(const std::vector<std::pair<std::string, std::string>>& entries, uint16_t method = 0);

/// Pickle (protocol 2) of an OrderedDict of tensors, as torch.save writes it: tensor i lies in storage "i".
std::string pickled_dict(const std::vector<Tensor>& tensors);
/// One entry of such a dict: key and value.
std::string pickled_tensor(std::string_view name, std::string_view storage_type, std::string_view key,
                           int64_t elements, int64_t offset, const std::vector<int64_t>& shape,
                           const std::vector<int64_t>& stride);
/// A whole PyTorch file.
std::string pytorch(const std::vector<Tensor>& tensors);
/// The same from a pickle as given, storages named "0", "1", …
std::string pytorch(std::string_view pickle, const std::vector<std::string>& storages);

/// Tensors of a small Llama-like model in the Hugging Face layout: 2 layers, hidden size 32, 4 heads of 8
/// channels, 2 key/value heads, intermediate size 64, 48 tokens; all weights random.
struct TinyModel {
  bool qkv_bias = false, o_bias = false, mlp_bias = false, norm_bias = false, head = true;
};
constexpr int64_t kTinyLayers = 2, kTinyHidden = 32, kTinyHeads = 4, kTinyKvHeads = 2, kTinyHeadDim = 8,
                  kTinyInner = 64, kTinyVocab = 48;
std::vector<Tensor> tiny_model(const TinyModel& options = {});
/// config.json of that model; `extra` is inserted, such as R"("mlp_bias": true,)".
std::string tiny_config(std::string_view extra = "", std::string_view model_type = "llama");
/// The same model as a GGUF file of architecture llama: names mapped and q and k rows permuted, F32.
GgufParts tiny_gguf(const TinyModel& options = {});

}  // namespace qeval::model::fixtures
