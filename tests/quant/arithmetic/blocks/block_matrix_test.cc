#include "quant/arithmetic/blocks/block_matrix.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/checkpoint/block_formats.h"
#include "quant/arithmetic/blocks/read_block.h"
#include "tests/model/block_halves.h"
#include "tests/quant/emulated/kernels.h"

namespace qeval::quant {
namespace {

using model::DType;

constexpr DType kTypes[] = {DType::q8_0,   DType::q4_0,   DType::q4_1,    DType::q5_0,    DType::q5_1,
                            DType::q2_k,   DType::q3_k,   DType::q4_k,    DType::q5_k,    DType::q6_k,
                            DType::q1_0,   DType::q2_0,   DType::iq1_s,   DType::iq1_m,   DType::iq2_s,
                            DType::iq2_xs, DType::iq3_s,  DType::iq2_xxs, DType::iq3_xxs, DType::iq4_nl,
                            DType::tq1_0,  DType::iq4_xs, DType::tq2_0,   DType::mxfp4,   DType::nvfp4};

/// Makes the scales of a block of random bytes numbers of a usual size: `half` gives those that are halves.
template <typename Half, typename Random>
void set_scales(DType type, std::byte* block, const Half& half, Random&& random) {
  for (const size_t at : model::fixtures::halves_of(type)) {
    const uint16_t bits = model::narrow_f16(half());
    std::memcpy(block + at, &bits, sizeof(bits));
  }
  if (type == DType::mxfp4) block[0] = static_cast<std::byte>(115 + random() % 12);
  if (type == DType::iq1_m) {  // by quarters, in the top nibbles of four words
    const unsigned bits = model::narrow_f16(half());
    for (int i = 0; i < 4; ++i) {
      std::byte& top = block[49 + 2 * i];
      top = (top & std::byte{15}) | static_cast<std::byte>((bits >> (4 * i) & 15U) << 4U);
    }
  }
}

/// A stored matrix of random blocks whose scales are numbers.
struct StoredBlocks {
  std::vector<std::byte> bytes{};
  model::Matrix matrix{};

  StoredBlocks(DType type, int64_t rows, int64_t cols, std::mt19937& random) {
    const model::DTypeInfo& info = model::info(type);
    const int64_t blocks = rows * cols / info.block_size;
    for (int64_t b = 0; b < blocks * info.block_bytes; ++b) {
      // Half of them with all bits alike, so that codes at the ends of their range meet.
      const auto any = static_cast<std::byte>(random());
      bytes.push_back(random() % 2 == 0 ? any : random() % 2 == 0 ? std::byte{0xFF} : std::byte{0});
    }
    std::uniform_real_distribution<float> scale(-0.02F, 0.02F);
    for (int64_t b = 0; b < blocks; ++b) {
      set_scales(
          type, bytes.data() + b * info.block_bytes, [&] { return scale(random); }, random);
    }
    matrix = {
        .name = "test", .rows = rows, .cols = cols, .stored = model::StoredWeight(type, cols, bytes.data())};
  }
};

std::vector<float> inputs(int64_t rows, int64_t cols, std::mt19937& random) {
  std::vector<float> x(static_cast<size_t>(rows * cols));
  std::normal_distribution<float> normal;
  for (float& v : x) v = random() % 8 == 0 ? 4.0F : normal(random);
  return x;
}

GgmlRow row_type(DType type) {
  return *dot_type(type);
}

/// Every CPU's kernels that can run here, one with its instructions emulated.
std::vector<const BlockKernels*> block_paths() {
  std::vector<const BlockKernels*> paths;
  for (const IntegerCpu cpu : kIntegerCpus) {
    if (cpu_supports(cpu)) paths.push_back(&block_kernels(cpu));
  }
  for (const BlockKernels* emulated : emulated_block_kernels()) paths.push_back(emulated);
  return paths;
}

struct Encoded {
  std::vector<float> storage{};  // whole numbers of bytes
  BlockRows rows;

  Encoded(GgmlRow type, const std::vector<float>& x, int64_t cols)
      : rows{BlockRowLayout(type, cols), std::ssize(x) / cols} {
    rows.ld = rows.layout.stride;
    storage.resize(static_cast<size_t>(rows.rows * rows.ld / 4));
    for (int64_t r = 0; r < rows.rows; ++r) {
      encode_row(rows.layout, x.data() + r * cols,
                 reinterpret_cast<std::byte*>(storage.data()) + r * rows.ld);
    }
    rows.data = reinterpret_cast<const std::byte*>(storage.data());
  }

