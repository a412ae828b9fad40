#include "cli/inspect_compare.h"

#include <algorithm>
#include <iostream>

#include "cli/calibration_options.h"
#include "cli/progress.h"
#include "quant/arithmetic/integer/comparison.h"
#include "quant/arithmetic/prefix.h"
#include "quant/methods/mixed_precision.h"

namespace qeval::cli {

void add_inspect_compare_options(po::options_description& options) {
  options.add_options()(
      "compare", some_of("A,B", "fake, integer"),
      "fake,integer: difference between the integer operations and the simulated ones at each point, in "
      "quantization steps, both fed the same input from the calibration text, worst first");
}

void inspect_compare(const po::variables_map& arguments, const model::Model& model,
                     const quant::Samples& samples, const quant::Quantization& quantization) {
  size_t longest = 1;
  for (const auto& sample : samples) longest = std::max(longest, sample.size());
  const auto positions = static_cast<int64_t>(longest);
  // What integers compute at position 0 of a prefix, nobody uses; the operations are compared all the same.
  const auto first = quantization.prefix
                         ? std::optional(quant::prefix_grids_of_integers(quantization, model.config))
                         : quantization.first;
  const quant::FakeArithmetic fake(model, quantization.qcfg, quantization.ranges, positions, first);
  const quant::IntegerArithmetic integer(model, quantization.qcfg, quantization.known_ranges, positions,
                                         quant::kStreamGuardBits, first);
  Progress progress;
  const auto differences = quant::compare_operations(
      model, fake, integer, samples,
      [&](int64_t done, int64_t total) { progress.update("comparison", done, total); });
  progress.clear();

  const std::string pattern = optional<std::string>(arguments, "points").value_or("*");
  std::vector<std::pair<quant::Point, quant::StepDifference>> found;
  for (const quant::Point& point : quant::all_points(model.config)) {
    const quant::StepDifference& difference = differences[point];
    if (difference.values > 0 && quant::matches(pattern, quant::point_name(point))) {
      found.emplace_back(point, difference);
    }
  }
  if (found.empty()) {
    fail("{}: nothing is compared at {}; without --points all that is", model.path.string(),
         printable(pattern));
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.largest, a.second.mean()) > std::pair(b.second.largest, b.second.mean());
  });
  std::cout << fmt::format("{:<52} {:>8} {:>10} {:>11} {:>12}\n", "point, largest difference first",
                           "largest", "mean", "different", "values");
  for (const auto& [point, difference] : found) {
    std::cout << fmt::format(
        "{:<52} {:>8} {:>10.6f} {:>10.4f}% {:>12}\n", quant::point_name(point), difference.largest,
        difference.mean(),
        100.0 * static_cast<double>(difference.different) / static_cast<double>(difference.values),
        difference.values);
  }
}

}  // namespace qeval::cli
