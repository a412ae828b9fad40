#include "eval/tasks/user_task.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/unicode.h"
#include "datasets/reader.h"
#include "eval/results/metrics.h"
#include "eval/tasks/template.h"

namespace qeval::eval {
namespace {

using datasets::Json;
using datasets::Row;

/// Fields of every description, of multiple choice, and of perplexity.
constexpr std::array<std::string_view, 5> kCommonFields = {"name", "data", "metrics", "description", "split"};
constexpr std::array<std::string_view, 7> kChoiceFields = {"prompt",     "choices", "gold",    "labels",
                                                           "gold_start", "fewshot", "preamble"};
constexpr std::string_view kTextField = "text";

/// A text of the description that becomes a text per row: a template, or, without a place, the path of a
/// field.
Template text_of(std::string_view text) {
  return is_template(text) ? Template(text) : Template("{{" + std::string(text) + "}}");
}

/// The description file as a row of one, so that its mistakes are reported as a data row's are.
class Description {
 public:
  explicit Description(const std::filesystem::path& path) : path_(path.string()) {
    const datasets::DataText data = datasets::read_text(path);
    constexpr size_t kMaxBytes = 1U << 20U;
    if (data.text.size() > kMaxBytes) fail("{}: a task description is at most {} bytes", where(), kMaxBytes);
    fields_ = datasets::parse_object(datasets::checked_text(data), data.name);
    for (const auto& [field, value] : fields_.items()) check_field(field);
  }

  /// What is scored is the text of rows, not choices.
  bool is_perplexity() const { return find(kTextField) != nullptr; }

  std::string where() const { return printable(path_, 4096); }
  [[noreturn]] void mistake(std::string_view field, std::string_view message) const {
    fail("{}: field \"{}\": {}", where(), printable(field), message);
  }
  const Json* find(std::string_view field) const {
    const auto found = fields_.find(std::string(field));
    return found == fields_.end() ? nullptr : &*found;
  }
  const Json& at(std::string_view field) const {
    const Json* value = find(field);
    if (value == nullptr) mistake(field, "missing");
    return *value;
  }
  std::string text(std::string_view field) const {
    const Json& value = at(field);
    if (!value.is_string())
      mistake(field, fmt::format("{} where a string is expected", datasets::kind_of(value)));
    if (value.get_ref<const std::string&>().empty()) mistake(field, "is empty");
    return value.get<std::string>();
  }
  std::string text_or(std::string_view field, std::string fallback) const {
    return find(field) == nullptr ? std::move(fallback) : text(field);
  }
  Template template_at(std::string_view field, std::string_view text) const {
    try {
      return text_of(text);
    } catch (const Error& error) {
      mistake(field, error.what());
    }
  }

 private:
  void check_field(const std::string& field) const {
    if (std::ranges::find(kCommonFields, field) != kCommonFields.end() || field == kTextField) return;
    if (std::ranges::find(kChoiceFields, field) == kChoiceFields.end()) {
      mistake(field, fmt::format("unknown; the fields are {}, {}, or {} instead of those from {} on",
                                 fmt::join(kCommonFields, ", "), fmt::join(kChoiceFields, ", "), kTextField,
                                 kChoiceFields.front()));
    }
    if (is_perplexity()) mistake(field, fmt::format("not used beside \"{}\"", kTextField));
  }

  std::string path_;
  Json fields_;
};

/// Where the choices of a row come from: a list in the row, or one text each.
struct ChoiceSource {
  std::string list;
  std::vector<Template> texts;

  std::vector<std::string> read(const Row& row) const {
    if (!list.empty()) return row.texts(list);
    std::vector<std::string> out;
    out.reserve(texts.size());
    for (const Template& text : texts) out.push_back(text.fill(row));
    return out;
  }
};

ChoiceSource choices_of(const Description& description) {
  const Json& value = description.at("choices");
  ChoiceSource source;
  if (value.is_string()) {
    source.list = description.text("choices");
    if (is_template(source.list)) {
      description.mistake("choices",
                          "a template where the path of a list is expected; a list of templates is accepted");
    }
    return source;
  }
  if (!value.is_array() || value.empty()) {
    description.mistake("choices",
                        fmt::format("{} where the path of a list, or a list of texts, is expected",
                                    value.is_array() ? "an empty list" : datasets::kind_of(value)));
  }
  for (const Json& item : value) {
    if (!item.is_string()) {
      description.mistake("choices",
                          fmt::format("{} in the list where a string is expected", datasets::kind_of(item)));
    }
    try {
      source.texts.emplace_back(item.get<std::string>());
    } catch (const Error& error) {
      description.mistake("choices", error.what());
    }
  }
  return source;
}

/// How the right answer is named in a row.
struct GoldSource {
  std::string field;
  std::string labels;  ///< path of a list of names, one per choice; empty: none
  int64_t first = 0;   ///< what a number counts from

