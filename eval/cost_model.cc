#include "eval/cost_model.h"

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

}  // namespace qeval::eval
