#include "eval/results/results.h"

#include "base/strict_json.h"
#include "eval/results/recompute.h"
#include "tests/fuzz/made_run.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {
namespace {

/// What is accepted as a sample must be written as it was read.
void copy_samples(std::string_view samples) {
  const std::string text = with_checksums(samples);
  accepted([&] {
    eval::for_each_line(text, "samples", eval::Tail::refuse, [&](const eval::TextLine& line) {
      accepted([&] {
        const std::string written = eval::to_line(eval::parse_line(line.text, line.where));
        if (eval::to_line(eval::parse_line(written, "written")) != written)
          defect("a sample changes when copied", written);
      });
    });
  });
}

}  // namespace

void results(Input input) {
  const auto [results, samples] = split(text_of(input));
  copy_samples(samples);
  if (!write_run("results", results, samples)) return;
  accepted([&] { (void)eval::recompute(scratch() / "results"); });
  accepted([&] {
    const std::string written = eval::to_json(eval::read_results(scratch() / "results")).dump();
    const auto same = eval::run_results_from_json(parse_ordered_json(written, "written"), "written");
    if (eval::to_json(same).dump() != written) defect("results.json changes when copied", written);
  });
}

}  // namespace qeval::fuzz