  int64_t read(const Row& row, const std::vector<std::string>& choices) const {
    const auto count = static_cast<int64_t>(choices.size());
    const Json& value = row.at(field);
    if (!labels.empty()) {
      const std::vector<std::string> names = row.texts(labels);
      if (names.size() != choices.size()) {
        row.fail_at(labels, fmt::format("{} labels for {} choices", names.size(), choices.size()));
      }
      return position(row, names, row.text(field), "labels");
    }
    if (!value.is_string()) return row.index(field, count, first);
    const auto& text = value.get_ref<const std::string&>();
    if (std::find(choices.begin(), choices.end(), text) != choices.end())
      return position(row, choices, text, "choices");
    if (text.size() == 1 && text[0] >= 'A' && text[0] <= 'Z') {
      if (text[0] - 'A' >= count)
        row.fail_at(field, fmt::format("{} where there are {} choices", text, count));
      return text[0] - 'A';
    }
    if (!text.empty() && text.find_first_not_of("0123456789") == std::string::npos) {
      return row.index(field, count, first);
    }
    row.fail_at(field,
                fmt::format("\"{}\" is neither a choice's text, a letter nor a number", printable(text, 60)));
  }

 private:
  int64_t position(const Row& row, const std::vector<std::string>& names, const std::string& text,
                   std::string_view what) const {
    const auto found = std::find(names.begin(), names.end(), text);
    if (found == names.end())
      row.fail_at(field, fmt::format("\"{}\" is none of the {}", printable(text, 60), what));
    if (std::find(found + 1, names.end(), text) != names.end()) {
      row.fail_at(field, fmt::format("\"{}\" stands twice among the {}", printable(text, 60), what));
    }
    return found - names.begin();
  }
};

GoldSource gold_of(const Description& description) {
  GoldSource source{.field = description.text("gold"), .labels = description.text_or("labels", "")};
  // A gold in braces says the same.
  if (source.field.starts_with("{{") && source.field.ends_with("}}")) {
    source.field = strip(std::string_view(source.field).substr(2, source.field.size() - 4));
  }
  if (is_template(source.field) || source.field.empty()) {
    description.mistake("gold", "the path of one field is expected");
  }
  if (const Json* first = description.find("gold_start")) {
    if (!first->is_number_integer() || (*first != 0 && *first != 1)) {
      description.mistake("gold_start", "0 or 1 is expected: what the number of the first choice is");
    }
    source.first = first->get<int64_t>();
  }
  return source;
}

std::vector<std::string> chosen_metrics(const Description& description, Scoring scoring) {
  std::vector<std::string> known;
  for (const MetricDefinition& metric : metrics_of(scoring)) known.emplace_back(metric.name);
  const Json* value = description.find("metrics");
  if (value == nullptr)
    return scoring == Scoring::multiple_choice ? std::vector<std::string>{"acc", "acc_norm"} : known;
  std::vector<std::string> out;
  if (!value->is_array() || value->empty()) description.mistake("metrics", "a list of names is expected");
  for (const Json& item : *value) {
    const std::string name = item.is_string() ? item.get<std::string>() : item.dump();
    if (std::ranges::find(known, name) == known.end()) {
      description.mistake("metrics",
                          fmt::format("\"{}\" is none of {}", printable(name, 60), fmt::join(known, ", ")));
    }
    if (std::ranges::find(out, name) == out.end()) out.push_back(name);
  }
  return out;
}

/// The name becomes part of a file's name.
std::string name_of(const Description& description) {
  constexpr std::string_view kAccepted = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  std::string name = description.text("name");
  if (name.find_first_not_of(kAccepted) != std::string::npos || name[0] == '.' || name.size() > 100) {
    description.mistake("name", "letters, digits, _ - and . are accepted, 100 at most, no . in front");
  }
  return name;
}

std::function<Question(const Row&)> choice_question(const Description& description) {
  return [prompt = description.template_at("prompt", description.text("prompt")),
          choices = choices_of(description), gold = gold_of(description)](const Row& row) {
    std::vector<std::string> texts = choices.read(row);
    const int64_t right = gold.read(row, texts);
    return choose(prompt.fill(row), std::move(texts), right);
  };
}

std::function<Question(const Row&)> text_question(const Description& description) {
  return [text = description.template_at(kTextField, description.text(kTextField))](const Row& row) {
    return running_text(text.fill(row));
  };
}

}  // namespace

Task read_user_task(const std::filesystem::path& path) {
  const Description description(path);
  Task task{.name = name_of(description)};
  task.description = description.text_or("description", "a task of the user's: " + path.string());
  task.split = description.text_or("split", "test");
  task.scoring = description.is_perplexity() ? Scoring::rolling : Scoring::multiple_choice;
  task.metrics = chosen_metrics(description, task.scoring);
  task.preamble = description.text_or("preamble", "");
  task.files = {description.text("data")};
  if (description.find("fewshot") != nullptr) task.fewshot_files = {description.text("fewshot")};
  task.root = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  task.dev_is_other = true;
  task.ask = description.is_perplexity() ? text_question(description) : choice_question(description);
  return task;
}

}  // namespace qeval::eval
