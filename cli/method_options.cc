#include "cli/method_options.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "base/error.h"
#include "model/tokenizer/tokenizer.h"
#include "quant/methods/learn/preset.h"
#include "quant/quantize_run.h"

namespace qeval::cli {
namespace {

using quant::Method;

constexpr std::array kSmoothing{Method::smoothquant, Method::omniquant, Method::lrl, Method::mobilequant};
constexpr std::array kLearned{Method::omniquant, Method::lrl, Method::mobilequant};
constexpr std::array kRangesLearned{Method::lrl, Method::mobilequant};
constexpr std::array kEndToEnd{Method::mobilequant};
constexpr std::array kAny{Method::rtn, Method::smoothquant, Method::omniquant,
                          Method::lrl, Method::mobilequant, Method::rotate};

struct MethodOption {
  const char* name;
  std::span<const Method> used_by;
  bool of_learning = true;  ///< add_learn_options has it
};

constexpr std::array kOptions{
    MethodOption{"variant", kSmoothing, false}, MethodOption{"alpha", kSmoothing, false},
    MethodOption{"rotate", kAny, false},        MethodOption{"rotate-keys", kAny, false},
    MethodOption{"rotate-block", kAny, false},  MethodOption{"first-token", kAny, false},
    MethodOption{"resume", kLearned, false},    MethodOption{"gradients-only", kEndToEnd, false},
    MethodOption{"preset", kLearned},           MethodOption{"loss", kEndToEnd},
    MethodOption{"epochs", kLearned},           MethodOption{"batch-size", kLearned},
    MethodOption{"warmup-epochs", kLearned},    MethodOption{"let-lr", kLearned},
    MethodOption{"let-min-lr", kLearned},       MethodOption{"lwc-lr", kLearned},
    MethodOption{"lwc-min-lr", kLearned},       MethodOption{"lrl-lr", kRangesLearned},
    MethodOption{"lrl-min-lr", kRangesLearned}, MethodOption{"lrl-relative", kRangesLearned},
    MethodOption{"code-lr", kEndToEnd},         MethodOption{"code-min-lr", kEndToEnd},
    MethodOption{"no-smooth", kLearned},        MethodOption{"round-first", kEndToEnd},
    MethodOption{"save-minutes", kLearned},     MethodOption{"activation-memory", kEndToEnd}};

bool contains(std::span<const Method> methods, Method method) {
  return std::ranges::find(methods, method) != methods.end();
}

std::string listed(std::span<const Method> methods) {
  std::string out;
  for (const Method method : methods) out += (out.empty() ? "" : ", ") + std::string(quant::name(method));
  return out;
}

/// The methods that use the option with the value it was given: not every method has every preset.
std::vector<Method> users(const po::variables_map& arguments, const MethodOption& option) {
  std::vector<Method> out(option.used_by.begin(), option.used_by.end());
  if (std::string_view(option.name) == "preset") {
    std::erase_if(out, [&](Method method) {
      return !quant::has_preset(arguments["preset"].as<std::string>(), *quant::learn_method(method));
    });
  }
  return out;
}

}  // namespace

void add_rotation_options(po::options_description& options) {
  auto add = options.add_options();
  add("rotate", one_of("KIND", quant::kRotationKinds),
      "rotations by Hadamard matrices: none (default), offline (of the residual stream and the values, "
      "folded "
      "into the weights), online (also in front of the down projection, as an operation of the model)");
  add("rotate-keys", "rotate queries and keys after the rotary embedding, also an operation of the model");
  add("rotate-block", po::value<int64_t>()->value_name("N"),
      "channels of a block of the online rotation (default: all, where there is a Hadamard matrix of that "
      "order)");
  add("first-token", po::value<std::string>()->value_name("MODE"),
      "position 0: shared (default), ranges (its own 16-bit ranges; all others are measured without it) or "
      "prefix (every sequence begins with BOS, whose keys and values are constants of the checkpoint)");
}

void read_rotation_options(const po::variables_map& arguments, quant::QuantizeOptions& options) {
  const bool near_lossless = is_near_lossless(arguments, options.method);
  const bool method = options.method == Method::rotate || near_lossless;
  quant::RotationOptions& rotation = options.rotation;
  rotation.kind = quant::parse_rotation_kind(
      optional<std::string>(arguments, "rotate").value_or(method ? "online" : "none"));
  rotation.keys =
      given(arguments, "rotate-keys") || (near_lossless && rotation.kind == quant::RotationKind::online);
  if (const auto block = optional<int64_t>(arguments, "rotate-block")) {
    if (rotation.kind != quant::RotationKind::online)
      refuse("rotate-block", "not used without --rotate online");
    rotation.block = in_range<int64_t>("rotate-block", *block, 2, int64_t{1} << 20);
  }
  if (draws_signs(arguments)) rotation.seed = optional<uint64_t>(arguments, "seed").value_or(0);
  // Ranges of position 0 are for activations that have static ones.
  const bool ranges = options.scheme.activation_bits <= 16 && !options.scheme.dynamic_activations;
  options.calibration.first_token_apart =
      quant::parse_first_token(
          optional<std::string>(arguments, "first-token").value_or(method && ranges ? "ranges" : "shared")) !=
      quant::FirstTokenMode::shared;
  if (!method) return;
  if (!given(arguments, "range")) options.calibration.estimator = quant::RangeEstimator::mse;
  options.scheme.weight.per_channel = true;
  if (!near_lossless) return;
  options.smooth = false;
  options.rounding = quant::Rounding::gptq;
}

std::optional<int32_t> prefix_token_of(const po::variables_map& arguments, const model::Model& model) {
  const auto mode = optional<std::string>(arguments, "first-token");
  if (!mode || quant::parse_first_token(*mode) != quant::FirstTokenMode::prefix) return std::nullopt;
  const auto tokenizer = model::load_tokenizer(model.path, model.config.vocab_size);
  const auto token = tokenizer->bos_id() ? tokenizer->bos_id() : tokenizer->eos_id();
  if (!token)
    refuse("first-token",
           "prefix: the tokenizer names neither a BOS nor an EOS token, which every sequence "
           "would begin with; accepted: shared, ranges");
  return token;
}

bool is_near_lossless(const po::variables_map& arguments, Method method) {
  return method == Method::mobilequant && optional<std::string>(arguments, "preset") == quant::kNearLossless;
}

bool draws_signs(const po::variables_map& arguments) {
  if (given(arguments, "rotate") || given(arguments, "rotate-keys") ||
      optional<std::string>(arguments, "preset") == quant::kNearLossless)
    return true;
  const auto names = [&](const char* option) {
    if (arguments.count(option) == 0) return false;
    const std::vector<std::string> methods = split_list(arguments[option].as<std::string>());
    return std::ranges::find(methods, quant::name(Method::rotate)) != methods.end();
  };
  return names("method") || names("methods");
}

void check_method_options(const po::variables_map& arguments, std::span<const Method> methods) {
  for (const MethodOption& option : kOptions) {
    if (!given(arguments, option.name)) continue;
    const std::vector<Method> used_by = users(arguments, option);
    if (std::ranges::any_of(methods, [&](Method method) { return contains(used_by, method); })) continue;
    refuse(option.name, fmt::format("not used by method{} {}; used by {}", methods.size() > 1 ? "s" : "",
                                    listed(methods), listed(used_by)));
  }
  if (given(arguments, "alpha") && given(arguments, "no-smooth") && !contains(methods, Method::smoothquant))
    refuse("alpha", "not used with --no-smooth, which leaves the smoothing out");
  for (const char* option : {"variant", "alpha"}) {
    if (given(arguments, option) && is_near_lossless(arguments, Method::mobilequant) &&
        !contains(methods, Method::smoothquant))
      refuse(option, "not used with --preset near-lossless, which does not smooth");
  }
}

bool applies(const po::variables_map& arguments, const char* option, Method method) {
  const auto* found = std::ranges::find_if(
      kOptions, [&](const MethodOption& o) { return std::string_view(o.name) == option; });
  assert(found != kOptions.end());
  return given(arguments, option) && contains(users(arguments, *found), method);
}

std::vector<const char*> applied_learn_options(const po::variables_map& arguments, Method method) {
  std::vector<const char*> names;
  for (const MethodOption& option : kOptions) {
    if (option.of_learning && applies(arguments, option.name, method)) names.push_back(option.name);
  }
  return names;
}

}  // namespace qeval::cli
