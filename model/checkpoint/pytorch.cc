// PyTorch `.bin` since 1.6: a zip archive NAME/… of stored entries: data.pkl (the dict, see pickle.h),
// data/KEY (a storage's raw elements), byteorder ("little" or "big"; absent in older files, which are
// little-endian), version.

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "model/checkpoint/byte_reader.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/pickle.h"
#include "model/checkpoint/zip.h"

namespace qeval::model {
namespace {

/// Every opcode may leave a value of some 200 bytes, so the pickle's size bounds the memory that a hostile
/// one can take. State dicts of real models take a megabyte at most.
constexpr size_t kMaxPickleBytes = 16U << 20;

using Entries = std::map<std::string, std::span<const std::byte>>;

/// Formats that PyTorch wrote before the zip, by name.
void refuse_legacy(std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const bool tar = text.size() > 262 && text.substr(257, 5) == "ustar";
  if (tar || text.starts_with("\x80\x02\x8a")) {
    fail(
        "{}: a legacy PyTorch file ({}); accepted: the zip format of PyTorch 1.6 and later (load and save it "
        "again)",
        where, tar ? "tar" : "bare pickle");
  }
  if (!text.starts_with("PK\x03\x04"))
    fail("{}: not a PyTorch file: it does not begin as a zip archive", where);
}

/// Row-major without gaps; the stride of a dimension of one element does not matter.
bool is_contiguous(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.stride[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

class PyTorchFile : public Checkpoint {
 public:
  explicit PyTorchFile(const std::filesystem::path& path) : Checkpoint(path, "pytorch"), file_(path) {
    const std::string where = path.string();
    refuse_legacy(file_.bytes(), where);
    const Entries entries = read_stored_zip(file_.bytes(), where);
    const std::string folder = find_folder(entries);
    if (const auto order = entries.find(folder + "byteorder"); order != entries.end()) {
      const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
      if (text != "little") fail("{}: byteorder is {}; accepted: little", where, printable(text, 20));
    }
    const auto pickle = entries.at(folder + "data.pkl");
    if (pickle.size() > kMaxPickleBytes) {
      fail("{}: data.pkl has {} bytes; accepted: at most {}", where, pickle.size(), kMaxPickleBytes);
    }
    for (const PickledTensor& tensor : read_tensor_dict(pickle, where)) add_tensor(tensor, entries, folder);
  }

  void release_pages() const override { file_.release_pages(); }

 private:
  /// The archive's top folder, with its slash, in which data.pkl lies.
  std::string find_folder(const Entries& entries) const {
    constexpr std::string_view kPickle = "data.pkl";
    for (const auto& [name, bytes] : entries) {
      const size_t slash = name.find('/');
      if (slash != std::string::npos && std::string_view(name).substr(slash + 1) == kPickle) {
        return name.substr(0, slash + 1);
      }
    }
    fail("{}: not a PyTorch file: the zip archive has no NAME/data.pkl", path().string());
  }

  void add_tensor(const PickledTensor& tensor, const Entries& entries, const std::string& folder) {
    const std::string where = fmt::format("{}: tensor {}", path().string(), printable(tensor.name));
    const DTypeInfo& type = info(tensor.dtype);
    const auto storage = entries.find(folder + "data/" + tensor.storage_key);
    if (storage == entries.end()) fail("{}: storage {} is missing", where, printable(tensor.storage_key));
    const auto bytes = storage->second;
    // Compared by division: the count is any 63-bit number.
    if (bytes.size() % type.block_bytes != 0 ||
        bytes.size() / type.block_bytes != static_cast<uint64_t>(tensor.storage_elements)) {
      fail("{}: storage {} has {} bytes, not {} elements of {}", where, printable(tensor.storage_key),
           bytes.size(), tensor.storage_elements, type.name);
    }
    const auto size = byte_count(tensor.dtype, tensor.shape);
    if (!size) fail("{}: shape {} is impossible", where, shape_text(tensor.shape));
    if (!is_contiguous(tensor)) {
      fail("{}: stride {} of shape {}; accepted: contiguous tensors (call .contiguous() before saving)",
           where, shape_text(tensor.stride), shape_text(tensor.shape));
    }
    const auto count = static_cast<uint64_t>(*size);
    const auto elements = static_cast<uint64_t>(tensor.storage_elements);
    const auto first = static_cast<uint64_t>(tensor.offset);
    if (first > elements || count / type.block_bytes > elements - first) {
      fail("{}: shape {} at element {} exceeds its storage of {}", where, shape_text(tensor.shape),
           tensor.offset, tensor.storage_elements);
    }
    add({.name = tensor.name,
         .dtype = tensor.dtype,
         .shape = tensor.shape,
         .bytes = bytes.subspan(first * type.block_bytes, count)});
  }

  MappedFile file_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_pytorch(const std::filesystem::path& file) {
  return std::make_unique<PyTorchFile>(file);
}

}  // namespace qeval::model
