#pragma once

#include <filesystem>
#include <string>

#include "quant/methods/learn/learn.h"

namespace qeval::quant {

/// Saves a run's state atomically. Layout, little-endian: "QEVALRUN", u64 length of a JSON header
/// {"fingerprint", "step", "optimizer_steps", "moments"}, the header, then float32: all parameters of all
/// blocks in a fixed order, then first and second moments. `fingerprint` names everything that a continued
/// run must share: settings, weights, calibration.
void save_state(const std::filesystem::path& file, const LearnState& state, const std::string& fingerprint);

/// Reads it back into `state`, the starting state of the same run, whose sizes it must have. Errors name the
/// file: damaged, or of a run with another fingerprint.
void load_state(const std::filesystem::path& file, const std::string& fingerprint, LearnState& state);

/// The steps that the saved run has done. Errors as above, but for the fingerprint.
int64_t saved_steps(const std::filesystem::path& file);

}  // namespace qeval::quant
