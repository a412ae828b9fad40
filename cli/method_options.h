#pragma once

#include <optional>
#include <span>
#include <vector>

#include "cli/option_values.h"
#include "model/weights.h"
#include "quant/methods/quantize.h"

namespace qeval::cli {

/// --rotate, --rotate-keys, --rotate-block, --first-token.
void add_rotation_options(po::options_description& options);
/// Sets what they say of `options`, whose method is set; of method rotate and --preset near-lossless also
/// what these are where they say nothing: rotations online, ranges of their own for position 0, ranges of
/// least squared error, a grid for each output channel of the weights; of the preset GPTQ, no
/// smoothing and, with rotations online, that of queries and keys.
void read_rotation_options(const po::variables_map& arguments, quant::QuantizeOptions& options);
/// The token that --first-token prefix stands for, of the model's tokenizer: BOS, or EOS where there is none.
/// Nothing where another mode is asked for.
std::optional<int32_t> prefix_token_of(const po::variables_map& arguments, const model::Model& model);
/// Whether --preset near-lossless is that of this method.
bool is_near_lossless(const po::variables_map& arguments, quant::Method method);
/// Whether a rotation draws signs by --seed.
bool draws_signs(const po::variables_map& arguments);

/// Options that only some methods use (docs/commands.md): a UsageError names one that none of `methods` does,
/// and the methods that do. --alpha is refused, too, where --no-smooth leaves no smoothing for it.
void check_method_options(const po::variables_map& arguments, std::span<const quant::Method> methods);

/// Whether such an option was given, and the method uses it.
bool applies(const po::variables_map& arguments, const char* option, quant::Method method);

/// The value of such an option where it applies.
template <typename T>
std::optional<T> applied(const po::variables_map& arguments, const char* option, quant::Method method) {
  return applies(arguments, option, method) ? optional<T>(arguments, option) : std::nullopt;
}

/// The options of learning (cli/learn.h) that apply to the method.
std::vector<const char*> applied_learn_options(const po::variables_map& arguments, quant::Method method);

}  // namespace qeval::cli
