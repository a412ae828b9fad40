#include "quant/methods/rotate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "base/error.h"
#include "base/setting.h"
#include "model/hadamard.h"

namespace qeval::quant {
namespace {

using model::BlockGraph;
using model::HadamardMatrix;
using model::LinearOp;
using model::NormOp;
using model::Operation;
using model::Value;

constexpr std::array<std::string_view, 3> kRotationNames{"none", "offline", "online"};

/// R = H · diag(signs) / √order on blocks of a row.
class BlockRotation {
 public:
  BlockRotation(int64_t width, int64_t block, std::vector<int8_t> signs)
      : width_(width), matrix_(model::make_hadamard(block)), signs_(std::move(signs)) {}

  /// x [width] ← x · R.
  void apply(double* x) const {
    std::vector<double> scratch(static_cast<size_t>(matrix_.base_order));
    const double scale = 1 / std::sqrt(static_cast<double>(matrix_.order));
    for (int64_t c = 0; c < width_; c += matrix_.order)
      model::multiply_hadamard(matrix_, x + c, scratch.data());
    for (int64_t c = 0; c < width_; ++c) x[c] *= scale * signs_[static_cast<size_t>(c)];
  }
  int64_t width() const { return width_; }

 private:
  int64_t width_;
  HadamardMatrix matrix_;
  std::vector<int8_t> signs_;  ///< [width]
};

std::vector<int8_t> random_signs(int64_t count, std::mt19937_64& random) {
  std::vector<int8_t> signs(static_cast<size_t>(count));
  for (int8_t& sign : signs) sign = (random() & 1U) != 0 ? 1 : -1;
  return signs;
}

/// Calls body(x) for every row of `matrix` as doubles, and puts it back.
template <typename Body>
void change_rows(const EditableModel::Linear& matrix, const Body& body) {
  parallel_ranges(matrix.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<double> x(static_cast<size_t>(matrix.cols));
    for (int64_t r = first; r < last; ++r) {
      std::copy_n(matrix.row(r), matrix.cols, x.begin());
      body(x.data());
      std::transform(x.begin(), x.end(), matrix.row(r),
                     [](double value) { return static_cast<float>(value); });
    }
  });
}

/// The same for every column, the bias being one more.
template <typename Body>
void change_columns(const EditableModel::Linear& matrix, const Body& body) {
  parallel_ranges(matrix.cols, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<double> x(static_cast<size_t>(matrix.rows));
    for (int64_t c = first; c < last; ++c) {
      for (int64_t r = 0; r < matrix.rows; ++r) x[static_cast<size_t>(r)] = matrix.row(r)[c];
      body(x.data());
      for (int64_t r = 0; r < matrix.rows; ++r)
        matrix.row(r)[c] = static_cast<float>(x[static_cast<size_t>(r)]);
    }
  });
  if (matrix.bias.empty()) return;
  std::vector<double> x(matrix.bias.begin(), matrix.bias.end());
  body(x.data());
  std::transform(x.begin(), x.end(), matrix.bias.begin(),
                 [](double value) { return static_cast<float>(value); });
}

/// Every block of `width` channels of x [n] by `rotation`.
void apply_to_heads(const BlockRotation& rotation, double* x, int64_t n) {
  for (int64_t c = 0; c < n; c += rotation.width()) rotation.apply(x + c);
}

void subtract_mean(double* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  for (int64_t i = 0; i < n; ++i) x[i] -= sum / static_cast<double>(n);
}

// ---- what the graph allows

std::string no_matrix(int64_t channels) {
  return fmt::format("no Hadamard matrix divides {} channels", channels);
}

/// Why the residual stream cannot be rotated; empty where it can.
std::string residual_obstacle(const model::ModelConfig& config) {
  if (model::hadamard_order(config.hidden_size) == 1) return no_matrix(config.hidden_size);
  if (config.embedding_size != 0) return "the embedding is narrower than the model";
  if (!config.graph.final_norm) return "nothing stands between the last block and the head";
  for (int64_t i = 0; i < config.num_layers; ++i) {
    for (const Operation& operation : config.graph.block(i).operations) {
      const auto* norm = std::get_if<NormOp>(&operation);
      if (norm == nullptr) continue;
      if (norm->is_of_update()) {
        return fmt::format("{} and its weights stand between what it norms and the residual stream",
                           module_name(i, norm->module));
      }
      if (norm->out == Value::residual)
        return fmt::format("{} takes the place of the residual stream", module_name(i, norm->module));
    }
  }
  return "";
}

std::string value_obstacle(const BlockGraph& block, int64_t layer) {
  const int64_t width = block.attention().value_dim;
  if (model::hadamard_order(width) == 1) return no_matrix(width);
  if (block.find<model::SplitLatentOp>() != nullptr)
    return fmt::format("model.layers.{}: values are made together with keys (latent attention)", layer);
  for (const Operation& operation : block.operations) {
    const auto* norm = std::get_if<NormOp>(&operation);
    if (norm != nullptr && (norm->in == Value::v || norm->in == Value::mixed))
      return fmt::format("{} stands between v_proj and o_proj", module_name(layer, norm->module));
  }
  return "";
}

