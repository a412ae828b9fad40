// GGUF, versions 2 and 3, little-endian: "GGUF"; uint32 version; uint64 tensor count, uint64 metadata count;
// metadata (string key, uint32 type, value); tensor descriptions (string name, uint32 n, uint64 extents[n]
// innermost first, uint32 type, uint64 offset); padding to general.alignment (32 by default); data, each
// tensor padded to the alignment, offsets relative to its begin. A string is a uint64 length and bytes; an
// array a uint32 element type, a uint64 count and the elements.

#include "model/checkpoint/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>

#include "base/error.h"
#include "model/checkpoint/byte_reader.h"
#include "model/checkpoint/layout.h"

namespace qeval::model {
namespace {

constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kMaxNameBytes = 65535;
constexpr int64_t kDefaultAlignment = 32;

enum class ValueType : uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64
};

std::optional<DType> dtype_from_ggml(uint32_t type) {
  switch (type) {
    case 0:
      return DType::f32;
    case 1:
      return DType::f16;
    case 2:
      return DType::q4_0;
    case 3:
      return DType::q4_1;
    case 6:
      return DType::q5_0;
    case 7:
      return DType::q5_1;
    case 8:
      return DType::q8_0;
    case 10:
      return DType::q2_k;
    case 11:
      return DType::q3_k;
    case 12:
      return DType::q4_k;
    case 13:
      return DType::q5_k;
    case 14:
      return DType::q6_k;
    case 26:
      return DType::i32;
    case 27:
      return DType::i64;
    case 28:
      return DType::f64;
    case 30:
      return DType::bf16;
    default:
      return std::nullopt;
  }
}

/// Names of types that GGUF knows and we do not, for messages.
std::string ggml_type_name(uint32_t type) {
  static constexpr std::array<std::string_view, 41> kNames{
      "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
      "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
      "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
      "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
      "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
      "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4"};
  return type < kNames.size() ? std::string(kNames[type]) : fmt::format("number {}", type);
}

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string file)
      : reader_(bytes, file), file_(std::move(file)) {}

  ByteReader& bytes() { return reader_; }

  std::string string(std::string_view what) {
    const auto length = reader_.read<uint64_t>(what);
    return std::string(reader_.take_text(length, what));
  }

  std::string name(std::string_view what) {
    std::string text = string(what);
    if (text.empty() || text.size() > kMaxNameBytes) {
      fail("{}: {} of {} bytes before offset {}; accepted: 1 to {}", file_, what, text.size(),
           reader_.offset(), kMaxNameBytes);
    }
    return text;
  }

  GgufValue value(const std::string& key) {
    const auto type = reader_.read<uint32_t>(key);
    if (type == static_cast<uint32_t>(ValueType::array)) return array(key);
    return scalar(ValueType{type}, key);
  }

 private:
  int64_t unsigned_integer(const std::string& key) {
    const auto value = reader_.read<uint64_t>(key);
    if (value > static_cast<uint64_t>(INT64_MAX))
      fail("{}: {} is {}; accepted: below 2^63", file_, key, value);
    return static_cast<int64_t>(value);
  }

  bool boolean(const std::string& key) {
    const auto value = reader_.read<uint8_t>(key);
    if (value > 1) fail("{}: {} is the boolean {}; accepted: 0 and 1", file_, key, value);
    return value != 0;
  }

  GgufValue scalar(ValueType type, const std::string& key) {
    switch (type) {
      case ValueType::uint8:
        return int64_t{reader_.read<uint8_t>(key)};
      case ValueType::int8:
        return int64_t{reader_.read<int8_t>(key)};
      case ValueType::uint16:
        return int64_t{reader_.read<uint16_t>(key)};
      case ValueType::int16:
        return int64_t{reader_.read<int16_t>(key)};
      case ValueType::uint32:
        return int64_t{reader_.read<uint32_t>(key)};
      case ValueType::int32:
        return int64_t{reader_.read<int32_t>(key)};
      case ValueType::float32:
        return double{reader_.read<float>(key)};
      case ValueType::boolean:
        return boolean(key);
      case ValueType::string:
        return string(key);
      case ValueType::uint64:
        return unsigned_integer(key);
      case ValueType::int64:
        return reader_.read<int64_t>(key);
      case ValueType::float64:
        return reader_.read<double>(key);
      case ValueType::array:
        break;
    }
    fail("{}: {} has value type {}; accepted: 0 to 12", file_, key, static_cast<uint32_t>(type));
  }

  /// The bytes that an element takes at least, so that a count can be held against what is left of the file.
  static uint64_t least_bytes(ValueType type) {
    switch (type) {
      case ValueType::uint8:
      case ValueType::int8:
      case ValueType::boolean:
        return 1;
      case ValueType::uint16:
      case ValueType::int16:
        return 2;
      case ValueType::uint32:
      case ValueType::int32:
      case ValueType::float32:
        return 4;
      default:
        return 8;
    }
  }

  template <typename T>
  std::vector<T> elements(ValueType type, uint64_t count, const std::string& key) {
    std::vector<T> result;
    result.reserve(count);
    for (uint64_t i = 0; i < count; ++i) result.push_back(std::get<T>(scalar(type, key)));
    return result;
  }

  GgufValue array(const std::string& key) {
    const ValueType type{reader_.read<uint32_t>(key)};
    if (type == ValueType::array || type > ValueType::float64) {
      fail("{}: {} is an array of value type {}; accepted: 0 to 12, arrays not nested", file_, key,
           static_cast<uint32_t>(type));
    }
    const auto count = reader_.read<uint64_t>(key);
    if (count > reader_.remaining() / least_bytes(type)) {
      fail("{}: {} claims {} elements, {} bytes are left", file_, key, count, reader_.remaining());
    }
    switch (type) {
      case ValueType::string:
        return elements<std::string>(type, count, key);
      case ValueType::float32:
      case ValueType::float64:
        return elements<double>(type, count, key);
      case ValueType::boolean: {
        std::vector<int64_t> result;
        for (uint64_t i = 0; i < count; ++i) result.push_back(boolean(key) ? 1 : 0);
        return result;
      }
      default:
        return elements<int64_t>(type, count, key);
    }
  }

  ByteReader reader_;
  std::string file_;
};

