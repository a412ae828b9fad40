#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {
namespace {

WeightStorage storage_for(int bits) {
  return bits <= 4 ? WeightStorage::int4 : bits <= 8 ? WeightStorage::int8 : WeightStorage::int16;
}

int32_t code_at(const QuantizedMatrix& w, int64_t row, int64_t col) {
  const int64_t at = row * w.cols + col;
  return w.wide() ? w.codes.as<int16_t>()[at] : w.codes.as<int8_t>()[at];
}

/// One panel's codes in the order of the products, NEIGHBOURS inputs of a row side by side; zeros where there
/// is no row or input.
template <int64_t NEIGHBOURS, typename Code>
void fill_panel(const QuantizedMatrix& w, int64_t panel, Code* out) {
  const int64_t whole = w.cols / NEIGHBOURS * NEIGHBOURS;
  std::fill_n(out, (w.cols + NEIGHBOURS - 1) / NEIGHBOURS * NEIGHBOURS * kPanel, Code{0});
  for (int64_t j = 0; j < std::min(kPanel, w.rows - panel * kPanel); ++j) {
    const Code* row = w.codes.as<Code>() + (panel * kPanel + j) * w.cols;
    Code* to = out + NEIGHBOURS * j;
    for (int64_t i = 0; i < whole; i += NEIGHBOURS) {
      std::memcpy(to + i * kPanel, row + i, NEIGHBOURS * sizeof(Code));
    }
    for (int64_t i = whole; i < w.cols; ++i) to[whole * kPanel + i - whole] = row[i];
  }
}

template <typename Code>
void fill_panel(const QuantizedMatrix& w, int64_t panel, PanelLayout layout, Code* out) {
  if (layout == PanelLayout::pairs) {
    fill_panel<2>(w, panel, out);
  } else {
    fill_panel<4>(w, panel, out);
  }
}

void pack(const QuantizedMatrix& codes, IntegerMatrix& matrix) {
  matrix.panels.resize(static_cast<size_t>(matrix.panel_count() * matrix.panel_bytes()));
  parallel_ranges(matrix.panel_count(), 1, [&](int64_t first, int64_t last) {
    std::vector<int8_t> wide(
        static_cast<size_t>(matrix.storage == WeightStorage::int4 ? matrix.panel_codes() : 0));
    for (int64_t p = first; p < last; ++p) {
      std::byte* out = matrix.panels.data() + p * matrix.panel_bytes();
      if (matrix.storage == WeightStorage::int16) {
        fill_panel(codes, p, matrix.layout, reinterpret_cast<int16_t*>(out));
      } else if (matrix.storage == WeightStorage::int8) {
        fill_panel(codes, p, matrix.layout, reinterpret_cast<int8_t*>(out));
      } else {
        fill_panel(codes, p, matrix.layout, wide.data());
        for (int64_t i = 0; i < matrix.panel_bytes(); ++i) {
          const auto at = static_cast<size_t>(i / 16 * 32 + i % 16);
          out[i] = static_cast<std::byte>((wide[at] + 8) | (wide[at + 16] + 8) << 4);
        }
      }
    }
  });
}

/// What the factors of a matrix follow from, of each row: the largest accumulator, what its unit is worth,
/// and the bias in that unit, fractions included.
struct RowUnits {
  std::vector<double> bounds, scales, biases;
};

/// The weight's codes, where integers can multiply them.
QuantizedMatrix multiplied_codes(const model::LinearWeights& weights, const QuantSpec& spec) {
  const std::string& name = weights.weight.name;
  if (!spec.enabled()) {
    fail("{}.weight: left in float; integer arithmetic accepts 2 to 16 bits", name);
  }
  if (weights.weight.cols > 65536) {
    fail("{}: {} inputs; integer arithmetic accepts at most 65536", name, weights.weight.cols);
  }
  return quantized_weight(weights.weight, spec);
}

bool is_grouped(const QuantizedMatrix& codes) {
  return !codes.per_tensor && codes.group < codes.cols;
}

/// Everything but the factors, the bias and the panels, of a map whose outputs have one grid each.
IntegerMatrix integer_matrix(const std::string& name, const std::vector<float>& bias,
                             const QuantizedMatrix& codes, const PointGrid& input, RowUnits& units) {
  IntegerMatrix matrix;
  matrix.rows = codes.rows;
  matrix.cols = codes.cols;
  matrix.storage = storage_for(codes.spec.bits);
  matrix.narrow_input = input.codes.narrow();
  const auto padded = static_cast<size_t>(matrix.panel_count() * kPanel);
  matrix.constant.resize(padded);
  matrix.zero_points.resize(padded);
  matrix.factors.resize(padded);
  for (std::vector<double>* values : {&units.bounds, &units.scales, &units.biases})
    values->assign(static_cast<size_t>(matrix.rows), 0);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const auto row = static_cast<size_t>(r);
    const auto grid = static_cast<size_t>(codes.grid_index(r, 0));
    const int64_t zero_point = codes.zero_points[grid];
    if (std::abs(zero_point) > kFarthestZeroPoint) {
      fail(
          "{}.weight: row {}: its values lie too far from 0 for their spread; integer arithmetic accepts a "
          "zero "
          "point of at most 2^23",
          name, r);
    }
    int64_t sum = 0;
    int64_t reach = 0;
    for (int64_t i = 0; i < matrix.cols; ++i) {
      const int64_t code = code_at(codes, r, i);
      sum += code;
      reach += std::abs(code - zero_point);
    }
    units.scales[row] = input.scale() * static_cast<double>(codes.scales[grid]);
    if (!bias.empty()) {
      units.biases[row] = static_cast<double>(bias[row]) / units.scales[row];
      if (!(std::abs(units.biases[row]) < 0x1p60)) {
        fail("{}.bias: element {} is {}: outside what 64-bit sums hold at this scale", name, r, bias[row]);
      }
    }
    const int64_t input_zero = input.codes.zero_point;
    matrix.constant[row] = matrix.cols * input_zero * zero_point - input_zero * sum;
    matrix.zero_points[row] = static_cast<int32_t>(zero_point);
    matrix.has_zero_points = matrix.has_zero_points || zero_point != 0;
    units.bounds[row] = static_cast<double>(input.reach()) * static_cast<double>(reach) +
                        std::ceil(std::abs(units.biases[row]));
  }
  return matrix;
}

