#include "cli/compared_models.h"

#include "base/error.h"
#include "cli/option_values.h"
#include "quant/arithmetic/ggml_arithmetic.h"

namespace qeval::cli {
namespace {

/// Whether a session knows it; a type of keys and values that there is not is an error of its own.
bool is_arithmetic(std::string_view name) {
  return name == "float" || name == "fake" || name == "integer" || quant::parse_ggml_arithmetic(name);
}

bool exists(std::string_view path) {
  std::error_code code;
  return !path.empty() && std::filesystem::exists(std::string(path), code);
}

/// "PATH@ARITHMETIC" or "PATH".
ComparedModel path_and_arithmetic(std::string_view text) {
  const size_t at = text.rfind('@');
  if (exists(text) || at == std::string_view::npos) return {std::string(text), "", ""};
  return {std::string(text.substr(0, at)), std::string(text.substr(at + 1)), ""};
}

}  // namespace

void add_with_option(po::options_description& options) {
  options.add_options()("with", po::value<std::vector<std::string>>()->value_name("PATH[@A][=LABEL]"),
                        "a model to compare with the base, in arithmetic A (float, fake, integer, ggml, "
                        "ggml-q8_0 and others), shown as "
                        "LABEL (default: what its weights are stored as); may be given several times");
}

ComparedModel parse_compared_model(std::string_view text) {
  size_t end = text.size();
  // What stands before the last '=' that a path ends at; without any such path, before the first.
  for (size_t equals = text.rfind('='); !exists(text) && equals != std::string_view::npos;
       equals = equals == 0 ? std::string_view::npos : text.rfind('=', equals - 1)) {
    end = equals;
    if (exists(path_and_arithmetic(text.substr(0, equals)).path.string())) break;
  }
  ComparedModel out = path_and_arithmetic(text.substr(0, end));
  if (out.path.empty())
    refuse("with", fmt::format("{}: PATH[@ARITHMETIC][=LABEL] is expected", printable(text)));
  if (end < text.size()) {
    out.label = text.substr(end + 1);
    if (out.label.empty()) refuse("with", fmt::format("{}: the label behind '=' is empty", printable(text)));
  }
  const bool has_arithmetic = path_and_arithmetic(text.substr(0, end)).path.string().size() < end;
  if (has_arithmetic && !is_arithmetic(out.arithmetic)) {
    refuse("with", fmt::format("{}: arithmetic {}: unknown; accepted: float, fake, integer, ggml",
                               printable(text), printable(out.arithmetic)));
  }
  out.arithmetic = quant::canonical_arithmetic(out.arithmetic);
  return out;
}

std::vector<ComparedModel> compared_models(const po::variables_map& arguments) {
  std::vector<ComparedModel> out;
  for (const std::string& text :
       optional<std::vector<std::string>>(arguments, "with").value_or(std::vector<std::string>{}))
    out.push_back(parse_compared_model(text));
  return out;
}

}  // namespace qeval::cli
