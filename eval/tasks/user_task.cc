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
#include "eval/tasks/generating.h"
#include "eval/tasks/template.h"

namespace qeval::eval {
namespace {

using datasets::Json;
using datasets::Row;

/// Fields of every description, of multiple choice, of answers that are written, and of perplexity.
constexpr std::array<std::string_view, 5> kCommonFields = {"name", "data", "metrics", "description", "split"};
constexpr std::array<std::string_view, 7> kChoiceFields = {"prompt",     "choices", "gold",    "labels",
                                                           "gold_start", "fewshot", "preamble"};
constexpr std::array<std::string_view, 9> kWritingFields = {
    "answer", "prompt", "until", "max_gen_toks", "filters", "ignore", "repeats", "fewshot", "preamble"};
constexpr std::string_view kTextField = "text", kAnswerField = "answer";

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
  /// The model writes an answer.
  bool is_writing() const { return find(kAnswerField) != nullptr; }

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
    const bool of_choices = std::ranges::find(kChoiceFields, field) != kChoiceFields.end();
    const bool of_writing = std::ranges::find(kWritingFields, field) != kWritingFields.end();
    if (!of_choices && !of_writing) {
      mistake(field, fmt::format("unknown; the fields are {}, {}, or {} instead of those from {} on, or {}",
                                 fmt::join(kCommonFields, ", "), fmt::join(kChoiceFields, ", "), kTextField,
                                 kChoiceFields.front(), fmt::join(kWritingFields, ", ")));
    }
    if (is_writing() && !of_writing) mistake(field, fmt::format("not used beside \"{}\"", kAnswerField));
    if (!is_writing() && !of_choices && !is_perplexity())
      mistake(field, fmt::format("not used without \"{}\"", kAnswerField));
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

GoldSource gold_source(const Description& description) {
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
  if (scoring == Scoring::generation) known = {"exact_match"};  // of a description
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
          choices = choices_of(description), gold = gold_source(description)](const Row& row) {
    std::vector<std::string> texts = choices.read(row);
    const int64_t right = gold.read(row, texts);
    return choose(prompt.fill(row), std::move(texts), right);
  };
}

std::vector<std::string> strings(const Description& description, std::string_view field, const Json& list) {
  std::vector<std::string> out;
  const auto is_text = [](const Json& item) {
    return item.is_string() && !item.get_ref<const std::string&>().empty();
  };
  if (!list.is_array() || !std::ranges::all_of(list, is_text))
    description.mistake(field, "a list of texts, none of them empty, is expected");
  for (const Json& item : list) out.push_back(item.get<std::string>());
  return out;
}

int64_t count_or(const Description& description, std::string_view field, int64_t fallback) {
  const Json* value = description.find(field);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer() || *value < 1 || *value > (1 << 20))
    description.mistake(field, "a whole number from 1 is expected");
  return value->get<int64_t>();
}

/// One step of a filter: "strip", "majority_vote", {"take_first_k": 3} or {"regex": …, "select": …,
/// "fallback": …}.
AnswerFilter::Step step_of(const Description& description, const Json& step) {
  const auto only = [&](std::initializer_list<std::string_view> keys) {
    return step.is_object() && std::ranges::all_of(step.items(), [&](const auto& item) {
             return std::ranges::find(keys, item.key()) != keys.end();
           });
  };
  if (step == "strip") return strip_step();
  if (step == "majority_vote") return majority_step();
  if (only({"take_first_k"}) && step.contains("take_first_k") && step["take_first_k"].is_number_unsigned() &&
      step["take_first_k"] > 0 && step["take_first_k"] <= kMostRepeats)
    return first_step(step["take_first_k"].get<int64_t>());
  const bool pattern = only({"regex", "select", "fallback"}) && step.contains("regex") &&
                       step["regex"].is_string() &&
                       (!step.contains("select") || step["select"].is_number_integer()) &&
                       (!step.contains("fallback") || step["fallback"].is_string());
  if (!pattern) {
    description.mistake("filters",
                        fmt::format("a step is {}; accepted: \"strip\", \"majority_vote\", "
                                    "{{\"take_first_k\": N}}, {{\"regex\": PATTERN, \"select\": N, "
                                    "\"fallback\": TEXT}}",
                                    printable(step.dump(), 80)));
  }
  try {
    return regex_step(step["regex"].get<std::string>(), step.value("select", int64_t{0}),
                      step.value("fallback", "[invalid]"));
  } catch (const Error& error) {
    description.mistake("filters", error.what());
  }
}

