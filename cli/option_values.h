#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/command.h"

namespace qeval::cli {

/// Names that are open at their end: `stem` takes the end off, `note` says what it may be.
struct OpenEnd {
  std::string_view (*stem)(std::string_view name) = nullptr;
  std::string_view note{};
};

/// The value of an option that is one of a few names, or a list of them with commas, none of them twice. Any
/// other is a usage error that says what is accepted, found when the command line is read; shells complete
/// the names.
class Choice final : public po::typed_value<std::string> {
 public:
  Choice(const char* value_name, std::string_view names, bool several, OpenEnd open_end = {});

  const std::vector<std::string>& names() const { return names_; }
  bool several() const { return several_; }

  void xparse(boost::any& value, const std::vector<std::string>& words) const override;

 private:
  std::vector<std::string> names_;
  bool several_;
  OpenEnd open_end_;
};

/// For an option table; `names` as they are shown, "f32, bf16". The table owns the result.
po::typed_value<std::string>* one_of(const char* value_name, std::string_view names, OpenEnd open_end = {});
po::typed_value<std::string>* some_of(const char* value_name, std::string_view names, OpenEnd open_end = {});
/// The ends of schemes' names: groups of weights.
OpenEnd scheme_groups();

/// "a,b" as a list; a name may not be empty (UsageError).
std::vector<std::string> split_list(const std::string& text);

/// Whether the option stands on the command line.
bool given(const po::variables_map& arguments, const char* option);

/// The options of `names` that were given, as they would be written again, quoted for a shell; --data also
/// where it has its default.
std::string repeated(const po::variables_map& arguments, std::span<const char* const> names);

/// Throws UsageError "--OPTION: REASON".
[[noreturn]] void refuse(const char* option, std::string_view reason);

/// `value`; UsageError "--OPTION VALUE: accepted: LEAST to MOST" where it is outside.
template <typename T>
T in_range(const char* option, T value, T least, T most) {
  if (!(value >= least && value <= most))
    throw UsageError(fmt::format("--{} {}: accepted: {} to {}", option, value, least, most));
  return value;
}

/// What `read` returns. An Error that it throws is one of the command line: "--OPTION: ERROR".
template <typename Read>
auto of_option(const char* option, const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    refuse(option, error.what());
  }
}

}  // namespace qeval::cli
