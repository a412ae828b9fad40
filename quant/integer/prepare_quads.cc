#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/parallel.h"
#include "quant/integer/prepare.h"

namespace qeval::quant {
namespace {

constexpr int64_t kLanes = 2 * kPanel;  ///< 16-bit sums of an entry: two of each row
// Entries beyond those that the inputs need, as a share of them, that the layout may cost in memory.
constexpr double kMostOverflow = 0.2;
// Relative cost of an entry by group, as measured with AVX2: 96, 120 and 130 products a nanosecond.
constexpr std::array<std::pair<int32_t, double>, 3> kGroups{{{4, 1.0}, {2, 1.08}, {1, 1.35}}};

/// The entries of one panel.
struct QuadPanel {
  std::vector<int8_t> main, overflow;
  std::vector<int32_t> overflow_inputs;
};

/// One panel's code − zero point as [quads, kPanel, 4], zeros where there is no row or input.
std::vector<int32_t> centred_codes(const QuantizedMatrix& w, const IntegerMatrix& matrix, int64_t panel) {
  const int64_t quads = (w.cols + 3) / 4;
  std::vector<int32_t> codes(static_cast<size_t>(quads * kQuadEntry));
  const auto* stored = w.codes.as<int8_t>();
  for (int64_t j = 0; j < std::min(kPanel, w.rows - panel * kPanel); ++j) {
    const int64_t row = panel * kPanel + j;
    const int32_t zero_point = matrix.zero_points[static_cast<size_t>(row)];
    for (int64_t i = 0; i < w.cols; ++i) {
      codes[static_cast<size_t>(i / 4 * kQuadEntry + 4 * j + i % 4)] = stored[row * w.cols + i] - zero_point;
    }
  }
  return codes;
}

/// Moves as much of the quads' weights into new entries as their groups take.
void emit(std::span<const int64_t> quads, int32_t group, std::vector<int32_t>& rest,
          std::vector<int8_t>& entries, std::vector<int32_t>* inputs) {
  std::array<int32_t, kLanes> positive{};
  std::array<int32_t, kLanes> negative{};
  for (size_t e = 0; e < quads.size(); ++e) {
    if (e % static_cast<size_t>(group) == 0) {
      positive.fill(0);
      negative.fill(0);
    }
    int32_t* codes = rest.data() + quads[e] * kQuadEntry;
    std::array<int8_t, kQuadEntry> entry{};
    for (size_t first = 0; first < 2; ++first) {
      for (size_t lane = 0; lane < kLanes; ++lane) {  // without branches: vectors
        int32_t& code = codes[2 * lane + first];
        const int32_t above = std::min(std::min(std::max(code, 0), kLaneWeight - positive[lane]), 127);
        const int32_t below = std::max(std::min(code, 0), negative[lane] - kLaneWeight);
        positive[lane] += above;
        negative[lane] -= below;
        code -= above + below;
        entry[2 * lane + first] = static_cast<int8_t>(above + below);
      }
    }
    entries.insert(entries.end(), entry.begin(), entry.end());
    if (inputs != nullptr) inputs->push_back(static_cast<int32_t>(4 * quads[e]));
  }
  while (entries.size() % static_cast<size_t>(group * kQuadEntry) != 0) entries.push_back(0);
  while (inputs != nullptr && inputs->size() % static_cast<size_t>(group) != 0) inputs->push_back(0);
}

QuadPanel quad_panel(const QuantizedMatrix& w, const IntegerMatrix& matrix, int64_t panel, int32_t group) {
  QuadPanel out;
  std::vector<int32_t> rest = centred_codes(w, matrix, panel);
  std::vector<int64_t> quads;
  for (int64_t q = 0; q < (w.cols + 3) / 4; ++q) quads.push_back(q);
  emit(quads, group, rest, out.main, nullptr);
  for (;;) {
    std::vector<int64_t> left;
    for (const int64_t q : quads) {
      int32_t bits = 0;
      for (int64_t i = q * kQuadEntry; i < (q + 1) * kQuadEntry; ++i) bits |= rest[static_cast<size_t>(i)];
      if (bits != 0) left.push_back(q);
    }
    if (left.empty()) return out;
    emit(left, group, rest, out.overflow, &out.overflow_inputs);
  }
}

/// The group that costs least by a sample of the panels, if any is worth its memory.
std::optional<int32_t> choose_group(const QuantizedMatrix& w, const IntegerMatrix& matrix) {
  std::optional<int32_t> best;
  double least = 0;
  const int64_t panels = matrix.panel_count();
  for (const auto& [group, cost] : kGroups) {
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

bool pack_quads(const QuantizedMatrix& codes, IntegerMatrix& matrix) {
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
  matrix.layout = PanelLayout::quads;
  matrix.group = *group;
  for (int64_t q = 0; q < std::ssize(made[0].main) / kQuadEntry; ++q) {
    matrix.quad_inputs.push_back(4 * q < codes.cols ? static_cast<int32_t>(4 * q) : 0);
  }
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