std::string value_obstacle(const model::ModelConfig& config) {
  for (int64_t i = 0; i < config.num_layers; ++i) {
    std::string obstacle = value_obstacle(config.graph.block(i), i);
    if (!obstacle.empty()) return obstacle;
  }
  return "";
}

std::string key_obstacle(const model::ModelConfig& config) {
  if (config.latent) return "queries and keys are made in parts (latent attention)";
  return model::hadamard_order(config.head_dim) == 1 ? no_matrix(config.head_dim) : "";
}

/// The first operation that rotations do not know; nullptr where there is none.
const Operation* unknown_operation(const model::ModelConfig& config) {
  const auto known = [](const Operation& operation) {
    if (const auto* linear = std::get_if<LinearOp>(&operation)) return linear->experts == 0;
    if (const auto* attention = std::get_if<model::AttentionOp>(&operation)) return attention->kv_from == 0;
    if (const auto* add = std::get_if<model::AddOp>(&operation)) return add->to == Value::residual;
    return std::holds_alternative<NormOp>(operation) || std::holds_alternative<model::RotateOp>(operation) ||
           std::holds_alternative<model::SplitLatentOp>(operation) ||
           std::holds_alternative<model::ActivateOp>(operation) ||
           std::holds_alternative<model::MultiplyOp>(operation) ||
           std::holds_alternative<model::HadamardOp>(operation);
  };
  for (const BlockGraph& block : config.graph.blocks) {
    const auto found = std::ranges::find_if_not(block.operations, known);
    if (found != block.operations.end()) return &*found;
  }
  return nullptr;
}

// ---- R1

class ResidualRotation {
 public:
  ResidualRotation(EditableModel& model, std::mt19937_64& random)
      : model_(model),
        config_(model.config()),
        rotation_(config_.hidden_size, model::hadamard_order(config_.hidden_size),
                  random_signs(config_.hidden_size, random)),
        centers_(config_.norm == model::NormKind::layer) {}

  void run() {
    model_.edit_ends();
    for (int64_t i = 0; i < config_.num_layers; ++i) block(i);
    fold(model_.final_norm(), {model_.head()});
    read(model_.head());
    const auto rows = [&](double* x) { write(x); };
    change_rows(model_.embedding(), rows);
    if (model_.model().positions.rows > 0) change_rows(model_.positions(), rows);
    config_.tie_word_embeddings = false;
  }

 private:
  /// A row of the stream as the rotated model has it.
  void write(double* x) const {
    if (centers_) subtract_mean(x, rotation_.width());
    rotation_.apply(x);
  }
  void read(const EditableModel::Linear& linear) const {
    change_rows(linear, [&](double* x) { rotation_.apply(x); });
  }

  void block(int64_t layer) {
    const std::vector<Operation> operations = config_.graph.block(layer).operations;
    for (size_t i = 0; i < operations.size(); ++i) {
      if (const auto* norm = std::get_if<NormOp>(&operations[i]);
          norm != nullptr && norm->in == Value::residual) {
        std::vector<EditableModel::Linear> readers;
        for (size_t j = i + 1; j < operations.size(); ++j) {
          const auto* linear = std::get_if<LinearOp>(&operations[j]);
          if (linear != nullptr && linear->in == norm->out)
            readers.push_back(reader(layer, *linear, norm->bias));
          if (accesses(operations[j]).writes == norm->out) break;
        }
        fold(model_.norm(layer, norm->module), readers);
        for (const EditableModel::Linear& linear : readers) read(linear);
      } else if (const auto* linear = std::get_if<LinearOp>(&operations[i])) {
        const bool update = linear->out == Value::update || linear->out == Value::mlp_update;
        if (linear->in == Value::residual) read(model_.linear(layer, linear->module));
        if (!update) continue;
        const EditableModel::Linear own = model_.linear(layer, linear->module);
        // The family's settings have one switch for all biases of an MLP.
        if (centers_ && config_.norm_bias && linear->module == Module::down && own.bias.empty())
          own.bias.resize(static_cast<size_t>(own.rows), 0.0F);
        change_columns(own, [&](double* x) { write(x); });
      }
    }
  }

  EditableModel::Linear reader(int64_t layer, const LinearOp& op, bool biased) {
    const EditableModel::Linear linear = model_.linear(layer, op.module);
    if (biased && linear.bias.empty()) linear.bias.resize(static_cast<size_t>(linear.rows), 0.0F);
    return linear;
  }

