#include "base/strict_json.h"
#include "eval/engine/jinja/template.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

// What a template raises is its own text, of any number of lines; who prints it makes one line of it.
void chat_template(Input input) {
  const auto [source, json] = split(text_of(input));
  accepted([source = source, json = json] {
    nlohmann::ordered_json variables = nlohmann::ordered_json::object();
    if (!json.empty()) variables = parse_ordered_json(json, "variables");
    if (!variables.is_object()) return;
    std::tm now{};
    now.tm_mday = 1;
    try {
      const jinja::Template parsed(source);
      (void)parsed.render(variables, now);
      (void)parsed.render({{"messages", {{{"role", "user"}, {"content", "Hi"}}}}}, now);
    } catch (const jinja::TemplateError& error) {
      check_message(printable(error.what()));
    }
  });
}

}  // namespace qeval::fuzz