/// {"NAME": [STEP, …], …}; without the field, white space around the text goes.
std::vector<AnswerFilter> filters_of(const Description& description) {
  const Json* value = description.find("filters");
  if (value == nullptr) return {{"none", {strip_step()}}};
  if (!value->is_object() || value->empty())
    description.mistake("filters", "an object of lists of steps, by the filters' names, is expected");
  std::vector<AnswerFilter> out;
  for (const auto& [name, steps] : value->items()) {
    if (name.empty() || name.find(',') != std::string::npos || !steps.is_array())
      description.mistake("filters", "a name without a comma, and a list of steps, are expected of each");
    AnswerFilter& filter = out.emplace_back(AnswerFilter{name});
    for (const Json& step : steps) filter.steps.push_back(step_of(description, step));
  }
  return out;
}

/// {"case": true, "punctuation": true, "patterns": [PATTERN, …]}: what does not count in a comparison.
ExactMatchRules rules_of(const Description& description) {
  ExactMatchRules rules;
  const Json* value = description.find("ignore");
  if (value == nullptr) return rules;
  if (!value->is_object())
    description.mistake("ignore", "an object of case, punctuation and patterns is expected");
  for (const auto& [name, setting] : value->items()) {
    if (name == "patterns") {
      rules.regexes_to_ignore = strings(description, "ignore", setting);
    } else if ((name == "case" || name == "punctuation") && setting.is_boolean()) {
      (name == "case" ? rules.ignore_case : rules.ignore_punctuation) = setting.get<bool>();
    } else {
      description.mistake("ignore",
                          fmt::format("\"{}\": case and punctuation (true, false) and patterns (a list) "
                                      "are accepted",
                                      printable(name, 40)));
    }
  }
  return rules;
}

std::shared_ptr<const Generation> generation_of(const Description& description) {
  const Json* until = description.find("until");
  nlohmann::ordered_json arguments{
      {"until", until == nullptr ? std::vector<std::string>{"\n\n"} : strings(description, "until", *until)},
      {"max_gen_toks", count_or(description, "max_gen_toks", 256)},
      {"do_sample", false}};
  const ExactMatchRules rules = rules_of(description);
  auto out = std::make_shared<Generation>(*generating(
      filters_of(description), chosen_metrics(description, Scoring::generation), std::move(arguments),
      fmt::format("exact_match, ignoring case {}, punctuation {}, patterns {}", rules.ignore_case,
                  rules.ignore_punctuation, fmt::join(rules.regexes_to_ignore, " "))));
  out->repeats = count_or(description, "repeats", 1);
  if (out->repeats > kMostRepeats)
    description.mistake("repeats", fmt::format("a whole number from 1 to {} is expected", kMostRepeats));
  return out;
}

std::function<Question(const Row&)> written_question(const Description& description) {
  const std::string answer = description.text(kAnswerField);
  ExactMatchRules rules = rules_of(description);
  try {
    exact_match(rules, {""});
  } catch (const Error& error) {
    description.mistake("ignore", error.what());
  }
  return [prompt = description.template_at("prompt", description.text("prompt")), answer,
          one = description.template_at(kAnswerField, answer), rules](const Row& row) {
    const Json* value = is_template(answer) ? nullptr : row.find(answer);
    Question question{.contexts = {prompt.fill(row)}};
    question.references =
        value != nullptr && value->is_array() ? row.texts(answer) : std::vector<std::string>{one.fill(row)};
    question.target = question.references.front();
    question.example = question.references.front();
    question.judge = exact_match(rules, question.references);
    return question;
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
  task.scoring = description.is_perplexity() ? Scoring::rolling
                 : description.is_writing()  ? Scoring::generation
                                             : Scoring::multiple_choice;
  task.metrics = chosen_metrics(description, task.scoring);
  if (description.is_writing()) {
    task.generation = generation_of(description);
    task.metrics = task.generation->metric_names();
  }
  task.preamble = description.text_or("preamble", "");
  task.files = {description.text("data")};
  if (description.find("fewshot") != nullptr) task.fewshot_files = {description.text("fewshot")};
  task.root = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  task.dev_is_other = true;
  task.ask = description.is_perplexity() ? text_question(description)
             : description.is_writing()  ? written_question(description)
                                         : choice_question(description);
  return task;
}

}  // namespace qeval::eval
