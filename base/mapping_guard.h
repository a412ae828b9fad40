#pragma once

#include <cstddef>
#include <filesystem>

namespace qeval {

/// A mapped file that somebody shortens, or whose disk fails, raises SIGBUS where it is next read. From here
/// on that ends the process with one line on stderr that names the file, and exit status 1, instead of a core
/// dump. What was handed to the system before is kept: finished documents are. Faults anywhere else stay what
/// they were.
void report_lost_mappings();

/// What MappedFile tells the handler of: the bytes at `begin` are those of `path`. Cheap, from any thread. Of
/// more files than there are slots for, those that come late are not named in the message.
void register_mapping(const void* begin, size_t size, const std::filesystem::path& path);
void unregister_mapping(const void* begin);

}  // namespace qeval