  template <typename T>
  T at(int64_t row, int64_t part, int64_t i) const {
    T value;
    std::memcpy(&value, rows.data + row * rows.ld + part + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return value;
  }
};

std::vector<float> product(const BlockMatrix& matrix, const BlockRows& in, const BlockKernels& kernels) {
  std::vector<float> out(static_cast<size_t>(in.rows * matrix.rows()));
  matrix.multiply(in, 0, in.rows, 0, matrix.rows(), out.data(), matrix.rows(), kernels);
  return out;
}

/// What kernels.h says an element is, from the stored blocks.
float plain_product(DType type, const model::Matrix& w, int64_t row, const Encoded& in, int64_t input_row) {
  const PanelForm& form = *panel_form(type);
  const BlockRowLayout& layout = in.rows.layout;
  const auto* stored = reinterpret_cast<const uint8_t*>(w.stored.row(w.stored_row(row)));
  const int64_t parts = model::info(type).block_size / form.block();
  float total = 0;
  StoredBlock block;
  for (int64_t b = 0; b < w.cols / form.block(); ++b) {
    read_block(type, stored + b / parts * model::info(type).block_bytes, b % parts, block);
    const float scale = form.bf16_scales ? std::bit_cast<float>(uint32_t{block.scale} << 16U)
                                         : model::half_to_float(block.scale) * form.unit;
    const float own = in.at<float>(input_row, layout.scales, b);
    if (form.pairs) {
      for (int64_t half = 0; half < 2; ++half) {
        int64_t sum = 0;
        for (int64_t i = 16 * half; i < 16 * half + 16; ++i)
          sum += (form.table[block.codes[i]] - form.offset) * in.at<int8_t>(input_row, 0, b * 32 + i);
        total += static_cast<float>(sum) * ((half == 0 ? scale : model::half_to_float(block.minimum)) * own);
      }
      continue;
    }
    int64_t sum = 0, least = 0;
    for (int64_t i = 0; i < form.block(); ++i) {
      const int64_t stored_code = block.codes[i];
      const int64_t code =
          form.codes == PanelForm::Codes::table ? int64_t{form.table[stored_code]} : stored_code;
      const int64_t s = form.sub_block == 0 ? 0 : i / form.sub_block;
      const int64_t x = in.at<int8_t>(input_row, 0, b * form.block() + i);
      sum += (code - form.offset) * (form.sub_block == 0 ? 1 : block.steps[s]) * x;
      if (form.sub_block != 0 && form.minima) least += block.least[s] * x;
    }
    const float term = static_cast<float>(sum) * (scale * own);
    const float minimum = model::half_to_float(block.minimum);
    if (form.sub_block == 0) {
      total += form.minima ? term + minimum * in.at<float>(input_row, layout.sums, b) : term;
    } else {
      total += term;
      if (form.minima) total -= static_cast<float>(least) * (minimum * own);
    }
  }
  return total;
}

TEST(BlockMatrix, EveryPathHasTheBitsOfThePlainChain) {
  std::mt19937 random(41);
  for (const DType type : kTypes) {
    SCOPED_TRACE(model::info(type).name);
    const int64_t block = model::info(type).block_size, rows = 70;
    const int64_t cols = block == 256 ? 768 : block > 32 ? 640 : 608;
    const StoredBlocks stored(type, rows, cols, random);
    const auto matrix = BlockMatrix::make(stored.matrix);
    ASSERT_TRUE(matrix);
    const Encoded in(row_type(type), inputs(15, cols, random), cols);
    for (const BlockKernels* path : block_paths()) {
      const std::vector<float> got = product(*matrix, in.rows, *path);
      for (int64_t i = 0; i < in.rows.rows; ++i) {
        for (int64_t r = 0; r < rows; ++r) {
          ASSERT_EQ(got[static_cast<size_t>(i * rows + r)], plain_product(type, stored.matrix, r, in, i))
              << name(path->cpu) << " " << i << " " << r;
        }
      }
    }
  }
}

TEST(BlockMatrix, IsTheProductOfTheRoundedNumbers) {
  std::mt19937 random(43);
  for (const DType type : kTypes) {
    SCOPED_TRACE(model::info(type).name);
    const int64_t cols = 512, rows = 33;
    const StoredBlocks stored(type, rows, cols, random);
    const auto matrix = BlockMatrix::make(stored.matrix);
    ASSERT_TRUE(matrix);
    std::vector<float> x = inputs(3, cols, random);
    const Encoded in(row_type(type), x, cols);
    const std::vector<float> got = product(*matrix, in.rows, block_kernels());
    std::vector<float> w(static_cast<size_t>(rows * cols));
    stored.matrix.decode_rows(0, rows, w.data());
    for (int64_t i = 0; i < 3; ++i) {
      float* row = x.data() + i * cols;
      round_row(row_type(type), row, cols);
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0, reach = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const double one =
              static_cast<double>(w[static_cast<size_t>(r * cols + c)]) * static_cast<double>(row[c]);
          sum += one;
          reach += std::abs(one);
        }
        // Q8_1's sum of a block is a half.
        const double tolerance = reach * (row_type(type) == GgmlRow::q8_1 ? 0x1p-11 : 0x1p-20);
        ASSERT_NEAR(static_cast<double>(got[static_cast<size_t>(i * rows + r)]), sum, tolerance);
      }
    }
  }
}

/// One row of 1,024 pseudo-random elements by another, as llama.cpp's own from_float and vec_dot of the type
/// compute it on x86 (llama-cpp-python 0.3.36).
TEST(BlockMatrix, IsGgmlsOwnDotProduct) {
  const struct {
    DType type;
    float dot;
  } cases[] = {
      {DType::q8_0, -24.0221558F},    {DType::q4_0, 1.49805915F},    {DType::q4_1, 8.49112988F},
      {DType::q5_0, -3.27789831F},    {DType::q5_1, -12.9615021F},   {DType::q2_k, -6.13568544F},
      {DType::q3_k, -8.02968121F},    {DType::q4_k, -396.709381F},   {DType::q5_k, 924.715942F},
      {DType::q6_k, -518.908936F},    {DType::iq4_nl, 23.4683437F},  {DType::iq4_xs, -526.491455F},
      {DType::mxfp4, 78.4056625F},    {DType::nvfp4, 96.0937653F},   {DType::q1_0, 0.946753263F},
      {DType::q2_0, 0.881991267F},    {DType::iq1_s, 0.993517816F},  {DType::iq1_m, -4.48693562F},
      {DType::iq2_xxs, -21.8706722F}, {DType::iq2_xs, -41.1045456F}, {DType::iq2_s, 17.9040127F},
      {DType::iq3_xxs, 97.9582062F},  {DType::iq3_s, 32.7135963F},   {DType::tq1_0, -0.0133436918F},
      {DType::tq2_0, 0.873553753F},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(model::info(c.type).name);
    uint32_t state = 12345;
    const auto next = [&] { return state = state * 1664525U + 1013904223U; };
    const auto unit = [&] { return static_cast<float>(static_cast<int32_t>(next())) / 2147483648.0F; };
    constexpr int64_t kCols = 1024;
    std::vector<float> x(kCols);
    for (float& v : x) {
      const float u = unit();
      v = u * u * u * 7;
    }
    const model::DTypeInfo& info = model::info(c.type);
    const int64_t blocks = kCols / info.block_size;
    std::vector<std::byte> bytes(static_cast<size_t>(blocks * info.block_bytes));
    for (std::byte& b : bytes) b = static_cast<std::byte>(next() >> 24U);
    for (int64_t b = 0; b < blocks; ++b) {
      for (int i = 0; c.type == DType::nvfp4 && i < 4; ++i)
        bytes[static_cast<size_t>(b * info.block_bytes + i)] &= std::byte{0x3F};
      set_scales(
          c.type, bytes.data() + b * info.block_bytes, [&] { return unit() * 0.01F; },
          [&] { return next() >> 24U; });
    }
    const model::Matrix row{
        .name = "test", .rows = 1, .cols = kCols, .stored = model::StoredWeight(c.type, kCols, bytes.data())};
    const Encoded in(row_type(c.type), x, kCols);
    const float got = product(*BlockMatrix::make(row), in.rows, block_kernels()).front();
    std::vector<float> w(kCols);
    row.decode_rows(0, 1, w.data());
    float reach = 0;
    for (size_t i = 0; i < x.size(); ++i) reach += std::abs(x[i] * w[i]);
    EXPECT_NEAR(got, c.dot, reach * 0x1p-21F);  // the order of its sums is another
  }
}

TEST(BlockMatrix, RowsDoNotDependOnTheirBatch) {
  std::mt19937 random(47);
  for (const DType type : {DType::q8_0, DType::q4_1, DType::q6_k}) {
    SCOPED_TRACE(model::info(type).name);
    const int64_t cols = 768, rows = 161, m = 530;
    const StoredBlocks stored(type, rows, cols, random);
    const auto matrix = BlockMatrix::make(stored.matrix);
    ASSERT_TRUE(matrix);
    std::vector<float> x = inputs(m, cols, random);
    x[3 * 768 + 5] = std::numeric_limits<float>::quiet_NaN();
    x[4 * 768 + 700] = -std::numeric_limits<float>::infinity();
    std::fill_n(x.begin() + 5 * cols, cols, 0.0F);
    const std::vector<float> bias(static_cast<size_t>(rows), 0.25F);
    const auto all = [&](const std::vector<float>& input) {
      const Encoded in(row_type(type), input, cols);
      std::vector<float> out(static_cast<size_t>(in.rows.rows * rows));
      const BlockTarget target{&*matrix, bias.data(), out.data(), in.rows};
      multiply({&target, 1});
      return out;
    };
    const std::vector<float> whole = all(x);
    for (int64_t i = 0; i < m; i += i < 20 ? 1 : 37) {
      const std::vector<float> alone = all({x.begin() + i * cols, x.begin() + (i + 1) * cols});
      for (int64_t r = 0; r < rows; ++r) {
        const float y = whole[static_cast<size_t>(i * rows + r)];
        if (i == 3 || i == 4) {
          ASSERT_TRUE(std::isnan(y)) << i;
        } else {
          ASSERT_EQ(y, alone[static_cast<size_t>(r)]) << i;
        }
        if (i == 5) {
          ASSERT_EQ(y, 0.25F);
        }
      }
    }
  }
}

TEST(BlockMatrix, ReadsRowsWhereTheyAreStored) {
  std::mt19937 random(53);
  StoredBlocks stored(DType::q5_0, 64, 96, random);
  const Encoded in(GgmlRow::q8_0, inputs(1, 96, random), 96);
  const std::vector<float> plain = product(*BlockMatrix::make(stored.matrix), in.rows, block_kernels());
  stored.matrix.interleaved_head_dim = 16;
  const std::vector<float> got = product(*BlockMatrix::make(stored.matrix), in.rows, block_kernels());
  for (int64_t r = 0; r < 64; ++r)
    EXPECT_EQ(got[static_cast<size_t>(r)], plain[static_cast<size_t>(stored.matrix.stored_row(r))]);
}

TEST(BlockMatrix, IsNotMadeOfOtherTypes) {
  std::mt19937 random(59);
  for (const DType type : {DType::f16, DType::bf16, DType::f32})
    EXPECT_FALSE(BlockMatrix::make(StoredBlocks(type, 8, 256, random).matrix));
  EXPECT_FALSE(BlockMatrix::make(StoredBlocks(DType::q4_0, 8, 48, random).matrix));  // a block and a half
}

/// Sums at the ends of what 16 bits hold, where a path has such; any bits as scales.
TEST(BlockMatrix, EveryPathHasTheSameBitsAtTheEnds) {
  std::mt19937 random(71);
  constexpr int64_t kCols = 512, kRows = 37, kInputs = 5;
  std::vector<float> x(kInputs * kCols);
  for (int64_t c = 0; c < kCols; ++c) {
    const auto at = [&](int64_t row) -> float& { return x[static_cast<size_t>(row * kCols + c)]; };
    at(0) = 3;
    at(1) = -3;
    at(2) = c % 2 == 0 ? 3.0F : -3.0F;
    at(3) = random() % 2 == 0 ? 3.0F : -3.0F;
    at(4) = static_cast<float>(random() % 1000) - 500;
  }
  for (const DType type : kTypes) {
    SCOPED_TRACE(model::info(type).name);
    for (const unsigned bytes : {0xFFU, 0x7FU, 0x80U, 0U}) {  // the last: any
      StoredBlocks stored(type, kRows, kCols, random);
      for (std::byte& byte : stored.bytes)
        byte = static_cast<std::byte>(bytes == 0                            ? random()
                                      : bytes == 0x80U && random() % 2 == 0 ? 0xFFU
                                                                            : bytes);
      if (bytes != 0) {  // numbers for scales, or all would be NaN
        const model::DTypeInfo& info = model::info(type);
        for (size_t b = 0; b < stored.bytes.size(); b += static_cast<size_t>(info.block_bytes))
          set_scales(
              type, stored.bytes.data() + b, [] { return 0.01F; }, random);
      }
      const auto matrix = BlockMatrix::make(stored.matrix);
      ASSERT_TRUE(matrix);
      const Encoded in(row_type(type), x, kCols);
      const std::vector<float> expected = product(*matrix, in.rows, block_kernels_portable());
      for (const BlockKernels* path : block_paths()) {
        const std::vector<float> got = product(*matrix, in.rows, *path);
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_TRUE(got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i])))
              << name(path->cpu) << " " << bytes << " " << i << ": " << got[i] << ", " << expected[i];
        }
      }
    }
  }
}

