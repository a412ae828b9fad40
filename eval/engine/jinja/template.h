#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"

/// The dialect of Jinja that chat templates are written in: jinja2 3.1 as transformers configures it
/// (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, break and continue, the generation tag,
/// tojson, raise_exception, strftime_now, its namespace and dict). What differs is refused by name: integers
/// beyond 64 bits, autoescape true, other templates, the filters urlize, wordwrap and random, lipsum().
namespace qeval::jinja {

struct Syntax;

/// What a template raises, in the words of jinja2 or Python.
class TemplateError : public Error {
 public:
  explicit TemplateError(const std::string& message, int template_line = 0)
      : Error(message), line(template_line) {}
  int line;  ///< of the template; 0 where none is known
};

/// A template, ready to be rendered. It is not changed by that: any number of threads may render it at once.
class Template {
 public:
  /// Raises TemplateError where it cannot be parsed, or is larger than 4 MiB or nests deeper than is
  /// supported.
  explicit Template(std::string_view source);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  /// The text for an object of variables. `now` is what strftime_now sees, in local time. Raises
  /// TemplateError, also where rendering takes more than its bounds: 2^25 steps (a step is an expression or 8
  /// bytes written), 16 MiB of output, 800 nested evaluations, 100 nested containers.
  std::string render(const nlohmann::ordered_json& variables, const std::tm& now) const;

 private:
  std::unique_ptr<const Syntax> syntax_;
};

}  // namespace qeval::jinja
