#include "eval/engine/jinja/template.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strict_json.h"

namespace qeval::jinja {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

/// 2026-01-02 03:04:05, as tests/tools/make_template_cases.py has it.
std::tm now() {
  std::tm out{};
  out.tm_year = 126;
  out.tm_mday = 2;
  out.tm_hour = 3;
  out.tm_min = 4;
  out.tm_sec = 5;
  out.tm_isdst = -1;
  std::mktime(&out);
  return out;
}

std::string render(std::string_view source, const ordered_json& variables = ordered_json::object()) {
  return Template(source).render(variables, now());
}

/// What a template raises, and on which line.
struct Raised {
  std::string message;
  int line = 0;
};
Raised raised(std::string_view source, const ordered_json& variables = ordered_json::object()) {
  try {
    render(source, variables);
  } catch (const TemplateError& error) {
    return {error.what(), error.line};
  }
  return {};
}

// Every part of the language: what jinja2 makes of small templates, errors included.
TEST(Jinja, TemplatesAreRenderedAsJinja2DoesIt) {
  std::ifstream file(QEVAL_GOLDENS_DIR "/templates/cases.jsonl");
  std::string line;
  std::getline(file, line);
  const ordered_json variables = parse_ordered_json(line, "cases")["variables"];
  int cases = 0;
  for (; std::getline(file, line); ++cases) {
    const ordered_json one = parse_ordered_json(line, "cases");
    const auto source = one["template"].get<std::string>();
    if (one.contains("text")) {
      std::string text;
      EXPECT_NO_THROW(text = render(source, variables)) << source;
      EXPECT_EQ(text, one["text"].get<std::string>()) << source;
    } else {
      EXPECT_EQ(raised(source, variables).message, one["error"].get<std::string>()) << source;
    }
  }
  EXPECT_GT(cases, 80);
}

TEST(Jinja, ErrorsNameTheLineOfTheTemplate) {
  EXPECT_EQ(raised("a\n{% if true %}\n{{ x.y }}\n{% endif %}").line, 3);
  EXPECT_EQ(raised("{% macro m() %}\n\n{{ 1 / 0 }}{% endmacro %}\n{{ m() }}").line, 3);
  EXPECT_EQ(raised("{% if true %}\n{% for x in y %}\n{% endif %}").line, 3);
  EXPECT_EQ(raised("\n\n{{ 'open").line, 3);
}

// Where a `set` is seen is decided when a template is read, as jinja2's compiler does it.
TEST(Jinja, MacrosSeeTheVariablesOfWhereTheyAreDefined) {
  EXPECT_EQ(render("{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}"), "2");
  EXPECT_EQ(
      render("{% macro m() %}{% if y is not defined %}{% set y = 'own' %}{% endif %}{{ y }}{% endmacro %}"
             "{{ m() }}{{ y }}"),
      "own");
  EXPECT_EQ(render("{% for i in [1, 2] %}{{ x }}{% set x = i %}{{ x }}{% endfor %}|{{ x }}", {{"x", "o"}}),
            "o1o2|o");
}

TEST(Jinja, WhatIsNotSupportedIsRefusedByName) {
  EXPECT_THAT(raised("{{ 9223372036854775807 + 1 }}").message, HasSubstr("beyond 64 bits"));
  EXPECT_THAT(raised("{{ 9223372036854775808 }}").message, HasSubstr("beyond 64 bits"));
  EXPECT_THAT(raised("{{ x }}", {{"x", UINT64_MAX}}).message, HasSubstr("beyond 64 bits"));
  EXPECT_THAT(raised("{{ [1]|random }}").message, HasSubstr("random is not supported"));
  EXPECT_THAT(raised("{% autoescape true %}x{% endautoescape %}").message, HasSubstr("autoescape"));
  EXPECT_THAT(raised("{{ '\\ud800' }}").message, HasSubstr("surrogate"));
  EXPECT_THAT(raised("\xff").message, HasSubstr("UTF-8"));
}

// Templates come from strangers: time, memory, depth and output end.
TEST(Jinja, RenderingIsBounded) {
  const std::string loops =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% if a %}{% endif %}{% endfor %}{% endfor %}";
  EXPECT_THAT(raised(loops).message, HasSubstr("too long"));
  EXPECT_THAT(raised("{{ 'x' * 9999999999 }}").message, HasSubstr("too long"));
  EXPECT_THAT(raised("{{ 'x'.center(9999999999) }}").message, HasSubstr("too long"));
  EXPECT_THAT(raised("{{ '%9999999999d' % 1 }}").message, HasSubstr("digits"));
  EXPECT_THAT(raised("{% set n = namespace(x='x' * 1000) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}"
                     "{% endfor %}")
                  .message,
              HasSubstr("too long"));
  EXPECT_THAT(raised("{% for i in range(90) %}{{ 'x' * 1000000 }}{% endfor %}").message,
              HasSubstr("bytes of output"));
  EXPECT_THAT(raised("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").message, HasSubstr("recursion"));
  EXPECT_THAT(
      raised("{% set n = namespace(x=[]) %}{% for i in range(999) %}{% set n.x = [n.x] %}{% endfor %}")
          .message,
      HasSubstr("nested more than"));
  EXPECT_THAT(raised("{% set n = namespace(x=[1]) %}{% for i in range(999) %}{% set n.x = n.x|map('abs') %}"
                     "{% endfor %}{{ n.x|list }}")
                  .message,
              HasSubstr("nested more than"));
  EXPECT_THAT(raised("{{ " + std::string(5000, '(') + " }}").message, HasSubstr("nested"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_THAT(raised(sum + " }}").message, HasSubstr("steps"));
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "{% if true %}";
  EXPECT_THAT(raised(deep).message, HasSubstr("nested"));
}

// A namespace may hold itself; nothing is left behind, and its text ends.
TEST(Jinja, RingsOfNamespacesEnd) {
  EXPECT_EQ(render("{% set n = namespace(a=1) %}{% set n.me = n %}{{ n.me.me.a }}{{ n }}"),
            "1<Namespace {'a': 1, 'me': <Namespace {...}>}>");
  EXPECT_EQ(
      render("{% set h = namespace() %}{% set h.c = h %}{% for i in range(50000) %}{% set n = namespace() %}"
             "{% set c = h.c %}{% set c.x = n %}{% set h.c = n %}{% endfor %}done"),
      "done");
}

// What outlives the call or the loop that made it keeps its variables.
TEST(Jinja, MacrosAndLoopsMayBeKept) {
  EXPECT_EQ(render("{% set n = namespace() %}{% macro m(a) %}{% macro inner() %}{{ a }}{% endmacro %}"
                   "{% set n.f = inner %}{% for x in [1, 2, 3, 4] if x > a %}{% set n.l = loop %}{% break "
                   "%}{% endfor %}"
                   "{% endmacro %}{{ m(1) }}{{ n.f() }}{{ n.l|map('first')|list }}"),
            "1[3, 4]");
}

TEST(Jinja, ATemplateIsRenderedAnyNumberOfTimes) {
  const Template parsed("{% set n = namespace(i=0) %}{% set n.i = n.i + x %}{{ n.i }}");
  EXPECT_EQ(parsed.render({{"x", 1}}, now()), "1");
  EXPECT_EQ(parsed.render({{"x", 2}}, now()), "2");
}

}  // namespace
}  // namespace qeval::jinja
