// Zip archive, all fields little-endian: local header (30 bytes, name, extra) and data per entry; central
// directory (46 bytes, name, extra, comment per entry); optional zip64 end record and its 20-byte locator;
// end record (22 bytes, comment). Fields that overflow 16 or 32 bits are all ones and stand in a zip64 extra
// field (id 1) instead. Sizes are taken from the central directory, since local headers may leave them to a
// trailer.

#include "model/checkpoint/zip.h"

#include <algorithm>

#include "base/error.h"
#include "model/checkpoint/byte_reader.h"

namespace qeval::model {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50,
                   kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr uint32_t kOverflow16 = 0xFFFF, kOverflow32 = 0xFFFFFFFF;

struct Directory {
  uint64_t offset = 0, size = 0, entries = 0;
};

struct Entry {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint64_t compressed = 0, size = 0, local_offset = 0;
};

class ZipReader {
 public:
  ZipReader(std::span<const std::byte> archive, const std::string& where)
      : archive_(archive), where_(where) {}

  std::map<std::string, std::span<const std::byte>> read() const {
    const Directory directory = find_directory();
    ByteReader reader(archive_.subspan(directory.offset, directory.size), where_ + ": zip directory");
    std::map<std::string, std::span<const std::byte>> entries;
    for (uint64_t i = 0; i < directory.entries; ++i) {
      Entry entry = read_entry(reader);
      const auto bytes = locate(entry, directory.offset);
      if (!entries.emplace(entry.name, bytes).second) {
        fail("{}: zip entry {} occurs twice", where_, printable(entry.name));
      }
    }
    return entries;
  }

 private:
  template <typename T>
  T field(uint64_t offset) const {
    return load_little_endian<T>(archive_.data() + offset);
  }

  /// The end record lies before a comment of at most 65535 bytes that reaches exactly to the end of the file.
  uint64_t find_end_record() const {
    const size_t size = archive_.size();
    for (size_t comment = 0; comment <= 0xFFFF && comment + kEndBytes <= size; ++comment) {
      const size_t offset = size - kEndBytes - comment;
      if (field<uint32_t>(offset) == kEndSignature && field<uint16_t>(offset + 20) == comment) return offset;
    }
    fail("{}: not a complete zip archive: no end record", where_);
  }

  Directory find_directory() const {
    const uint64_t end = find_end_record();
    Directory directory{.offset = field<uint32_t>(end + 16),
                        .size = field<uint32_t>(end + 12),
                        .entries = field<uint16_t>(end + 10)};
    const bool overflow =
        directory.offset == kOverflow32 || directory.size == kOverflow32 || directory.entries == kOverflow16;
    if (overflow && end >= kLocator64Bytes && field<uint32_t>(end - kLocator64Bytes) == kLocator64Signature) {
      const auto end64 = field<uint64_t>(end - kLocator64Bytes + 8);
      if (end64 > archive_.size() || archive_.size() - end64 < kEnd64Bytes ||
          field<uint32_t>(end64) != kEnd64Signature) {
        fail("{}: damaged zip archive: no zip64 end record at {}", where_, end64);
      }
      directory = {.offset = field<uint64_t>(end64 + 48),
                   .size = field<uint64_t>(end64 + 40),
                   .entries = field<uint64_t>(end64 + 32)};
    }
    if (directory.offset > end || directory.size > end - directory.offset ||
        directory.entries > directory.size / kCentralBytes) {
      fail("{}: damaged zip archive: a directory of {} entries in {} bytes at offset {}", where_,
           directory.entries, directory.size, directory.offset);
    }
    return directory;
  }

  Entry read_entry(ByteReader& reader) const {
    Entry entry;
    const auto header = reader.take(kCentralBytes, "an entry").data();
    if (load_little_endian<uint32_t>(header) != kCentralSignature) fail("{}: damaged zip directory", where_);
    entry.flags = load_little_endian<uint16_t>(header + 8);
    entry.method = load_little_endian<uint16_t>(header + 10);
    entry.compressed = load_little_endian<uint32_t>(header + 20);
    entry.size = load_little_endian<uint32_t>(header + 24);
    entry.local_offset = load_little_endian<uint32_t>(header + 42);
    entry.name = reader.take_text(load_little_endian<uint16_t>(header + 28), "an entry's name");
    ByteReader extra(reader.take(load_little_endian<uint16_t>(header + 30), "an extra field"), where_);
    reader.take(load_little_endian<uint16_t>(header + 32), "an entry's comment");
    while (extra.remaining() >= 4) {
      const auto id = extra.read<uint16_t>("an extra field");
      ByteReader content(extra.take(extra.read<uint16_t>("an extra field"), "an extra field"), where_);
      if (id != 1) continue;
      for (uint64_t* value : {&entry.size, &entry.compressed, &entry.local_offset}) {
        if (*value == kOverflow32) *value = content.read<uint64_t>("a zip64 field");
      }
    }
    return entry;
  }

  std::span<const std::byte> locate(const Entry& entry, uint64_t limit) const {
    const std::string name = printable(entry.name);
    if ((entry.flags & 1U) != 0)
      fail("{}: zip entry {} is encrypted; accepted: as torch.save writes it", where_, name);
    if (entry.method != 0 || entry.compressed != entry.size) {
      fail("{}: zip entry {} is compressed (method {}); accepted: stored, as torch.save writes it", where_,
           name, entry.method);
    }
    const uint64_t local = entry.local_offset;
    if (local > limit || limit - local < kLocalBytes || field<uint32_t>(local) != kLocalSignature) {
      fail("{}: zip entry {}: no local header at offset {}", where_, name, local);
    }
    const uint64_t begin = local + kLocalBytes + field<uint16_t>(local + 26) + field<uint16_t>(local + 28);
    if (begin > limit || entry.size > limit - begin) {
      fail("{}: zip entry {}: {} bytes at offset {} exceed the archive", where_, name, entry.size, begin);
    }
    return archive_.subspan(begin, entry.size);
  }

  std::span<const std::byte> archive_;
  const std::string& where_;
};

}  // namespace

std::map<std::string, std::span<const std::byte>> read_stored_zip(std::span<const std::byte> archive,
                                                                  const std::string& where) {
  return ZipReader(archive, where).read();
}

}  // namespace qeval::model
