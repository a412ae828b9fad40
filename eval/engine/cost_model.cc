#include "eval/engine/cost_model.h"

#include <algorithm>

namespace qeval::eval {

TokenCosts token_costs(const model::ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto queries = static_cast<double>(config.num_heads * config.head_dim);
  const auto keys = static_cast<double>(config.num_kv_heads * config.head_dim);
  const auto intermediate = static_cast<double>(config.intermediate_size);
  const auto layers = static_cast<double>(config.num_layers);
  return {.token = 2 * layers * hidden * (2 * queries + 2 * keys + 3 * intermediate),
          .context = 4 * layers * queries,
          .scored = 2 * hidden * static_cast<double>(config.vocab_size)};
}

TokenCosts fit_costs(const TokenCosts& operations, const TimedPass& brief, const TimedPass& longer) {
  const auto products = [&](const TimedPass& pass) {
    return pass.tokens * operations.token + pass.scored * operations.scored;
  };
  const auto attention = [&](const TimedPass& pass) {
    return pass.tokens * (pass.tokens + 1) / 2 * operations.context;
  };
  // products · x + attention · y = seconds, twice.
  const double determinant = products(brief) * attention(longer) - products(longer) * attention(brief);
  double y = determinant == 0
                 ? 0
                 : (products(brief) * longer.seconds - products(longer) * brief.seconds) / determinant;
  y = std::max(0.0, y);
  double x = (brief.seconds - attention(brief) * y) / products(brief);
  if (x <= 0) {  // the longer pass was the faster one: no rate of attention explains that
    y = 0;
    x = brief.seconds / products(brief);
  }
  return {.token = operations.token * x, .context = operations.context * y, .scored = operations.scored * x};
}

}  // namespace qeval::eval
