// GGUF, versions 2 and 3, little-endian: "GGUF"; uint32 version; uint64 tensor count, uint64 metadata count;
// metadata (string key, uint32 type, value); tensor descriptions (string name, uint32 n, uint64 extents[n]
// innermost first, uint32 type, uint64 offset); padding to general.alignment (32 by default); data, each
// tensor padded to the alignment, offsets relative to its begin. A string is a uint64 length and bytes; an
// array a uint32 element type, a uint64 count and the elements.
//
// A model in several files NAME-00001-of-0000N.gguf: each is a GGUF file with tensors of its own and the keys
// split.no (from 0), split.count and split.tensors.count (of all of them); the first alone has the other
// keys.

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

constexpr uint32_t kMaxGgufDimensions = 4;
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

/// What GGUF's type numbers mean.
struct GgmlType {
  std::string_view name;
  std::optional<DType> dtype;  ///< none: withdrawn, never stored in files (Q8_1, Q8_K) or not read here
};

// clang-format off
constexpr std::array<GgmlType, 43> kGgmlTypes{{
    {"F32", DType::f32},
    {"F16", DType::f16},
    {"Q4_0", DType::q4_0},
    {"Q4_1", DType::q4_1},
    {"Q4_2", std::nullopt},
    {"Q4_3", std::nullopt},
    {"Q5_0", DType::q5_0},
    {"Q5_1", DType::q5_1},
    {"Q8_0", DType::q8_0},
    {"Q8_1", std::nullopt},
    {"Q2_K", DType::q2_k},
    {"Q3_K", DType::q3_k},
    {"Q4_K", DType::q4_k},
    {"Q5_K", DType::q5_k},
    {"Q6_K", DType::q6_k},
    {"Q8_K", std::nullopt},
    {"IQ2_XXS", DType::iq2_xxs},
    {"IQ2_XS", DType::iq2_xs},
    {"IQ3_XXS", DType::iq3_xxs},
    {"IQ1_S", DType::iq1_s},
    {"IQ4_NL", DType::iq4_nl},
    {"IQ3_S", DType::iq3_s},
    {"IQ2_S", DType::iq2_s},
    {"IQ4_XS", DType::iq4_xs},
    {"I8", std::nullopt},
    {"I16", std::nullopt},
    {"I32", DType::i32},
    {"I64", DType::i64},
    {"F64", DType::f64},
    {"IQ1_M", DType::iq1_m},
    {"BF16", DType::bf16},
    {"Q4_0_4_4", std::nullopt},
    {"Q4_0_4_8", std::nullopt},
    {"Q4_0_8_8", std::nullopt},
    {"TQ1_0", DType::tq1_0},
    {"TQ2_0", DType::tq2_0},
    {"IQ4_NL_4_4", std::nullopt},
    {"IQ4_NL_4_8", std::nullopt},
    {"IQ4_NL_8_8", std::nullopt},
    {"MXFP4", DType::mxfp4},
    {"NVFP4", DType::nvfp4},
    {"Q1_0", DType::q1_0},
    {"Q2_0", DType::q2_0}
}};
// clang-format on