TEST(BlockRows, CodesAreThoseThatRoundingGives) {
  std::mt19937 random(61);
  for (const GgmlRow type : {GgmlRow::q8_0, GgmlRow::q8_1, GgmlRow::q8_k}) {
    SCOPED_TRACE(static_cast<int>(type));
    const int64_t cols = 4096, block = block_size(type);  // more blocks than are encoded at once
    std::vector<float> x = inputs(2, cols, random);
    for (int64_t i = 0; i < 64; ++i) {  // ties between codes, and of the largest magnitude
      x[static_cast<size_t>(i)] = static_cast<float>(i) - 31.5F;
      x[static_cast<size_t>(64 + i)] = i % 2 == 0 ? -3.0F : 3.0F;
    }
    std::fill_n(x.begin() + 512, 256, 0.0F);
    const Encoded in(type, x, cols);
    std::vector<float> rounded = x;
    for (int64_t r = 0; r < 2; ++r) {
      round_row(type, rounded.data() + r * cols, cols);
      for (int64_t i = 0; i < cols; ++i) {
        ASSERT_EQ(
            static_cast<float>(in.at<int8_t>(r, 0, i)) * in.at<float>(r, in.rows.layout.scales, i / block),
            rounded[static_cast<size_t>(r * cols + i)])
            << r << " " << i;
      }
      for (int64_t i = 0; i < cols; i += 32) {
        int32_t sum = 0;
        for (int64_t j = i; j < i + 32; ++j) sum += in.at<int8_t>(r, 0, j);
        const int64_t sums = in.rows.layout.sums;
        if (type != GgmlRow::q8_1) {
          EXPECT_EQ(in.at<int16_t>(r, sums, i / 16) + in.at<int16_t>(r, sums, i / 16 + 1), sum);
        } else {
          float most = 0;
          for (int64_t j = i; j < i + 32; ++j)
            most = std::max(most, std::abs(x[static_cast<size_t>(r * cols + j)]));
          EXPECT_EQ(in.at<float>(r, sums, i / 32),
                    model::half_to_float(model::narrow_f16(most / 127 * static_cast<float>(sum))));
        }
      }
    }
  }
}

