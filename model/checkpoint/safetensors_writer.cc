// safetensors: an 8-byte little-endian header length, a JSON header of names, types, shapes and byte ranges,
// then the data, tensor after tensor.

#include "model/checkpoint/safetensors_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace qeval::model {
namespace {

constexpr int64_t kExportedAtATime = int64_t{1} << 18;

int64_t row_size(const TensorSource& tensor) {
  return tensor.shape.back();
}
int64_t row_count(const TensorSource& tensor) {
  return tensor.shape.size() == 1 ? 1 : tensor.shape.front();
}

DType type_of(const TensorSource& tensor, DType dtype) {
  return tensor.dtype.value_or(dtype);
}

std::string header(std::span<const TensorSource* const> tensors, DType dtype) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  json["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const TensorSource* tensor : tensors) {
    const DTypeInfo& type = info(type_of(*tensor, dtype));
    const int64_t size = row_count(*tensor) * row_size(*tensor) * type.block_bytes;
    json[tensor->name] = {
        {"dtype", type.name}, {"shape", tensor->shape}, {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  std::string text = json.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begins aligned
  return text;
}

/// `first`: the row that the values begin with.
void check_finite(std::span<const float> values, const TensorSource& tensor, int64_t first) {
  const auto bad = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return;
  const int64_t at = bad - values.begin();
  fail("tensor {}: row {}, column {} is {}; accepted: finite numbers", tensor.name,
       first + at / row_size(tensor), at % row_size(tensor),
       std::isnan(*bad) ? "nan"
       : *bad > 0       ? "inf"
                        : "-inf");
}

void write_values(AtomicFile& file, std::span<const float> values, const TensorSource& tensor, DType dtype) {
  if (dtype == DType::f32) {
    file.write(std::as_bytes(values));
    return;
  }
  std::vector<uint16_t> narrow(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    narrow[i] = dtype == DType::f16 ? narrow_f16(values[i]) : narrow_bf16(values[i]);
    if (dtype == DType::f16 && (narrow[i] & 0x7C00U) == 0x7C00U)
      fail("tensor {}: {} is beyond float16; accepted with this model: f32, bf16", tensor.name, values[i]);
    if (dtype == DType::bf16 && (narrow[i] & 0x7F80U) == 0x7F80U)
      fail("tensor {}: {} is beyond bfloat16; accepted with this model: f32", tensor.name, values[i]);
  }
  file.write(std::as_bytes(std::span(narrow)));
}

void write_tensor(AtomicFile& file, const TensorSource& tensor, DType dtype) {
  const int64_t at_a_time = std::max<int64_t>(1, kExportedAtATime / row_size(tensor));
  std::vector<float> values;
  std::vector<std::byte> elements;
  for (int64_t first = 0; first < row_count(tensor); first += at_a_time) {
    const int64_t count = std::min(at_a_time, row_count(tensor) - first);
    if (tensor.elements) {
      elements.resize(static_cast<size_t>(count * row_size(tensor) * info(dtype).block_bytes));
      tensor.elements(first, count, elements.data());
      file.write(elements);
      continue;
    }
    values.resize(static_cast<size_t>(count * row_size(tensor)));
    tensor.rows(first, count, values.data());
    check_finite(values, tensor, first);
    write_values(file, values, tensor, dtype);
  }
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const TensorSource> tensors,
                       DType dtype) {
  std::vector<const TensorSource*> ordered;
  for (const TensorSource& tensor : tensors) {
    const DType type = type_of(tensor, dtype);
    if (!tensor.elements && type != DType::f32 && type != DType::f16 && type != DType::bf16) {
      fail("{}: cannot write {}; accepted: F32, F16, BF16", path.string(), info(type).name);
    }
    ordered.push_back(&tensor);
  }
  std::ranges::stable_sort(ordered, std::greater{}, [&](const TensorSource* tensor) {
    return info(type_of(*tensor, dtype)).block_bytes;
  });
  AtomicFile file(path);
  const std::string text = header(ordered, dtype);
  const auto length = static_cast<uint64_t>(text.size());
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const TensorSource* tensor : ordered) write_tensor(file, *tensor, type_of(*tensor, dtype));
  file.commit();
}

}  // namespace qeval::model
