#pragma once

#include <optional>
#include <span>
#include <vector>

#include "cli/option_values.h"
#include "quant/methods/quantize.h"

namespace qeval::cli {

/// Options that only some methods use (DESIGN §3): a UsageError names one that none of `methods` does, and
/// the methods that do. --alpha is refused, too, where --no-smooth leaves no smoothing for it.
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