/// Group g of the inputs.
QuantizedMatrix group_codes(const QuantizedMatrix& codes, int64_t g) {
  const int64_t groups = codes.cols / codes.group, size = codes.wide() ? 2 : 1;
  QuantizedMatrix part;
  part.spec = codes.spec;
  part.rows = codes.rows;
  part.cols = part.group = codes.group;
  part.per_tensor = false;
  part.codes.resize(static_cast<size_t>(part.byte_count()));
  for (int64_t r = 0; r < codes.rows; ++r) {
    std::memcpy(part.codes.data() + r * part.cols * size,
                codes.codes.data() + (r * codes.cols + g * codes.group) * size,
                static_cast<size_t>(part.cols * size));
    part.scales.push_back(codes.scales[static_cast<size_t>(r * groups + g)]);
    part.zero_points.push_back(codes.zero_points[static_cast<size_t>(r * groups + g)]);
  }
  return part;
}

/// The same of a map whose weights are in groups. An output's accumulator is the sum of its groups', each
/// exact, times whole multipliers: the group's scale as a part of the output's largest, in 24 bits, or as
/// many as 64-bit sums have room for. `packed`: with the panels.
IntegerMatrix grouped_matrix(const std::string& name, const std::vector<float>& bias,
                             const QuantizedMatrix& codes, const PointGrid& input, bool packed,
                             RowUnits& units) {
  constexpr int kMostBits = 24, kSumBits = 61;
  const int64_t groups = codes.cols / codes.group;
  IntegerMatrix matrix;
  matrix.rows = codes.rows;
  matrix.cols = codes.cols;
  matrix.group_cols = codes.group;
  matrix.storage = storage_for(codes.spec.bits);
  matrix.narrow_input = input.codes.narrow();
  const auto rows = static_cast<size_t>(codes.rows);
  const auto padded = static_cast<size_t>(matrix.panel_count() * kPanel);
  matrix.constant.resize(padded);
  matrix.factors.resize(padded);
  std::vector<std::vector<double>> bounds;  // [groups][rows]
  for (int64_t g = 0; g < groups; ++g) {
    const QuantizedMatrix own = group_codes(codes, g);
    RowUnits part_units;
    IntegerMatrix part = integer_matrix(name, {}, own, input, part_units);
    part.factors = {};
    if (packed) {
      pack_panels(own, PanelLayout::pairs, part);
      matrix.groups.push_back(std::move(part));
    }
    bounds.push_back(std::move(part_units.bounds));
  }
  double widest = 1;
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (const std::vector<double>& of_group : bounds) sum += of_group[r];
    widest = std::max(widest, sum);
  }
  const int bits = std::min(kMostBits, kSumBits - static_cast<int>(std::ceil(std::log2(widest))));
  matrix.group_multipliers.resize(padded * static_cast<size_t>(groups));
  units = {std::vector<double>(rows), std::vector<double>(rows), std::vector<double>(rows)};
  for (size_t r = 0; r < rows; ++r) {
    const auto scales = codes.scales.begin() + static_cast<int64_t>(r) * groups;
    const auto largest = static_cast<double>(*std::max_element(scales, scales + groups));
    units.scales[r] = std::ldexp(input.scale() * largest, -bits);
    for (size_t g = 0; g < bounds.size(); ++g) {
      const double share = static_cast<double>(scales[static_cast<int64_t>(g)]) / largest;
      const auto multiplier = static_cast<int32_t>(std::nearbyint(std::ldexp(share, bits)));
      matrix.group_multipliers[g * padded + r] = multiplier;
      units.bounds[r] += multiplier * bounds[g][r];
    }
    if (bias.empty()) continue;
    units.biases[r] = static_cast<double>(bias[r]) / units.scales[r];
    if (!(std::abs(units.biases[r]) < 0x1p60)) {
      fail("{}.bias: element {} is {}: outside what 64-bit sums hold at this scale", name, r, bias[r]);
    }
    units.bounds[r] += std::ceil(std::abs(units.biases[r]));
  }
  return matrix;
}

