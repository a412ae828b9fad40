#include "eval/session.h"

#include <algorithm>

#include "base/error.h"

namespace qeval::eval {
namespace {

int64_t choose_max_length(const SessionOptions& options, const model::ModelConfig& config) {
  constexpr int64_t kDefault = 2048;
  const int64_t context = config.max_position_embeddings;
  if (!options.max_length) return std::min(kDefault, context);
  if (*options.max_length < 1 || *options.max_length > context) {
    fail("--max-length {}: this model takes 1 to {}", *options.max_length, context);
  }
  return *options.max_length;
}

std::unique_ptr<model::Arithmetic> make_arithmetic(const SessionOptions& options, const model::Model& model,
                                                   int64_t max_length) {
  if (options.arithmetic.empty() || options.arithmetic == "float") {
    return model::make_float_arithmetic(model, max_length);
  }
  fail("--arithmetic {}: unknown; accepted: float", printable(options.arithmetic));
}

}  // namespace

Session::Session(const SessionOptions& options)
    : model_(model::load_model(options.model)),
      max_length_(choose_max_length(options, model_.config)),
      arithmetic_(make_arithmetic(options, model_, max_length_)),
      decoder_(std::make_unique<model::Decoder>(model_, *arithmetic_)) {}

const model::Tokenizer& Session::tokenizer() {
  if (!tokenizer_) {
    auto loaded = model::load_tokenizer(model_.path);
    if (loaded->vocab_size() > model_.config.vocab_size) {
      fail("{}: the tokenizer has {} tokens, the model {}: it belongs to another model", model_.path.string(),
           loaded->vocab_size(), model_.config.vocab_size);
    }
    tokenizer_ = std::move(loaded);
  }
  return *tokenizer_;
}

}  // namespace qeval::eval
