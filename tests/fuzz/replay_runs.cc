// The targets that read quantizations, tasks, requests and results: fuzz_replay_runs.
#include <array>

#include "tests/fuzz/targets.h"

namespace qeval::fuzz {

std::span<const Target> targets() {
  static constexpr std::array<Target, 8> kTargets{{
      {"quantization", quantization},
      {"task_rows", task_rows},
      {"user_task", user_task},
      {"results", results},
      {"run_files", run_files},
      {"report", report},
      {"score_request", score_request},
      {"serve_request", serve_request},
  }};
  return kTargets;
}

}  // namespace qeval::fuzz
