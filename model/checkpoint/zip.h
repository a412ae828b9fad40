#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace qeval::model {

/// The entries of a zip archive (zip64 too) whose entries are all stored uncompressed, as torch.save writes
/// it: views into `archive`, in which every offset has been checked. A compressed or encrypted entry, a name
/// twice, or headers that do not fit the file are Errors that begin with `where`.
///
/// Read here and not through libzip, because a weight is used where it lies in the mapping, and libzip copies
/// what it reads without telling where an entry's bytes are.
std::map<std::string, std::span<const std::byte>> read_stored_zip(std::span<const std::byte> archive,
                                                                  const std::string& where);

}  // namespace qeval::model
