#include "eval/encoded_tasks.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "base/setting.h"
#include "eval/engine/chat_template.h"
#include "eval/tasks/generation_settings.h"

namespace qeval::eval {
namespace {

constexpr size_t kShownIds = 32;

struct EncodedDocument {
  std::vector<TokenRequest> requests;
  std::vector<int64_t> truncated;
  std::vector<bool> encoded_apart;
};

EncodedDocument encode(const Document& document, const Task& task, const RequestEncoder& encoder) {
  EncodedDocument out;
  const Scoring scoring = task.scoring;
  if (scoring == Scoring::generation) {
    const EncodedRequest encoded =
        encoder.encode_prompt(document.requests.front().context, task.generation->max_tokens);
    out.requests.assign(document.requests.size(), encoded.tokens);
    out.truncated.assign(document.requests.size(), encoded.truncated);
    out.encoded_apart.assign(document.requests.size(), false);
    return out;
  }
  if (scoring == Scoring::rolling) {
    out.requests = encoder.windows(document.requests.front().continuation);
    if (out.requests.empty())
      fail("its text of {} bytes has no token to score", document.requests.front().continuation.size());
    out.truncated.resize(out.requests.size());
    out.encoded_apart.resize(out.requests.size());
    return out;
  }
  for (const TextRequest& request : document.requests) {
    EncodedRequest encoded = encoder.encode(request);
    out.requests.push_back(std::move(encoded.tokens));
    out.truncated.push_back(encoded.truncated);
    out.encoded_apart.push_back(encoded.encoded_apart);
  }
  return out;
}

}  // namespace

EncodedTask::EncodedTask(Task task, LoadedTask loaded, const RequestEncoder& encoder,
                         const model::ModelConfig& config, int64_t batch_tokens)
    : task_(std::move(task)), loaded_(std::move(loaded)) {
  std::vector<EncodedDocument> encoded(loaded_.documents.size());
  parallel_ranges(std::ssize(encoded), 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Document& document = loaded_.documents[static_cast<size_t>(i)];
      try {
        encoded[static_cast<size_t>(i)] = encode(document, task_, encoder);
      } catch (const Error& error) {
        fail("task {}, document {}: {}", task_.name, document.doc_id, error.what());
      }
    }
  });
  for (EncodedDocument& document : encoded) {
    first_.push_back(requests_.size());
    std::ranges::move(document.requests, std::back_inserter(requests_));
    truncated_.insert(truncated_.end(), document.truncated.begin(), document.truncated.end());
    encoded_apart_.insert(encoded_apart_.end(), document.encoded_apart.begin(), document.encoded_apart.end());
  }
  first_.push_back(requests_.size());
  plan_ = std::make_unique<const Plan>(requests_, batch_tokens, &config);
  if (task_.generation) {
    tokens_scored_ = std::ssize(requests_) * task_.generation->max_tokens;
  } else {
    for (const TokenRequest& request : requests_) tokens_scored_ += request.scored;
  }
}

std::vector<int64_t> EncodedTask::first_request_ids() const {
  if (requests_.empty()) return {};
  // What is behind a prompt is not known yet.
  const auto& request = requests_.front();
  const auto ids = task_.generation ? request.input() : std::span<const int32_t>(request.tokens);
  return {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), kShownIds))};
}

quant::NgramSketch::Overlap EncodedTask::overlap(const quant::NgramSketch& calibration) const {
  quant::NgramSketch::Overlap overlap;
  for (size_t i = 0; i < loaded_.documents.size(); ++i) {
    // A document's choices repeat its context; the windows of a rolling one are all of its text.
    const std::span<const TokenRequest> all = requests(i);
    const size_t count = task_.scoring == Scoring::rolling ? all.size() : std::min<size_t>(1, all.size());
    for (const TokenRequest& request : all.first(count)) calibration.look_up(request.tokens, overlap);
  }
  return overlap;
}

std::vector<std::string> EncodedTasks::names() const {
  std::vector<std::string> names;
  for (const Task& task : selection.tasks) names.push_back(task.name);
  return names;
}

namespace {

/// Puts the model's chat template into `style`.
std::shared_ptr<ChatRenderer> use_template(const Session& session, const ChatOptions& chat,
                                           PromptStyle& style) {
  auto renderer = std::make_shared<ChatRenderer>(load_chat_template(session.model().path, chat.template_name),
                                                 chat.arguments);
  style.chat = [renderer](const nlohmann::ordered_json& messages) { return (*renderer)(messages); };
  style.fewshot_as_multiturn = chat.fewshot_as_multiturn;
  return renderer;
}

/// The task's generation with the settings that were given; warnings name the task.
std::shared_ptr<const Generation> settled(const Task& task, const nlohmann::ordered_json& settings,
                                          std::vector<std::string>& warnings) {
  std::vector<std::string> said;
  std::shared_ptr<const Generation> out;
  try {
    out = with_settings(*task.generation, settings, said);
  } catch (const Error& error) {
    fail("task {}: {}", task.name, error.what());
  }
  for (const std::string& warning : said) warnings.push_back(fmt::format("task {}: {}", task.name, warning));
  return out;
}

void require_generation(const Selection& selection, const EvaluationOptions& options) {
  const auto generates = [](const Task& task) { return task.generation != nullptr; };
  if (options.generation.empty() || std::ranges::any_of(selection.tasks, generates)) return;
  const std::string who =
      selection.tasks.size() == 1
          ? fmt::format("task {} does not let the model write", selection.tasks.front().name)
          : fmt::format("none of the {} tasks lets the model write", selection.tasks.size());
  throw UsageError(
      fmt::format("{}: {}; accepted with tasks that generate (docs/tasks.md)", setting("gen-kwargs"), who));
}

}  // namespace

EncodedTasks encode_tasks(Session& session, const EvaluationOptions& options) {
  EncodedTasks out{resolve_tasks(options.tasks, options.protocol), {}, {}, {}, {}, {}};
  require_generation(out.selection, options);
  const RequestEncoder encoder(session.tokenizer(), options.protocol, options.prefix, session.max_length(),
                               add_bos_for(session, options.add_bos), options.chat.has_value());
  LoadOptions load = options.load;
  out.chat.system_instruction = load.style.system_instruction;
  std::shared_ptr<ChatRenderer> chat;
  if (options.chat) {
    chat = use_template(session, *options.chat, load.style);
    out.chat.chat_template = chat->chat().source;
    out.chat.arguments = chat->arguments();
    out.chat.fewshot_as_multiturn = load.style.fewshot_as_multiturn;
    out.warnings = chat->chat().warnings;
  }
  out.prefix_policy = encoder.prefix_policy();
  out.add_bos_policy = encoder.add_bos_policy();
  for (Task& task : out.selection.tasks) {
    if (task.generation) task.generation = settled(task, options.generation, out.warnings);
    out.tasks.push_back(std::make_shared<const EncodedTask>(task, load_documents(task, load), encoder,
                                                            session.model().config, options.batch_tokens));
  }
  if (chat && chat->dropped_system()) {
    out.warnings.push_back(fmt::format(
        "{}: refuses a conversation with a system message, which was left out, as the harness does",
        chat->chat().where));
  }
  return out;
}

}  // namespace qeval::eval
