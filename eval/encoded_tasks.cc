#include "eval/encoded_tasks.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"

namespace qeval::eval {
namespace {

constexpr size_t kShownIds = 32;

struct EncodedDocument {
  std::vector<TokenRequest> requests;
  std::vector<int64_t> truncated;
  std::vector<bool> encoded_apart;
};

EncodedDocument encode(const Document& document, Scoring scoring, const RequestEncoder& encoder) {
  EncodedDocument out;
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
        encoded[static_cast<size_t>(i)] = encode(document, task_.scoring, encoder);
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
  for (const TokenRequest& request : requests_) tokens_scored_ += request.scored;
}

std::vector<int64_t> EncodedTask::first_request_ids() const {
  if (requests_.empty()) return {};
  const auto& ids = requests_.front().tokens;
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

EncodedTasks encode_tasks(Session& session, const EvaluationOptions& options) {
  EncodedTasks out{resolve_tasks(options.tasks, options.protocol), {}, {}, {}};
  const RequestEncoder encoder(session.tokenizer(), options.protocol, options.prefix, session.max_length(),
                               options.add_bos);
  out.prefix_policy = encoder.prefix_policy();
  out.add_bos_policy = encoder.add_bos_policy();
  for (const Task& task : out.selection.tasks) {
    out.tasks.push_back(std::make_shared<const EncodedTask>(task, load_documents(task, options.load), encoder,
                                                            session.model().config, options.batch_tokens));
  }
  return out;
}

}  // namespace qeval::eval