TEST(BlockRows, EveryPathEncodesAlike) {
  std::mt19937 random(67);
  std::vector<float> x = inputs(1, 1024, random);
  x[300] = std::numeric_limits<float>::infinity();
  x[600] = std::numeric_limits<float>::quiet_NaN();
  struct Result {
    std::vector<int8_t> codes = std::vector<int8_t>(1024), codes_k = codes;
    std::vector<float> scales = std::vector<float>(32), scaled = scales, scales_k = scales;
    std::vector<int16_t> sums = std::vector<int16_t>(64), sums_k = sums;
  };
  const auto run = [&](const BlockKernels& path) {
    Result r;
    path.encode_q8(x.data(), 32, r.codes.data(), r.scales.data(), r.sums.data(), r.scaled.data());
    path.encode_q8_k(x.data(), 4, r.codes_k.data(), r.scales_k.data(), r.sums_k.data());
    return r;
  };
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    return std::ranges::equal(a, b,
                              [](float p, float q) { return p == q || (std::isnan(p) && std::isnan(q)); });
  };
  const Result expected = run(block_kernels_portable());
  EXPECT_TRUE(std::isnan(expected.scales[9]) && std::isnan(expected.scales_k[1]));
  EXPECT_FALSE(std::isnan(expected.scales[8]) || std::isnan(expected.scales_k[0]));
  for (const BlockKernels* path : block_paths()) {
    const Result got = run(*path);
    EXPECT_EQ(got.codes, expected.codes) << name(path->cpu);
    EXPECT_EQ(got.codes_k, expected.codes_k);
    EXPECT_EQ(got.sums, expected.sums);
    EXPECT_EQ(got.sums_k, expected.sums_k);
    EXPECT_TRUE(same(got.scales, expected.scales) && same(got.scaled, expected.scaled));
    EXPECT_TRUE(same(got.scales_k, expected.scales_k));
  }
}

}  // namespace
}  // namespace qeval::quant
