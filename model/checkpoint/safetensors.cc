// safetensors: uint64 header length n (little-endian); n bytes of JSON, name → {dtype, shape, data_offsets:
// [begin, end)} relative to the byte after the header, and an optional "__metadata__" of strings; then the
// data, row-major. The header is at most 100 MB; the tensors cover the data without overlap or hole.

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/checkpoint/byte_reader.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/layout.h"

namespace qeval::model {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDimensions = 8;

constexpr std::array kTypes{DType::f32, DType::f64, DType::f16, DType::bf16,    DType::i64,
                            DType::i32, DType::i8,  DType::u8,  DType::f8_e4m3, DType::f8_e8m0};

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DType dtype : kTypes) {
    if (info(dtype).name == name) return dtype;
  }
  return std::nullopt;
}

std::string accepted_names() {
  std::string names;
  for (const DType dtype : kTypes) names += fmt::format("{}{}", names.empty() ? "" : ", ", info(dtype).name);
  return names;
}

/// A JSON array of non-negative integers below 2^62.
std::vector<int64_t> read_extents(const nlohmann::json& value, const std::string& where) {
  if (!value.is_array()) fail("{} is not an array of integers", where);
  std::vector<int64_t> extents;
  for (const auto& item : value) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > (uint64_t{1} << 62)) {
      fail("{} holds {}; accepted: integers from 0 to 2^62", where, printable(item.dump(), 40));
    }
    extents.push_back(item.get<int64_t>());
  }
  return extents;
}

class SafetensorsFile : public Checkpoint {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path) : Checkpoint(path, "safetensors"), file_(path) {
    const std::string name = path.string();
    ByteReader reader(file_.bytes(), name);
    const auto header_bytes = reader.read<uint64_t>("the header length");
    if (header_bytes > kMaxHeaderBytes || header_bytes > reader.remaining()) {
      fail(
          "{}: not a safetensors file: header of {} bytes; accepted: at most {} and within the file ({} "
          "bytes)",
          name, header_bytes, kMaxHeaderBytes, file_.bytes().size());
    }
    const auto header = parse_strict_json(reader.take_text(header_bytes, "the header"), name);
    if (!header.is_object()) fail("{}: the header is not a JSON object", name);
    const auto data = reader.take(reader.remaining(), "the data");
    for (const auto& [key, entry] : header.items()) {
      if (key != "__metadata__") {
        add_entry(key, entry, data);
      } else if (entry.is_object()) {
        for (const auto& [own, text] : entry.items()) {
          if (text.is_string()) add_metadata(own, text.get<std::string>());
        }
      }
    }
    check_coverage(data.size());
  }

  void release_pages() const override { file_.release_pages(); }

 private:
  void add_entry(const std::string& name, const nlohmann::json& entry, std::span<const std::byte> data) {
    const std::string where = fmt::format("{}: tensor {}", path().string(), printable(name));
    if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
        !entry.contains("data_offsets")) {
      fail("{}: the header entry lacks dtype, shape or data_offsets", where);
    }
    const auto& type = entry["dtype"];
    const auto dtype = type.is_string() ? dtype_from_name(type.get_ref<const std::string&>()) : std::nullopt;
    if (!dtype) fail("{}: dtype {}; accepted: {}", where, printable(type.dump(), 40), accepted_names());
    std::vector<int64_t> shape = read_extents(entry["shape"], where + ": shape");
    if (shape.size() > kMaxDimensions)
      fail("{}: {} dimensions; accepted: {}", where, shape.size(), kMaxDimensions);
    const auto offsets = read_extents(entry["data_offsets"], where + ": data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1] || static_cast<uint64_t>(offsets[1]) > data.size()) {
      fail("{}: data_offsets {} are not a range within the {} bytes of data", where, shape_text(offsets),
           data.size());
    }
    const auto size = byte_count(*dtype, shape);
    if (!size || *size != offsets[1] - offsets[0]) {
      fail("{}: shape {} of {} does not fit data_offsets {}", where, shape_text(shape), info(*dtype).name,
           shape_text(offsets));
    }
    ranges_.push_back({static_cast<uint64_t>(offsets[0]), static_cast<uint64_t>(offsets[1]), name});
    const auto bytes = data.subspan(static_cast<size_t>(offsets[0]), static_cast<size_t>(*size));
    add({.name = name, .dtype = *dtype, .shape = std::move(shape), .bytes = bytes});
  }

  struct Range {
    uint64_t begin, end;
    std::string name;
  };

  /// Every byte belongs to exactly one tensor: otherwise two names alias, or the file carries something
  /// unseen.
  void check_coverage(uint64_t data_size) {
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t end = 0;
    for (const Range& range : ranges_) {
      if (range.begin != end) {
        fail("{}: tensor {} begins at {} of the data where {} was expected: tensors {}", path().string(),
             printable(range.name), range.begin, end, range.begin < end ? "overlap" : "leave a hole");
      }
      end = range.end;
    }
    if (end != data_size)
      fail("{}: {} bytes after the last tensor belong to none", path().string(), data_size - end);
  }

  MappedFile file_;
  std::vector<Range> ranges_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_safetensors(const std::filesystem::path& file) {
  return std::make_unique<SafetensorsFile>(file);
}

}  // namespace qeval::model
