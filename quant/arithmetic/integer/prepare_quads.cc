#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>

#include "base/parallel.h"
#include "quant/arithmetic/integer/prepare.h"

namespace qeval::quant {
namespace {

constexpr int64_t kLanes = 2 * kPanel;  ///< 16-bit sums of an entry: two of each row
// Entries beyond those that the inputs need, as a share of them, that the layout may cost in memory.
constexpr double kMostOverflow = 0.2;
// Relative cost of an entry by group, as measured with AVX2: 96, 120 and 130 products a nanosecond.
constexpr std::array<std::pair<int32_t, double>, 3> kGroupCosts{{{4, 1.0}, {2, 1.08}, {1, 1.35}}};

/// The entries of one panel.
struct QuadPanel {
  std::vector<int8_t> main, overflow;
  std::vector<int32_t> overflow_inputs;
};

/// What is left to be laid out of four inputs' codes, less their zero points: by 16-bit lane of the product,
/// the first and the second of the two that it adds up. 16 bits, so that the compiler's vectors are the
/// widest.
struct Quad {
  std::array<int16_t, kLanes> first{}, second{};
};

/// One panel's quads; zeros where there is no row or input.
std::vector<Quad> centred_codes(const QuantizedMatrix& w, const IntegerMatrix& matrix, int64_t panel) {
  std::vector<Quad> quads(static_cast<size_t>((w.cols + 3) / 4));
  const int64_t rows = std::min(kPanel, w.rows - panel * kPanel);
  std::array<int16_t, kLanes> zero_points{};
  for (int64_t lane = 0; lane < 2 * rows; ++lane) {
    const auto row = static_cast<size_t>(panel * kPanel + lane / 2);
    zero_points[static_cast<size_t>(lane)] = static_cast<int16_t>(matrix.zero_points[row]);
  }
  const auto* stored = w.codes.as<int8_t>() + panel * kPanel * w.cols;
  for (size_t q = 0; q < quads.size(); ++q) {
    const int64_t input = 4 * static_cast<int64_t>(q);
    const int64_t inputs = std::min<int64_t>(4, w.cols - input);
    std::array<int8_t, kQuadEntry> codes{};
    for (int64_t j = 0; j < rows; ++j) {
      std::memcpy(codes.data() + 4 * j, stored + j * w.cols + input, static_cast<size_t>(inputs));
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
      quads[q].first[lane] = static_cast<int16_t>(codes[2 * lane] - zero_points[lane]);
      quads[q].second[lane] = static_cast<int16_t>(codes[2 * lane + 1] - zero_points[lane]);
    }
    if (inputs == 4) continue;
    for (int64_t lane = 0; lane < 2 * rows; ++lane) {
      const auto at = static_cast<size_t>(lane);
      if (2 * (lane % 2) >= inputs) quads[q].first[at] = 0;
      if (2 * (lane % 2) + 1 >= inputs) quads[q].second[at] = 0;
    }
  }
  return quads;
}

/// The weights that a group's lanes have added up so far.
struct LaneWeights {
  std::array<int16_t, kLanes> positive{}, negative{};
};

/// Moves as much of the codes into `taken` as the lanes have room for; without branches, for vectors.
void take_lane_codes(std::array<int16_t, kLanes>& codes, LaneWeights& lanes,
                     std::array<int16_t, kLanes>& taken) {
  constexpr auto kMost = static_cast<int16_t>(kLaneWeight);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const int16_t code = codes[lane];
    const auto room = static_cast<int16_t>(kMost - lanes.positive[lane]);
    const auto depth = static_cast<int16_t>(lanes.negative[lane] - kMost);
    const int16_t above = std::min(std::min(std::max(code, int16_t{0}), room), int16_t{127});
    const int16_t below = std::max(std::min(code, int16_t{0}), depth);
    lanes.positive[lane] = static_cast<int16_t>(lanes.positive[lane] + above);
    lanes.negative[lane] = static_cast<int16_t>(lanes.negative[lane] - below);
    taken[lane] = static_cast<int16_t>(above + below);
    codes[lane] = static_cast<int16_t>(code - taken[lane]);
  }
}

bool anything_left(const Quad& quad) {
  int16_t bits = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    bits = static_cast<int16_t>(bits | quad.first[lane] | quad.second[lane]);
  }
  return bits != 0;
}

/// Moves as much of the quads' weights into new entries as their groups take.
void emit(std::span<const int64_t> quads, int32_t group, std::vector<Quad>& rest,
          std::vector<int8_t>& entries, std::vector<int32_t>* inputs) {
  const auto whole = (quads.size() + static_cast<size_t>(group) - 1) / static_cast<size_t>(group) *
                     static_cast<size_t>(group);
  const size_t begin = entries.size();
  entries.resize(begin + whole * kQuadEntry);
  LaneWeights lanes;
  for (size_t e = 0; e < quads.size(); ++e) {
    if (e % static_cast<size_t>(group) == 0) lanes = {};
    Quad& quad = rest[static_cast<size_t>(quads[e])];
    std::array<int16_t, kLanes> first, second;
    take_lane_codes(quad.first, lanes, first);
    take_lane_codes(quad.second, lanes, second);
    std::array<uint16_t, kLanes> pairs;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      pairs[lane] = static_cast<uint16_t>((first[lane] & 0xFF) | static_cast<uint16_t>(second[lane]) << 8);
    }
    std::memcpy(entries.data() + begin + e * kQuadEntry, pairs.data(), kQuadEntry);
    if (inputs != nullptr) inputs->push_back(static_cast<int32_t>(4 * quads[e]));
  }
  if (inputs != nullptr) inputs->resize(inputs->size() + whole - quads.size(), 0);
}