std::string accepted_types() {
  std::string names;
  for (const GgmlType& type : kGgmlTypes) {
    if (type.dtype) names += (names.empty() ? "" : ", ") + std::string(type.name);
  }
  return names;
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
  if (dimensions == 0 || dimensions > kMaxGgufDimensions) {
    fail("{}: {} has {} dimensions; accepted: 1 to {}", file, where, dimensions, kMaxGgufDimensions);
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto extent = reader.bytes().read<uint64_t>(where);
    if (extent == 0 || extent > (uint64_t{1} << 62)) {
      fail("{}: {} has an extent of {}; accepted: 1 to 2^62", file, where, extent);
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(extent));
  }
  const auto type = reader.bytes().read<uint32_t>(where);
  const std::optional<DType> dtype = type < kGgmlTypes.size() ? kGgmlTypes[type].dtype : std::nullopt;
  if (!dtype) {
    fail("{}: {} has type {}; accepted: {}", file, where,
         type < kGgmlTypes.size() ? std::string(kGgmlTypes[type].name) : fmt::format("number {}", type),
         accepted_types());
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

/// One file as it is read: a whole model, or a part of one.
struct Part {
  std::unordered_map<std::string, GgufValue> metadata;
  /// Where the metadata lie in the file, without those about parts: from the first value to behind the last.
  std::vector<std::span<const std::byte>> values;
  std::vector<Description> tensors;
  std::span<const std::byte> data;
};

constexpr std::string_view kSplitKeys = "split.", kSplitNumber = "split.no", kSplitCount = "split.count",
                           kSplitTensors = "split.tensors.count", kAlignment = "general.alignment";

std::optional<int64_t> find_integer(const Part& part, std::string_view key, const std::string& file) {
  const auto it = part.metadata.find(std::string(key));
  if (it == part.metadata.end()) return std::nullopt;
  const auto* value = std::get_if<int64_t>(&it->second);
  if (value == nullptr) fail("{}: metadata key {} is not an integer", file, key);
  return *value;
}

Part read_part(const MappedFile& mapped) {
  const std::string where = mapped.path().string();
  GgufReader reader(mapped.bytes(), where);
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

  Part part;
  for (uint64_t i = 0; i < value_count; ++i) {
    const size_t begin = bytes.offset();
    const std::string key = reader.name("a metadata key");
    if (part.metadata.contains(key)) fail("{}: metadata key {} occurs twice", where, printable(key));
    part.metadata.emplace(key, reader.value(printable(key)));
    if (!key.starts_with(kSplitKeys))
      part.values.push_back(mapped.bytes().subspan(begin, bytes.offset() - begin));
  }
  const int64_t alignment = find_integer(part, kAlignment, where).value_or(kDefaultAlignment);
  if (alignment < 1 || alignment > 65536 || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    fail("{}: general.alignment is {}; accepted: a power of two up to 65536", where, alignment);
  }

  for (uint64_t i = 0; i < tensor_count; ++i) part.tensors.push_back(read_description(reader, where));
  if (part.tensors.empty()) return part;  // a vocabulary file, or a first part of keys alone
  const auto step = static_cast<uint64_t>(alignment);
  bytes.take((step - bytes.offset() % step) % step, "padding");
  part.data = bytes.take(bytes.remaining(), "the data");
  check_offsets(part.tensors, part.data.size(), step, where);
  return part;
}

/// What the name of a part says: NAME-00002-of-00003.gguf.
struct PartName {
  std::string stem;  ///< NAME, with the folder
  int64_t number, count;

  std::filesystem::path of(int64_t n) const { return fmt::format("{}-{:05}-of-{:05}.gguf", stem, n, count); }
};

std::optional<PartName> part_name(const std::filesystem::path& file) {
  static constexpr std::string_view kPattern = "-00000-of-00000.gguf";  // 0: any digit
  const std::string text = file.string();
  if (text.size() <= kPattern.size()) return std::nullopt;
  const std::string tail = text.substr(text.size() - kPattern.size());
  for (size_t i = 0; i < tail.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (kPattern[i] == '0' ? !digit : tail[i] != kPattern[i]) return std::nullopt;
  }
  const PartName name{text.substr(0, text.size() - kPattern.size()), std::stoll(tail.substr(1, 5)),
                      std::stoll(tail.substr(10, 5))};
  if (name.count == 0 || name.number < 1 || name.number > name.count) {
    fail("{}: the name says part {} of {}; accepted: parts counted from 1", text, name.number, name.count);
  }
  return name;
}

std::filesystem::path first_part(const std::filesystem::path& given) {
  const auto name = part_name(given);
  return name ? name->of(1) : given;
}

/// Into how many parts the model was split, 1 where it was not: what `first` says, held against its name.
int64_t count_of_parts(const Part& first, const std::filesystem::path& file) {
  const std::string where = file.string();
  const auto name = part_name(file);
  const std::optional<int64_t> count = find_integer(first, kSplitCount, where);
  if (name && name->count > 1 && !count) {
    fail(
        "{}: the name says part 1 of {}, and split.count is missing; accepted: parts as llama-gguf-split "
        "makes "
        "them, or another name",
        where, name->count);
  }
  if (count && *count != (name ? name->count : 1)) {
    if (name) fail("{}: split.count is {}; the name says {}", where, *count, name->count);
    fail(
        "{}: split.count is {}; accepted: all parts in one folder, each under a name such as "
        "NAME-00001-of-00003.gguf",
        where, *count);
  }
  return name ? name->count : 1;
}

/// Part `number`, from 1, must say that it is.
void check_part(const Part& part, int64_t number, int64_t count, int64_t tensors, const std::string& file) {
  const auto check = [&](std::string_view key, int64_t expected, bool required) {
    const std::optional<int64_t> value = find_integer(part, key, file);
    if (!value && required) fail("{}: metadata key {} (an integer) is missing", file, key);
    if (value && *value != expected) fail("{}: {} is {}; accepted: {}", file, key, *value, expected);
  };
  check(kSplitNumber, number - 1, true);
  check(kSplitCount, count, number == 1);
  check(kSplitTensors, tensors, number == 1);
  if (number == 1) return;
  for (const auto& [key, value] : part.metadata) {
    if (!key.starts_with(kSplitKeys) && key != kAlignment) {
      fail("{}: metadata key {}; accepted: keys about the model in the first part alone", file,
           printable(key));
    }
  }
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& file) : Checkpoint(first_part(file), "gguf") {
  files_.emplace_back(path());
  std::vector<Part> parts;
  parts.push_back(read_part(files_.front()));
  const int64_t count = count_of_parts(parts.front(), path());
  for (int64_t number = 2; number <= count; ++number) {
    const std::filesystem::path other = part_name(path())->of(number);
    std::error_code code;
    if (!std::filesystem::exists(other, code))
      fail("{}: part {} of {} is missing: there is no {}", path().string(), number, count, other.string());
    files_.emplace_back(other);
    parts.push_back(read_part(files_.back()));
  }
  int64_t tensors = 0;
  for (const Part& part : parts) tensors += std::ssize(part.tensors);
  for (int64_t i = 0; count > 1 && i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    check_part(parts[at], i + 1, count, tensors, files_[at].path().string());
  }
  for (Part& part : parts) {
    for (Description& tensor : part.tensors) {
      add({.name = std::move(tensor.name),
           .dtype = tensor.dtype,
           .shape = std::move(tensor.shape),
           .bytes = part.data.subspan(tensor.offset, tensor.size)});
    }
  }
  metadata_ = std::move(parts.front().metadata);
  values_ = std::move(parts.front().values);
}

void GgufFile::release_pages() const {
  for (const MappedFile& file : files_) file.release_pages();
}

}  // namespace qeval::model