struct Description {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t offset, size;
};

Description read_description(GgufReader& reader, const std::string& file) {
  Description tensor;
  tensor.name = reader.name("a tensor name");
  const std::string where = fmt::format("tensor {}", printable(tensor.name));
  const auto dimensions = reader.bytes().read<uint32_t>(where);
  if (dimensions == 0 || dimensions > kMaxDimensions) {
    fail("{}: {} has {} dimensions; accepted: 1 to {}", file, where, dimensions, kMaxDimensions);
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto extent = reader.bytes().read<uint64_t>(where);
    if (extent == 0 || extent > (uint64_t{1} << 62)) {
      fail("{}: {} has an extent of {}; accepted: 1 to 2^62", file, where, extent);
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(extent));
  }
  const auto type = reader.bytes().read<uint32_t>(where);
  const auto dtype = dtype_from_ggml(type);
  if (!dtype) {
    fail(
        "{}: {} has type {}; accepted: F32, F64, F16, BF16, I32, I64, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, "
        "Q3_K, Q4_K, "
        "Q5_K, Q6_K",
        file, where, ggml_type_name(type));
  }
  tensor.dtype = *dtype;
  const auto size = byte_count(*dtype, tensor.shape);
  if (!size) {
    fail("{}: {} of {}: shape {} is no whole number of blocks or too large", file, where, info(*dtype).name,
         shape_text(tensor.shape));
  }
  tensor.size = static_cast<uint64_t>(*size);
  tensor.offset = reader.bytes().read<uint64_t>(where);
  return tensor;
}

/// Tensors may come in any order, but each begins within the data, aligned, and after the end of the one
/// before it.
void check_offsets(const std::vector<Description>& tensors, uint64_t data_size, uint64_t alignment,
                   const std::string& file) {
  std::vector<const Description*> order;
  for (const Description& tensor : tensors) {
    if (tensor.offset % alignment != 0 || tensor.offset > data_size ||
        tensor.size > data_size - tensor.offset) {
      fail("{}: tensor {}: {} bytes at offset {}; accepted: a multiple of {}, within the {} bytes of data",
           file, printable(tensor.name), tensor.size, tensor.offset, alignment, data_size);
    }
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const Description* a, const Description* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->size) {
      fail("{}: tensors {} and {} overlap", file, printable(order[i - 1]->name), printable(order[i]->name));
    }
  }
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& file) : Checkpoint(file, "gguf"), file_(file) {
  const std::string where = file.string();
  GgufReader reader(file_.bytes(), where);
  ByteReader& bytes = reader.bytes();
  if (bytes.take_text(4, "the magic") != "GGUF")
    fail("{}: not a GGUF file: it does not begin with \"GGUF\"", where);
  const auto version = bytes.read<uint32_t>("the version");
  if (version != 2 && version != 3) {
    const bool swapped = version == 2U << 24 || version == 3U << 24;
    fail("{}: GGUF version {}; accepted: 2 and 3, little-endian", where,
         swapped ? fmt::format("{}, big-endian", version >> 24) : fmt::format("{}", version));
  }
  const auto tensor_count = bytes.read<uint64_t>("the tensor count");
  const auto value_count = bytes.read<uint64_t>("the metadata count");
  constexpr uint64_t kLeastValueBytes = 8 + 1 + 4 + 1, kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
  if (tensor_count > bytes.remaining() / kLeastTensorBytes ||
      value_count > bytes.remaining() / kLeastValueBytes) {
    fail("{}: {} tensors and {} metadata values cannot fit in the file", where, tensor_count, value_count);
  }

  for (uint64_t i = 0; i < value_count; ++i) {
    const std::string key = reader.name("a metadata key");
    if (metadata_.contains(key)) fail("{}: metadata key {} occurs twice", where, printable(key));
    metadata_.emplace(key, reader.value(printable(key)));
  }
  metadata_end_ = bytes.offset();
  if (integer_or("split.count", 1) > 1) {
    fail("{}: split.count is {}; accepted: a GGUF in one file (merge the parts first)", where,
         integer("split.count"));
  }
  const int64_t alignment = integer_or("general.alignment", kDefaultAlignment);
  if (alignment < 1 || alignment > 65536 || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    fail("{}: general.alignment is {}; accepted: a power of two up to 65536", where, alignment);
  }

  std::vector<Description> descriptions;
  for (uint64_t i = 0; i < tensor_count; ++i) descriptions.push_back(read_description(reader, where));
  if (descriptions.empty()) return;  // a vocabulary file
  const auto step = static_cast<uint64_t>(alignment);
  bytes.take((step - bytes.offset() % step) % step, "padding");
  const auto data = bytes.take(bytes.remaining(), "the data");
  check_offsets(descriptions, data.size(), step, where);
  for (Description& tensor : descriptions) {
    add({.name = std::move(tensor.name),
         .dtype = tensor.dtype,
         .shape = std::move(tensor.shape),
         .bytes = data.subspan(tensor.offset, tensor.size)});
  }
}

}  // namespace qeval::model