QuadPanel quad_panel(const QuantizedMatrix& w, const IntegerMatrix& matrix, int64_t panel, int32_t group) {
  QuadPanel out;
  std::vector<Quad> rest = centred_codes(w, matrix, panel);
  std::vector<int64_t> quads(rest.size());
  std::iota(quads.begin(), quads.end(), 0);
  emit(quads, group, rest, out.main, nullptr);
  for (;;) {
    std::erase_if(quads, [&](int64_t q) { return !anything_left(rest[static_cast<size_t>(q)]); });
    if (quads.empty()) return out;
    emit(quads, group, rest, out.overflow, &out.overflow_inputs);
  }
}

/// The group that costs least by a sample of the panels, if any is worth its memory.
std::optional<int32_t> choose_group(const QuantizedMatrix& w, const IntegerMatrix& matrix) {
  std::optional<int32_t> best;
  double least = 0;
  const int64_t panels = matrix.panel_count();
  for (const auto& [group, cost] : kGroupCosts) {
    double entries = 0;
    double needed = 0;
    for (int64_t p = 0; p < panels; p += std::max<int64_t>(1, panels / 3)) {
      const QuadPanel panel = quad_panel(w, matrix, p, group);
      needed += static_cast<double>(panel.main.size());
      entries += static_cast<double>(panel.main.size() + panel.overflow.size());
    }
    if (matrix.storage == WeightStorage::int4 && entries > needed) continue;
    if (entries > (1 + kMostOverflow) * needed) continue;
    if (!best || entries * cost < least) {
      best = group;
      least = entries * cost;
    }
    // No other group needs fewer entries than the inputs do.
    if (least <= needed * kGroupCosts[1].second) return best;
  }
  return best;
}

void store_panel(const IntegerMatrix& matrix, const QuadPanel& panel, int64_t p, std::byte* out) {
  if (matrix.storage == WeightStorage::int8) {
    std::memcpy(out, panel.main.data(), panel.main.size());
    return;
  }
  // Codes fit four bits with their zero points on.
  const auto nibble = [&](size_t at) {
    const int64_t row = p * kPanel + static_cast<int64_t>(at) / 4 % kPanel;
    return static_cast<uint32_t>(panel.main[at] + matrix.zero_points[static_cast<size_t>(row)] + 8) & 15;
  };
  for (size_t i = 0; i < panel.main.size() / 2; ++i) {
    const size_t at = i / 16 * 32 + i % 16;
    out[i] = static_cast<std::byte>(nibble(at) | nibble(at + 16) << 4);
  }
}

}  // namespace

bool pack_grouped_quads(const QuantizedMatrix& codes, IntegerMatrix& matrix) {
  // A zero point further out leaves codes that take several entries each.
  for (const int32_t zero_point : matrix.zero_points) {
    if (std::abs(zero_point) > 255) return false;
  }
  const std::optional<int32_t> group = choose_group(codes, matrix);
  if (!group) return false;
  const int64_t panels = matrix.panel_count();
  std::vector<QuadPanel> made(static_cast<size_t>(panels));
  parallel_ranges(panels, 1, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      made[static_cast<size_t>(p)] = quad_panel(codes, matrix, p, *group);
    }
  });
  if (matrix.storage == WeightStorage::int4 &&
      std::any_of(made.begin(), made.end(), [](const QuadPanel& p) { return !p.overflow.empty(); })) {
    return false;
  }
  matrix.layout = PanelLayout::grouped_quads;
  matrix.group = *group;
  matrix.entries = std::ssize(made[0].main) / kQuadEntry;
  matrix.panels.resize(static_cast<size_t>(panels * matrix.panel_bytes()));
  std::vector<int8_t> overflow;
  matrix.overflow_first.push_back(0);
  for (int64_t p = 0; p < panels; ++p) {
    const QuadPanel& panel = made[static_cast<size_t>(p)];
    store_panel(matrix, panel, p, matrix.panels.data() + p * matrix.panel_bytes());
    overflow.insert(overflow.end(), panel.overflow.begin(), panel.overflow.end());
    matrix.overflow_inputs.insert(matrix.overflow_inputs.end(), panel.overflow_inputs.begin(),
                                  panel.overflow_inputs.end());
    matrix.overflow_first.push_back(std::ssize(matrix.overflow_inputs));
  }
  matrix.overflow.resize(overflow.size());
  if (!overflow.empty()) std::memcpy(matrix.overflow.data(), overflow.data(), overflow.size());
  return true;
}

}  // namespace qeval::quant
