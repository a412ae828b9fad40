#include <algorithm>

#include "base/error.h"
#include "base/unicode.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/ifeval/instructions.h"

namespace qeval::eval {
namespace {

using datasets::Row;

/// The response, and what is left of it without its first line, its last and its asterisks: instructions that
/// one of them follows are followed loosely.
std::vector<std::string> loose_responses(const std::string& response) {
  const size_t first = response.find('\n'), last = response.rfind('\n');
  const auto part = [&](size_t begin, size_t end) {
    return begin < end ? std::string(strip(std::string_view(response).substr(begin, end - begin))) : "";
  };
  const bool lines = first != std::string::npos;
  std::vector<std::string> out{response, lines ? part(first + 1, response.size()) : "",
                               lines ? part(0, last) : "", lines ? part(first + 1, last) : ""};
  for (size_t i = 0; i < 4; ++i) {
    std::string without = out[i];
    std::erase(without, '*');
    out.push_back(std::move(without));
  }
  return out;
}

Question ask_ifeval(const Row& row, const std::shared_ptr<LanguageData>& data) {
  Question question{.contexts = {row.text("prompt")}, .target = "0"};
  const std::vector<InstructionCheck> checks = instruction_checks(row, data);
  const std::vector<std::string> ids = row.texts("instruction_id_list");
  for (size_t i = 0; i < ids.size(); ++i)
    question.references.push_back(ids[i] + " " + row.at(fmt::format("kwargs.{}", i)).dump());
  question.parts = std::ssize(checks);
  question.judge = [checks](const std::string& response) -> std::vector<double> {
    std::vector<std::string> responses = loose_responses(response);
    std::erase_if(responses, [](const std::string& text) { return strip(text).empty(); });
    const bool said = !strip(response).empty();
    int64_t strictly = 0, loosely = 0;
    for (const InstructionCheck& follows : checks) {
      strictly += said && follows(response) ? 1 : 0;
      loosely += std::ranges::any_of(responses, follows) ? 1 : 0;
    }
    const auto all = std::ssize(checks);
    const auto share = [&](int64_t count) { return static_cast<double>(count) / static_cast<double>(all); };
    return {strictly == all ? 1.0 : 0.0, share(strictly), loosely == all ? 1.0 : 0.0, share(loosely)};
  };
  return question;
}

}  // namespace

std::vector<Task> ifeval_tasks() {
  Task task{
      .name = "ifeval",
      .description = "IFEval: instructions that a program can check, such as a length or a format",
      .folder = "ifeval",
      .split = "train",
      .version = 4,
      .scoring = Scoring::generation,
      .ask = [data = std::make_shared<LanguageData>()](const Row& row) { return ask_ifeval(row, data); },
      .generation = generating({{"none", {}}},
                               {"prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc",
                                "inst_level_loose_acc"},
                               {{"until", nlohmann::ordered_json::array()},
                                {"do_sample", false},
                                {"temperature", 0.0},
                                {"max_gen_toks", 1280}},
                               "instructions followed, strictly and loosely")};
  Task leaderboard = task;
  leaderboard.name = "leaderboard_ifeval";
  leaderboard.description = "IFEval, as the second Open LLM Leaderboard asks it";
  leaderboard.version = 3;
  return {task, leaderboard};
}

std::shared_ptr<const SentenceSplitter> LanguageData::sentences(const std::filesystem::path& folder) {
  const std::scoped_lock lock(mutex_);
  if (sentences_) return sentences_;
  const std::filesystem::path model = folder / "punkt_english";
  if (std::error_code code; !std::filesystem::is_directory(model, code)) {
    fail(
        "{}: is missing: NLTK's model of English sentences, its punkt_tab/english, by which sentences and "
        "words in capitals are counted; scripts/fetch_datasets.py --tasks ifeval fetches it",
        model.string());
  }
  return sentences_ = std::make_shared<const SentenceSplitter>(model);
}

std::shared_ptr<const LanguageDetector> LanguageData::languages(const std::filesystem::path& folder) {
  const std::scoped_lock lock(mutex_);
  if (languages_) return languages_;
  const std::filesystem::path model = folder / "langdetect";
  if (std::error_code code; !std::filesystem::is_directory(model, code)) {
    fail(
        "{}: is missing: the profiles of the Python package langdetect, by which the language of an answer "
        "is told; scripts/fetch_datasets.py --tasks ifeval fetches them",
        model.string());
  }
  return languages_ = std::make_shared<const LanguageDetector>(model);
}

}  // namespace qeval::eval