/// The factors from accumulators to units of `scale`, and the bias. A whole accumulator is up to a few
/// thousandths of an 8-bit output's step (a third of a 16-bit one's): a bias rounded to that moves one code
/// in a thousand, which the simulation, whose biases are not rounded, does not have. So the accumulators of a
/// biased map have as many fractional bits as all of them have room for.
void add_factors(const RowUnits& units, bool biased, double scale, IntegerMatrix& matrix) {
  constexpr int32_t kMostBits = 16;
  matrix.raise = biased ? kMostBits : 0;
  for (size_t r = 0; r < units.bounds.size(); ++r) {
    const Rescale whole = make_rescale(units.scales[r] / scale, units.bounds[r]);
    const int32_t room = whole.pre_shift > 0 ? 0 : std::min(whole.room, 62 - whole.shift);
    matrix.raise = std::min(matrix.raise, room);
  }
  for (size_t r = 0; r < units.bounds.size(); ++r) {
    matrix.factors[r] = make_rescale(std::ldexp(units.scales[r] / scale, -matrix.raise),
                                     std::ldexp(units.bounds[r], matrix.raise));
    matrix.constant[r] = (matrix.constant[r] << matrix.raise) +
                         static_cast<int64_t>(std::nearbyint(std::ldexp(units.biases[r], matrix.raise)));
  }
}

/// The panels, and the factors side by side where the sums of every row fit 32 bits and its factor is fast().
/// `codes_out`: the results are codes, which one kernel makes of rows with the same factor.
void finish(const QuantizedMatrix& codes, bool codes_out, IntegerMatrix& matrix) {
  // The panel's padding has factors too; they decide nothing.
  for (auto r = static_cast<size_t>(matrix.rows); r < matrix.factors.size(); ++r) {
    matrix.factors[r] = matrix.factors[0];
  }
  if (matrix.storage != WeightStorage::int16) matrix.fast = make_fast(matrix.factors);
  const bool quads = matrix.fast.usable() && matrix.narrow_input;
  // Where the codes' zero points come off, the constant, which holds the input's, stays as it is.
  pack_panels(codes, quads ? integer_kernels().quad_layout : PanelLayout::pairs, matrix);
  const auto rows = static_cast<size_t>(matrix.rows);
  const bool one_zero_point =
      !matrix.has_zero_points || std::all_of(matrix.zero_points.begin(), matrix.zero_points.begin() + rows,
                                             [&](int32_t z) { return z == matrix.zero_points[0]; });
  matrix.uniform =
      codes_out && matrix.fast.usable() && one_zero_point &&
      std::all_of(matrix.factors.begin(), matrix.factors.end(), [&](const Rescale& f) {
        return f.fast() && f.multiplier == matrix.factors[0].multiplier && f.shift == matrix.factors[0].shift;
      });
  // Of equal factors, the one of the row with the largest sums has the least room.
  for (const Rescale& f : matrix.factors) {
    if (matrix.uniform && f.room < matrix.factors[0].room) matrix.factors[0].room = f.room;
  }
  if (!matrix.fast.usable()) return;
  // Row by row, what the factors want to be raised by is part of one shift with the fractional bits.
  const int32_t lift = matrix.uniform ? 0 : matrix.fast.lift;
  for (const int64_t c : matrix.constant) matrix.fast_constant.push_back(modulo32(c << lift));
  matrix.fast.lift += matrix.raise;
  // What is not read again, in a model of narrow rows, would be a tenth of its memory.
  matrix.constant = {};
  matrix.factors.resize(matrix.uniform ? 1 : 0);
  matrix.factors.shrink_to_fit();
  const bool unpacked_with_zero_points =
      matrix.layout == PanelLayout::grouped_quads && matrix.storage == WeightStorage::int4;
  if (!matrix.has_zero_points && !unpacked_with_zero_points) matrix.zero_points = {};
}

}  // namespace