  /// The norm's weights and bias into what reads it.
  static void fold(model::NormWeights& norm, const std::vector<EditableModel::Linear>& readers) {
    for (const EditableModel::Linear& linear : readers) {
      if (!norm.bias.empty() && linear.bias.empty())
        linear.bias.resize(static_cast<size_t>(linear.rows), 0.0F);
      for (int64_t r = 0; r < linear.rows; ++r) {
        float* row = linear.row(r);
        double moved = 0;
        for (int64_t c = 0; c < linear.cols; ++c) {
          if (!norm.bias.empty())
            moved += static_cast<double>(row[c]) * static_cast<double>(norm.bias[static_cast<size_t>(c)]);
          row[c] *= norm.weight[static_cast<size_t>(c)];
        }
        if (!norm.bias.empty()) linear.bias[static_cast<size_t>(r)] += static_cast<float>(moved);
      }
    }
    std::ranges::fill(norm.weight, 1.0F);
    norm.bias.clear();
  }

  EditableModel& model_;
  model::ModelConfig& config_;
  BlockRotation rotation_;
  bool centers_;
};

// ---- R2, R4

void rotate_values(EditableModel& model, std::mt19937_64& random) {
  const model::ModelConfig& config = model.model().config;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const int64_t width = config.graph.block(i).attention().value_dim;
    const BlockRotation rotation(width, model::hadamard_order(width), random_signs(width, random));
    const EditableModel::Linear v = model.linear(i, Module::v), o = model.linear(i, Module::o);
    change_columns(v, [&](double* x) { apply_to_heads(rotation, x, v.rows); });
    change_rows(o, [&](double* x) { apply_to_heads(rotation, x, o.cols); });
  }
}

/// The down projections behind HadamardOp, which has no signs: its inverse is itself.
void absorb_down(EditableModel& model, int64_t block) {
  const model::ModelConfig& config = model.model().config;
  const int64_t width = config.intermediate_size;
  const BlockRotation rotation(width, block, std::vector<int8_t>(static_cast<size_t>(width), 1));
  for (int64_t i = 0; i < config.num_layers; ++i)
    change_rows(model.linear(i, Module::down), [&](double* x) { rotation.apply(x); });
}

int64_t down_block(const model::ModelConfig& config, int64_t wanted) {
  const int64_t width = config.intermediate_size;
  if (wanted == 0) return model::hadamard_order(width);
  if (width % wanted != 0 || !model::has_hadamard(wanted)) {
    fail(
        "{} {}: accepted: the order of a Hadamard matrix (a power of two, or 12, 20, 24, 28 … times one) "
        "that "
        "divides the {} channels in front of the down projection",
        setting("rotate-block"), wanted, width);
  }
  return wanted;
}

}  // namespace

RotationKind parse_rotation_kind(std::string_view name) {
  for (size_t i = 0; i < kRotationNames.size(); ++i) {
    if (kRotationNames[i] == name) return static_cast<RotationKind>(i);
  }
  fail("{}: unknown rotation; accepted: {}", printable(name), kRotationKinds);
}

std::string_view name(RotationKind kind) {
  return kRotationNames[static_cast<size_t>(kind)];
}

void require_rotatable(const model::ModelConfig& config) {
  if (const Operation* operation = unknown_operation(config)) {
    fail("{}: {} model: {}: no rotation goes through it yet; accepted: none", setting("rotate"),
         config.architecture, operation_name(*operation));
  }
}

RotationResult rotate(EditableModel& model, const RotationOptions& options) {
  RotationResult result;
  model::ModelConfig& config = model.config();
  if (config.rotation) fail("{}: is rotated already; accepted: a model that is not", config.architecture);
  require_rotatable(config);
  model::Rotation rotation{.seed = options.seed};
  std::mt19937_64 random(options.seed);
  const auto allowed = [&](const char* what, const std::string& obstacle) {
    if (!obstacle.empty()) result.left_out.push_back(fmt::format("{} left out: {}", what, obstacle));
    return obstacle.empty();
  };
  const bool offline = options.kind != RotationKind::none;
  if (offline) {
    rotation.residual = allowed("rotation of the residual stream (R1)", residual_obstacle(config));
    rotation.values = allowed("rotation of the values (R2)", value_obstacle(config));
  }
  if (options.kind == RotationKind::online) {
    const int64_t block = down_block(config, options.block);
    const std::string obstacle = block == 1 ? no_matrix(config.intermediate_size) : "";
    if (allowed("rotation in front of the down projection (R4)", obstacle)) rotation.down_block = block;
  }
  if (options.keys && allowed("rotation of queries and keys (R3)", key_obstacle(config)))
    rotation.query_key_block = model::hadamard_order(config.head_dim);
  if (!rotation.residual && !rotation.values && rotation.down_block == 0 && rotation.query_key_block == 0) {
    std::string reasons;
    for (const std::string& reason : result.left_out) reasons += (reasons.empty() ? "" : "; ") + reason;
    fail("{} {}: {} model: {}; accepted: none", setting("rotate"), name(options.kind), config.architecture,
         reasons);
  }
  if (rotation.residual) ResidualRotation(model, random).run();
  if (rotation.values) rotate_values(model, random);
  if (rotation.down_block != 0) absorb_down(model, rotation.down_block);
  config.rotation = rotation;
  model::apply_rotation(config);
  config.graph = make_graph(config);
  return result;
}

}  // namespace qeval::quant
