#include "eval/tasks/question.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t start = 0;
  for (size_t at = 0; (at = text.find(from, start)) != std::string_view::npos; start = at + from.size()) {
    out += text.substr(start, at - start);
    out += to;
  }
  return out += text.substr(start);
}

/// Deletes every "[…]" that closes on its own line. Each search resumes where the last ended: linear in the
/// length.
std::string delete_brackets(std::string_view text) {
  std::string out;
  size_t start = 0;
  size_t close = 0;
  size_t line_end = 0;
  for (size_t open = 0; (open = text.find('[', open)) != std::string_view::npos;) {
    if (close <= open) close = text.find(']', open);
    if (close == std::string_view::npos) break;
    if (line_end <= open) line_end = std::min(text.find('\n', open), text.size());
    if (line_end < close) {
      ++open;
      continue;
    }
    out += text.substr(start, open - start);
    start = open = close + 1;
  }
  return out += text.substr(start);
}

}  // namespace

Question choose(std::string context, std::vector<std::string> choices, int64_t gold) {
  return {.contexts = {std::move(context)}, .choices = std::move(choices), .gold = {gold}};
}

Question running_text(std::string text, std::string raw) {
  return {.contexts = {""}, .choices = {std::move(text)}, .join = "", .raw = std::move(raw)};
}

std::vector<std::string> letters(size_t count) {
  assert(count <= 26);
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) out.emplace_back(1, static_cast<char>('A' + i));
  return out;
}

std::string lettered_prompt(std::string_view head, const std::vector<std::string>& choices) {
  std::string out(head);
  const std::vector<std::string> names = letters(choices.size());
  for (size_t i = 0; i < choices.size(); ++i) out += names[i] + ". " + choices[i] + "\n";
  return out += "Answer:";
}

LabelledRow labelled_row(const datasets::Row& row, std::string_view question_field, bool key_is_indented) {
  const datasets::Json* question = row.find("question");
  const bool nested = question != nullptr && question->is_object();
  const std::string list = nested ? "question.choices" : "choices";
  LabelledRow out{.question = row.text(nested ? "question.stem" : question_field),
                  .choices = row.texts(list + ".text"),
                  .labels = row.texts(list + ".label")};
  const std::vector<std::string>& labels = out.labels;
  if (labels.size() != out.choices.size()) {
    row.fail_at(list + ".label", fmt::format("{} labels for {} choices", labels.size(), out.choices.size()));
  }
  const std::string& key = row.text("answerKey");
  const auto found = std::find(labels.begin(), labels.end(), key_is_indented ? strip_left(key) : key);
  if (found == labels.end()) {
    row.fail_at("answerKey", fmt::format("\"{}\" is none of the labels {}", printable(key, 40),
                                         printable(fmt::format("{}", fmt::join(labels, ", ")), 80)));
  }
  out.gold = found - labels.begin();
  return out;
}

std::string clean_hellaswag(std::string_view text) {
  return replace_all(delete_brackets(replace_all(strip(text), " [title]", ". ")), "  ", " ");
}

}  // namespace qeval::eval
