// The row kernels of integer-only arithmetic: the same integers from every CPU path, and close to the real
// function.

#include "quant/arithmetic/integer/run/rowwise.h"

#include <cmath>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/arithmetic/integer/point_grid.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {
namespace {

constexpr CodeRange kByte{.zero_point = 103, .lo = 0, .hi = 255};
constexpr CodeRange kWord{.zero_point = -7000, .lo = -32768, .hi = 32767};
const int64_t kLengths[] = {1, 7, 8, 9, 16, 31, 64, 577};

std::vector<IntegerCpu> vector_cpus() {
  std::vector<IntegerCpu> supported;
  for (const IntegerCpu cpu : kIntegerCpus) {
    if (cpu != IntegerCpu::portable && cpu_supports(cpu)) supported.push_back(cpu);
  }
  return supported;
}

/// Numbers of [lo, hi], an end now and then.
template <typename T>
std::vector<T> draw(int64_t n, int64_t lo, int64_t hi, std::mt19937& random) {
  std::vector<T> values;
  std::uniform_int_distribution<int64_t> any(lo, hi);
  for (int64_t i = 0; i < n; ++i) {
    const auto r = random() % 16;
    values.push_back(static_cast<T>(r == 0 ? lo : r == 1 ? hi : any(random)));
  }
  return values;
}

/// Expects `run(kernels)`, a vector of results, to be the same on every path.
template <typename Run>
void expect_same(const Run& run, const char* what) {
  const auto want = run(integer_kernels_portable());
  for (const IntegerCpu cpu : vector_cpus()) {
    ASSERT_EQ(run(integer_kernels(cpu)), want) << what << " on " << name(cpu);
  }
}

TEST(IntegerRows, RequantizationIsTheSameOnEveryPath) {
  std::mt19937 random(11);
  for (const int64_t n : kLengths) {
    for (const double scale : {0.49, 1e-3, 3e-8, 5.0}) {
      // A factor above 1/2 wants room in the totals; without it they may wrap around.
      const double bound = scale < 0.5 ? 0x1p30 : 0x1p26;
      const int64_t reach = scale < 0.5 ? INT32_MAX : 1 << 24;
      std::vector<Rescale> factors;
      for (int64_t i = 0; i < (n + 15) / 16 * 16; ++i) {
        factors.push_back(make_rescale(scale / (1 + static_cast<double>(i % 5)), bound));
      }
      const FastRescale fast = make_fast(factors);
      ASSERT_TRUE(fast.usable());
      constexpr int64_t kRows = 3;
      const int64_t ld = n + 5;
      const auto sums = draw<int32_t>(kRows * ld, -reach, reach, random);
      const auto constant = draw<int32_t>(n, -reach, reach, random);
      const auto weight = draw<int32_t>(n, -300, 300, random);
      const int32_t row_bases[kRows] = {-77777, 0, 4096};
      for (const bool zero_points : {false, true}) {
        const Requantization r{.rows = kRows,
                               .n = n,
                               .sums = sums.data(),
                               .ld = ld,
                               .bases = row_bases,
                               .weight = zero_points ? weight.data() : nullptr,
                               .constant = constant.data(),
                               .fast = fast.view(0),
                               .output = n % 2 == 0 ? kByte : kWord};
        expect_same(
            [&](const IntegerKernels& kernel) {
              const int64_t out_ld = n + 1;
              std::vector<int32_t> out(static_cast<size_t>(kRows * out_ld), 5);
              kernel.rescale(r, out.data(), out_ld);
              std::vector<int16_t> codes(out.size(), 5);
              kernel.requantize(r, codes.data(), out_ld);
              for (size_t at = 0; at < codes.size(); ++at) {
                const auto row = static_cast<int64_t>(at) / out_ld, j = static_cast<int64_t>(at) % out_ld;
                if (j == n) {
                  EXPECT_EQ(codes[at], 5) << "behind the row";
                  EXPECT_EQ(out[at], 5) << "behind the row";
                  continue;
                }
                // Against the definition, the total modulo 2^32.
                const auto column = static_cast<size_t>(j);
                const auto sum = static_cast<uint32_t>(sums[static_cast<size_t>(row * ld + j)]) +
                                 (zero_points ? static_cast<uint32_t>(weight[column]) *
                                                    static_cast<uint32_t>(row_bases[row])
                                              : 0U);
                const auto total =
                    static_cast<int32_t>((sum << fast.lift) + static_cast<uint32_t>(constant[column]));
                const Rescale factor{factors[column].multiplier, factors[column].shift + fast.lift};
                EXPECT_EQ(codes[at], requantize(total, factor, r.output));
                EXPECT_EQ(out[at], rescale(total, factor));
              }
              return out;
            },
            "requantize");
        // Raised sums take the room that a factor above 1/2 wants.
        for (const int32_t raise : {0, scale < 0.5 ? 5 : 0}) {
          expect_same(
              [&](const IntegerKernels& kernel) {
                // Two rows of half of them, the second from where the first ends, or one earlier.
                const int64_t columns = (n + 1) / 2;
                const int32_t bases[] = {-99, 1000};
                std::vector<int16_t> codes(static_cast<size_t>(2 * columns));
                kernel.requantize_uniform({.rows = n < 2 ? 1 : 2,
                                           .n = columns,
                                           .sums = sums.data(),
                                           .ld = n - columns,
                                           .bases = zero_points ? bases : nullptr,
                                           .raise = raise,
                                           .constant = constant.data(),
                                           .factor = factors[0],
                                           .output = r.output},
                                          codes.data(), columns);
                for (int64_t i = 0; i < (n < 2 ? 1 : 2); ++i) {
                  for (int64_t j = 0; j < columns; ++j) {
                    const uint32_t sum =
                        static_cast<uint32_t>(sums[static_cast<size_t>(i * (n - columns) + j)]) +
                        static_cast<uint32_t>(zero_points ? bases[i] : 0);
                    const uint32_t total =
                        (sum << raise) + static_cast<uint32_t>(constant[static_cast<size_t>(j)]);
                    EXPECT_EQ(codes[static_cast<size_t>(i * columns + j)],
                              requantize(static_cast<int32_t>(total), factors[0], r.output));
                  }
                }
                return codes;
              },
              "requantize_uniform");
        }
      }
    }
  }
}

TEST(IntegerRows, NormsAdditionsAndProductsAreTheSameOnEveryPath) {
  std::mt19937 random(12);
  for (const int64_t n : kLengths) {
    const StreamGrid stream{make_point_grid({.bits = 16}, {-300, 500}), kStreamGuardBits};
    const StreamGrid plain{make_point_grid({.bits = 16}, {-40, 900}), 0};
    const PointGrid update = make_point_grid({.bits = 16}, {-70, 60});
    const PointGrid byte = make_point_grid({.bits = 8}, {-9, 7});
    const PointGrid word = make_point_grid({.bits = 16, .symmetric = true}, {-9, 7});
    model::NormWeights weights;
    for (int64_t i = 0; i < n; ++i) {
      weights.weight.push_back(static_cast<float>(std::sin(static_cast<double>(i) + 1)) + 1.2F);
      weights.bias.push_back(static_cast<float>(std::cos(static_cast<double>(i))));
    }
    for (const bool layer_norm : {false, true}) {
      model::NormWeights used = weights;
      if (!layer_norm) used.bias.clear();
      for (const PointGrid& output : {byte, word}) {
        const IntegerNorm norm = prepare_norm(
            {.kind = layer_norm ? model::NormKind::layer : model::NormKind::rms,
             .eps = 1e-5,
             .width = n,
             .group = n},
            used, {.bits = 16}, {.stream = stream, .rounded_in = stream.grid, .made = output, .out = output});
        const int64_t reach = int64_t{60000} << norm.extra_bits;
        const auto e = draw<int32_t>(n, -reach, reach, random);
        const UnitScale unit =
            unit_scale(norm, norm.eps + integer_kernels_portable().sum_of_squares(e.data(), n));
        expect_same(
            [&](const IntegerKernels& kernel) {
              std::vector<int16_t> out(static_cast<size_t>(n));
              kernel.scale_norm(norm, 0, e.data(), n, unit.reciprocal, unit.shift, out.data());
              return out;
            },
            "scale_norm");
        expect_same([&](const IntegerKernels& kernel) { return kernel.sum_of_squares(e.data(), n); },
                    "sum_of_squares");
      }
    }
    const PointGrid coarse = make_point_grid({.bits = 2}, {-600, 800});  // the fewer bits for the sum
    for (const auto& [from, to, added] : {std::tuple{stream, plain, update},
                                          {plain, stream, update},
                                          {stream, stream, update},
                                          {stream, stream, coarse}}) {
      const auto updates = draw<int16_t>(n, added.codes.lo, added.codes.hi, random);
      const IntegerAdd add = prepare_add(from, added, 1, to, "update");
      const StreamFormat format = from.format();
      const auto start = draw<int32_t>(n, format.lo, format.hi, random);
      expect_same(
          [&](const IntegerKernels& kernel) {
            std::vector<int32_t> sum = start;
            kernel.add_row(add, updates.data(), n, sum.data());
            return sum;
          },
          "add_row");
      expect_same(
          [&](const IntegerKernels& kernel) {
            std::vector<int32_t> d(static_cast<size_t>(n));
            kernel.read_stream(format, n, start.data(), d.data());
            return d;
          },
          "read_stream");
    }
    const auto gates = draw<int16_t>(n, 0, 255, random);
    const auto ups = draw<int16_t>(n, -32768, 32767, random);
    expect_same(
        [&](const IntegerKernels& kernel) {
          std::vector<int16_t> out = gates;
          kernel.multiply_row(prepare_product(byte, word, byte), ups.data(), n, out.data());
          return out;
        },
        "multiply_row");
    expect_same(
        [&](const IntegerKernels& kernel) {
          std::vector<int32_t> out(static_cast<size_t>(n));
          const IntegerProduct product = prepare_product(byte, word, byte);
          kernel.exact_products(product, ups.data(), n, gates.data(), out.data());
          for (size_t i = 0; i < out.size(); ++i)
            EXPECT_EQ(out[i], (gates[i] - product.gate_zero_point) * (ups[i] - product.up_zero_point));
          return out;
        },
        "exact_products");
    const auto own = draw<int32_t>(n, -40000, 40000, random);
    const auto taken = draw<int32_t>(n, -255, 255, random);
    const auto mixed = draw<int32_t>(n, INT32_MIN, INT32_MAX, random);
    for (const double ratio : {0.004, 0.3, 3.0}) {
      const Rescale factor = make_rescale(ratio, 40000.0 * (ratio > 1 ? 1 << 20 : 20000));
      ASSERT_EQ(factor.fast(), ratio < 1);
      expect_same(
          [&](const IntegerKernels& kernel) {
            std::vector<int32_t> out = mixed;
            const int32_t p = n % 2 == 0 ? 20000 : -13;
            kernel.replace_value(p, factor, own.data(), taken.data(), n, out.data());
            for (size_t i = 0; i < out.size(); ++i) {
              const int64_t change = rescale(int64_t{p} * own[i], factor) - int64_t{p} * taken[i];
              EXPECT_EQ(out[i], modulo32(mixed[i] + change));
            }
            return out;
          },
          "replace_value");
    }
    expect_same([&](const IntegerKernels& kernel) { return kernel.row_sum(ups.data(), n); }, "row_sum");

    for (const PointGrid& grid : {byte, word}) {
      const auto head = draw<int16_t>(2 * n + 3, grid.codes.lo, grid.codes.hi, random);
      const auto cosines = draw<int32_t>(n, -(1 << kAngleBits), 1 << kAngleBits, random);
      const auto sines = draw<int32_t>(n, -(1 << kAngleBits), 1 << kAngleBits, random);
      expect_same(
          [&](const IntegerKernels& kernel) {
            std::vector<int16_t> out = head;
            kernel.rotate_head(prepare_rotary(grid, byte), cosines.data(), sines.data(), n, 2 * n + 3,
                               out.data());
            return out;
          },
          "rotate_head");
    }
  }
}

/// Groups share weights, or have their own: as the norm of each group by itself.
TEST(IntegerRows, NormsOfGroupsAreThoseOfEachGroup) {
  std::mt19937 random(14);
  const PointGrid input = make_point_grid({.bits = 16}, {-7, 6});
  const PointGrid output = make_point_grid({.bits = 8}, {-9, 7});
  const OperationGrids grids{.in = input, .rounded_in = input, .made = output, .out = output};
  const int64_t group = 21, groups = 3;
  for (const bool own : {false, true}) {
    for (const model::NormKind kind : {model::NormKind::rms, model::NormKind::layer}) {
      model::NormWeights weights;
      for (int64_t i = 0; i < (own ? groups : 1) * group; ++i) {
        weights.weight.push_back(static_cast<float>(std::sin(static_cast<double>(i) + 1)) + 1.2F);
      }
      const auto codes = draw<int16_t>(group * groups, -32768, 32767, random);
      std::vector<int16_t> out(codes.size());
      const model::NormOp op{
          .kind = kind, .eps = 1e-5, .width = group * groups, .group = group, .own_weights = own};
      norm_row(prepare_norm(op, weights, {.bits = 16}, grids), codes.data(), group * groups, out.data());
      for (int64_t g = 0; g < groups; ++g) {
        double mean = 0, squares = 0;
        const auto x = [&](int64_t i) {
          return static_cast<double>(input.value(codes[static_cast<size_t>(g * group + i)]));
        };
        for (int64_t i = 0; i < group && kind == model::NormKind::layer; ++i)
          mean += x(i) / static_cast<double>(group);
        for (int64_t i = 0; i < group; ++i)
          squares += (x(i) - mean) * (x(i) - mean) / static_cast<double>(group);
        for (int64_t i = 0; i < group; ++i) {
          const float w = weights.weight[static_cast<size_t>(own ? g * group + i : i)];
          const auto want = static_cast<float>((x(i) - mean) / std::sqrt(squares + 1e-5) * w);
          EXPECT_NEAR(out[static_cast<size_t>(g * group + i)], output.code(want), 1) << g << " " << i;
        }
      }
    }
  }
}

/// What stands halfway between two codes of the reader goes to the even one, as in the simulation: embeddings
/// of few bits do so by the dozen, and a code of 8 bits is 257 of a sum's 16.
TEST(IntegerRows, TheStreamIsReadHalfToEven) {
  // Their steps are 257 : 1 but for float32, which the 31 bits of a factor see.
  const Range range{-3.75F, 3.515625F};
  for (const int32_t guard_bits : {kStreamGuardBits, 0}) {
    const StreamGrid stream{make_point_grid({.bits = 16}, range), guard_bits};
    const PointGrid byte = make_point_grid({.bits = 8}, range);
    const StreamRead read = prepare_read(stream, byte);
    int64_t ties = 0;
    for (int k = -480; k <= 450; ++k) {
      const auto x = static_cast<float>(k) / 128;
      const int32_t number = stream.code(x);
      int16_t code = 0;
      read_stream_row(read, &number, 1, &code);
      const double exact = static_cast<double>(x) * 255 * 64 / 465;
      const bool tie = exact * 2 == std::floor(exact * 2) && exact != std::floor(exact);
      ties += static_cast<int64_t>(tie);
      if (guard_bits > 0) {
        EXPECT_EQ(code, byte.code(x)) << x;
      } else {
        EXPECT_NEAR(code, byte.code(x), 1) << x;
      }
    }
    EXPECT_GE(ties, 14);
  }
}

TEST(IntegerRows, SumsOfLongRowsDoNotOverflow) {
  const std::vector<int16_t> row(600'000, -32768);
  for (const IntegerCpu cpu : kIntegerCpus) {
    if (!cpu_supports(cpu)) continue;
    EXPECT_EQ(integer_kernels(cpu).row_sum(row.data(), std::ssize(row)), -32768 * std::ssize(row));
  }
}

TEST(IntegerRows, ExponentialsAreCloseToTheRealOnesOnEveryPath) {
  std::mt19937 random(13);
  // From scores that hardly differ to ones that leave nothing but the largest.
  for (const double step : {1e-7, 1e-4, 7e-4, 0.01, 1.0, 40.0}) {
    const ExpTable exp = prepare_exp(step);
    for (const int64_t n : kLengths) {
      auto row = draw<int16_t>(n, -32768, 32767, random);
      // Differences that matter at this step.
      for (int64_t i = 0; i < n; i += 2) {
        row[static_cast<size_t>(i)] = static_cast<int16_t>(
            32767 - static_cast<int64_t>(static_cast<double>(random() % 1000) * std::min(30.0, 0.02 / step)));
      }
      expect_same(
          [&](const IntegerKernels& kernel) {
            std::vector<uint32_t> powers(static_cast<size_t>(n));
            const uint64_t sum = kernel.exponentials(exp, n, row.data(), powers.data());
            uint64_t total = 0;
            for (const uint32_t power : powers) total += power;
            EXPECT_EQ(sum, total);
            return powers;
          },
          "exponentials");
      std::vector<uint32_t> powers(static_cast<size_t>(n));
      const uint64_t sum = integer_kernels().exponentials(exp, n, row.data(), powers.data());
      const int16_t largest = *std::max_element(row.begin(), row.end());
      for (size_t i = 0; i < powers.size(); ++i) {
        ASSERT_NEAR(std::ldexp(powers[i], -kExpBits), std::exp(-step * (largest - row[i])), 0x1p-18)
            << step << " " << largest - row[i];
      }
      const auto reciprocal = static_cast<uint32_t>((UINT64_C(1) << 63) / sum >> 1);
      for (const CodeRange& codes : {CodeRange{.zero_point = -32768, .lo = -32768, .hi = 32767}, kByte}) {
        expect_same(
            [&](const IntegerKernels& kernel) {
              std::vector<int16_t> shares(static_cast<size_t>(n));
              const int64_t total = kernel.shares(powers.data(), n, reciprocal, 46, codes, shares.data());
              int64_t check = 0;
              for (const int16_t share : shares) check += share;
              EXPECT_EQ(total, check);
              return shares;
            },
            "shares");
      }
    }
  }
}

/// Exact sums, those of 64 bits.
TEST(IntegerRows, RotationsAreExactAndTheSameOnEveryPath) {
  std::mt19937 random(23);
  for (const int64_t order : {1, 2, 8, 12, 20, 48, 88, 96, 1536, 2816}) {
    const model::HadamardMatrix matrix = model::make_hadamard(order);
    const auto room = static_cast<size_t>(matrix.padded_order());
    const auto x = draw<int32_t>(order, -(1 << 17), 1 << 17, random);
    expect_same(
        [&](const IntegerKernels& kernel) {
          std::vector<int32_t> out = x, scratch(room);
          kernel.hadamard(matrix, out.data(), scratch.data());
          return out;
        },
        "hadamard");
    std::vector<int32_t> sums = x, scratch(room);
    integer_kernels_portable().hadamard(matrix, sums.data(), scratch.data());
    std::vector<int64_t> wide(x.begin(), x.end()), wide_scratch(room);
    model::multiply_hadamard(matrix, wide.data(), wide_scratch.data());
    EXPECT_EQ(std::vector<int64_t>(sums.begin(), sums.end()), wide) << order;
    // Lengths: Σ (x·H)² = order · Σ x².
    double before = 0, after = 0;
    for (const int32_t value : x) before += static_cast<double>(value) * value;
    for (const int32_t value : sums) after += static_cast<double>(value) * value;
    EXPECT_NEAR(after / before, static_cast<double>(order), 1e-9) << order;
  }
}

/// Products of codes, rotated and requantized: the real number within half a step.
TEST(IntegerRows, ARotationOfProductsIsRoundedOnce) {
  const int64_t order = 24;
  HadamardGrids grids;
  grids.product = ProductGrids{.gate = make_point_grid({.bits = 8}, {-3, 2}),
                               .up = make_point_grid({.bits = 8}, {-1, 5}),
                               .out = {},
                               .exact = true};
  grids.out = make_point_grid({.bits = 8}, {-9, 11});
  const IntegerHadamard hadamard = prepare_hadamard(order, grids);
  EXPECT_EQ(hadamard.source, RotationSource::products);
  EXPECT_FALSE(hadamard.wide);
  std::mt19937 random(5);
  std::vector<int32_t> sums(static_cast<size_t>(order)), scratch(sums.size());
  std::vector<double> real(sums.size()), real_scratch(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    const auto gate = static_cast<int32_t>(random() % 256), up = static_cast<int32_t>(random() % 256);
    sums[i] = (gate - grids.product->gate.codes.zero_point) * (up - grids.product->up.codes.zero_point);
    real[i] = static_cast<double>(grids.product->gate.value(gate)) *
              static_cast<double>(grids.product->up.value(up));
  }
  model::multiply_hadamard(hadamard.matrix, sums.data(), scratch.data());
  model::multiply_hadamard(hadamard.matrix, real.data(), real_scratch.data());
  for (size_t i = 0; i < sums.size(); ++i) {
    const int16_t code = requantize(sums[i], hadamard.factor, hadamard.output);
    const double value = std::clamp(real[i] / std::sqrt(static_cast<double>(order)), -9.0, 11.0);
    EXPECT_NEAR(static_cast<double>(grids.out.value(code)), value, 0.501 * grids.out.scale() + 1e-5);
  }
  // 16 bits times 16 bits take sums of 64.
  grids.product = ProductGrids{.gate = make_point_grid({.bits = 16}, {-3, 2}),
                               .up = make_point_grid({.bits = 16}, {-1, 5}),
                               .out = {},
                               .exact = true};
  EXPECT_TRUE(prepare_hadamard(order, grids).wide);
}

}  // namespace
}  // namespace qeval::quant
