#include "eval/engine/jinja/template.h"

#include "base/unicode.h"
#include "eval/engine/jinja/bind.h"
#include "eval/engine/jinja/evaluator.h"
#include "eval/engine/jinja/json.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/parser.h"

namespace qeval::jinja {

Template::Template(std::string_view source) {
  if (source.size() > kMostSource) {
    raise("a template of {} bytes; accepted: up to {}", source.size(), kMostSource);
  }
  if (const size_t at = find_invalid_utf8(source); at != std::string_view::npos) {
    raise("not UTF-8 at byte {}", at);
  }
  syntax_ = std::make_unique<const Syntax>(bind(parse(source)));
}

Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

std::string Template::render(const nlohmann::ordered_json& variables, const std::tm& now) const {
  Runtime runtime(now);
  try {
    auto names = globals(runtime);
    for (const auto& [name, value] : variables.items())
      names.insert_or_assign(name, from_json(runtime, value));
    Context context{&names, {}};
    runtime.context = &context;
    Builder out(runtime, kMostOutput);
    Evaluator(runtime, *syntax_).run(out);
    return out.take();
  } catch (TemplateError& error) {
    if (error.line == 0) error.line = runtime.line;
    throw;
  }
}

}  // namespace qeval::jinja