void pack_panels(const QuantizedMatrix& codes, PanelLayout layout, IntegerMatrix& matrix) {
  if (layout == PanelLayout::grouped_quads && pack_grouped_quads(codes, matrix)) {
    matrix.has_zero_points = false;
    return;
  }
  if (layout == PanelLayout::quads) {
    matrix.layout = layout;
    matrix.entries = (matrix.cols + 3) / 4;
  }
  pack(codes, matrix);
}

IntegerMatrix prepare_linear(const model::LinearWeights& weights, const QuantSpec& spec,
                             const PointGrid& input, const PointGrid& output) {
  RowUnits units;
  const QuantizedMatrix codes = multiplied_codes(weights, spec);
  const bool grouped = is_grouped(codes);
  IntegerMatrix matrix = grouped
                             ? grouped_matrix(weights.weight.name, weights.bias, codes, input, true, units)
                             : integer_matrix(weights.weight.name, weights.bias, codes, input, units);
  add_factors(units, !weights.bias.empty(), output.scale(), matrix);
  matrix.output = output.codes;
  if (!grouped) finish(codes, true, matrix);
  return matrix;
}

IntegerFirstLinear prepare_first_linear(const model::LinearWeights& weights, const QuantSpec& spec,
                                        const PointGrid& input, const PointGrid& output) {
  // The bytes of a 16-bit input are multiplied one by one, into 32-bit sums.
  constexpr int64_t kMostInputs = (int64_t{1} << 31) / (255 * 255);
  if (weights.weight.cols > kMostInputs) {
    fail("{}: {} inputs; integer arithmetic of position 0 accepts at most {}", weights.weight.name,
         weights.weight.cols, kMostInputs);
  }
  RowUnits units;
  const QuantizedMatrix codes = multiplied_codes(weights, spec);
  const bool grouped = is_grouped(codes);
  IntegerMatrix matrix = grouped
                             ? grouped_matrix(weights.weight.name, weights.bias, codes, input, false, units)
                             : integer_matrix(weights.weight.name, weights.bias, codes, input, units);
  std::ranges::fill(matrix.constant, 0);  // the input's zero point comes off when it is multiplied
  add_factors(units, !weights.bias.empty(), output.scale(), matrix);
  const auto rows = static_cast<size_t>(matrix.rows);
  IntegerFirstLinear first;
  first.zero_point = input.codes.zero_point;
  first.raise = matrix.raise;
  first.output = output.codes;
  if (!weights.bias.empty()) first.bias.assign(matrix.constant.begin(), matrix.constant.begin() + rows);
  first.factors.assign(matrix.factors.begin(), matrix.factors.begin() + rows);
  first.group_multipliers = std::move(matrix.group_multipliers);
  return first;
}

IntegerMatrix prepare_head(const model::LinearWeights& weights, const QuantSpec& spec, const PointGrid& input,
                           double& scale) {
  RowUnits units;
  const QuantizedMatrix codes = multiplied_codes(weights, spec);
  if (is_grouped(codes)) {
    fail("{}.weight: group_size {}: integer arithmetic accepts a head with a scale per tensor or per channel",
         weights.weight.name, spec.group_size);
  }
  IntegerMatrix matrix = integer_matrix(weights.weight.name, weights.bias, codes, input, units);
  double largest = 1e-30;
  double coarsest = 0;
  double bound = 1;
  for (size_t r = 0; r < units.bounds.size(); ++r) {
    largest = std::max(largest, units.bounds[r] * units.scales[r]);
    coarsest = std::max(coarsest, units.scales[r]);
    bound = std::max(bound, units.bounds[r]);
  }
  // As fine as 32 bits hold, with a bit less for the factors to be fast.
  scale = std::max(largest * 0x1p-30, coarsest * bound * 0x1p-28);
  add_factors(units, !weights.bias.empty(), scale, matrix);
  finish(codes, false, matrix);
  return matrix;
}

}  // namespace qeval::quant
