#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"
#include "tests/fuzz/targets.h"

namespace qeval::fuzz {

inline std::string_view text_of(Input input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

/// What stands before and behind the first line "%%%"; without one, the second is empty.
struct Parts {
  std::string_view first, second;
};
Parts split(std::string_view text);

/// Ends the process with `what` on stderr: the input has shown a defect that no sanitizer sees.
[[noreturn]] void defect(std::string_view what, std::string_view detail);

/// An Error must be one line that a terminal can show: no control characters, well-formed UTF-8. Printed
/// where QEVAL_FUZZ_SHOW is set: whether a new seed gets as far as it should.
void check_message(std::string_view message);

/// Runs `action`; an Error is an answer like any other, whatever else is thrown ends the process.
/// Returns whether there was none.
template <typename Action>
bool accepted(const Action& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    check_message(error.what());
    return false;
  }
}

/// A folder in memory where there is such a place, of this process alone, removed at its end.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  /// Writes a file and returns its path. A name may have a folder in front.
  std::filesystem::path write(std::string_view name, std::string_view bytes) const;
  void remove(std::string_view name) const;

 private:
  std::filesystem::path path_;
};

/// The scratch folder of the process.
const Scratch& scratch();

}  // namespace qeval::fuzz
