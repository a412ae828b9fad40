#include "cli/option_values.h"

#include <algorithm>

#include "base/shell.h"
#include "quant/grid/qcfg.h"

namespace qeval::cli {
namespace {

/// An error of the option library's own kind, which knows the option's name.
class WrongChoice : public po::error_with_option_name {
 public:
  WrongChoice(const std::string& value, const std::string& reason)
      : error_with_option_name("%canonical_option% %value%: " + reason) {
    set_substitute("value", printable(value));
  }
};

}  // namespace

Choice::Choice(const char* value_name, std::string_view names, bool several, OpenEnd open_end)
    : typed_value(nullptr), several_(several), open_end_(open_end) {
  this->value_name(value_name);
  for (std::string name; const char c : std::string(names) + ",") {
    if (c == ',') {
      names_.push_back(std::exchange(name, ""));
    } else if (c != ' ') {
      name += c;
    }
  }
}

void Choice::xparse(boost::any& value, const std::vector<std::string>& words) const {
  typed_value::xparse(value, words);
  const auto text = boost::any_cast<std::string>(value);
  std::vector<std::string> parts{text};
  if (several_) {
    parts.clear();
    for (size_t begin = 0; begin <= text.size(); begin += parts.back().size() + 1)
      parts.push_back(text.substr(begin, text.find(',', begin) - begin));
  }
  for (const std::string& part : parts) {
    const auto stem = open_end_.stem != nullptr ? std::string(open_end_.stem(part)) : part;
    if (std::ranges::find(names_, stem) == names_.end()) {
      throw WrongChoice(part, fmt::format("unknown; accepted: {}{}{}", fmt::join(names_, ", "),
                                          open_end_.note.empty() ? "" : "; ", open_end_.note));
    }
    if (std::ranges::count(parts, part) > 1) throw WrongChoice(part, "stands there twice");
  }
}

po::typed_value<std::string>* one_of(const char* value_name, std::string_view names, OpenEnd open_end) {
  return new Choice(value_name, names, false, open_end);
}

po::typed_value<std::string>* some_of(const char* value_name, std::string_view names, OpenEnd open_end) {
  return new Choice(value_name, names, true, open_end);
}

OpenEnd scheme_groups() {
  return {quant::scheme_stem, quant::kGroupsNote};
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) throw UsageError(fmt::format("\"{}\": a list of names with commas", printable(text)));
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool given(const po::variables_map& arguments, const char* option) {
  return arguments.count(option) != 0 && !arguments[option].defaulted();
}

std::string repeated(const po::variables_map& arguments, std::span<const char* const> names) {
  std::string out;
  for (const char* name : names) {
    const po::variable_value& value = arguments[name];
    if (value.empty() || (value.defaulted() && std::string_view(name) != "data")) continue;
    out += fmt::format("{}--{}", out.empty() ? "" : " ", name);
    const auto& any = value.value();
    std::string text;
    if (any.type() == typeid(std::string)) text = value.as<std::string>();
    if (any.type() == typeid(int)) text = std::to_string(value.as<int>());
    if (any.type() == typeid(int64_t)) text = std::to_string(value.as<int64_t>());
    if (any.type() == typeid(uint64_t)) text = std::to_string(value.as<uint64_t>());
    if (any.type() == typeid(double)) text = fmt::format("{}", value.as<double>());
    if (!text.empty()) out += fmt::format(" {}", shell_quoted(text));
  }
  return out;
}

void refuse(const char* option, std::string_view reason) {
  throw UsageError(fmt::format("--{}: {}", option, reason));
}

}  // namespace qeval::cli
