#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "fixtures.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/tensor.h"

namespace qeval::model {
namespace {

const std::byte* bytes_of(const std::string& text) {
  return reinterpret_cast<const std::byte*>(text.data());
}

std::vector<float> decoded(DType dtype, const std::string& bytes, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  decode(dtype, bytes_of(bytes), count, values.data());
  return values;
}

struct BlockCase {
  DType dtype;
  std::vector<size_t> halves;  // where a block has F16 fields
  float first, last;
  const char* sha256;  // of all floats
};

// Computed with the gguf package by tests/tools/make_block_fixtures.py.
const std::vector<BlockCase> kBlockCases{
    {DType::q8_0,
     {0},
     0x1.a89c000000000p-4F,
     -0x1.0a68000000000p-8F,
     "1713855aef65112e2410270811ba929a3b37881d35a2900058463c63cdb7ec8d"},
    {DType::q4_0,
     {0},
     0x1.4f80000000000p-3F,
     -0x1.e060000000000p-9F,
     "0f19d8e30b4ec216c81f1d95403d1b258d0406293ceb1c530cd58d761426b9c2"},
    {DType::q4_1,
     {0, 2},
     0x1.77a8000000000p-5F,
     -0x1.5c80000000000p-12F,
     "a0b3e11b01d8765b4d6a43cb991df471acba18844a847bd307ee46adefe3e1cb"},
    {DType::q5_0,
     {0},
     -0x1.4498000000000p-10F,
     0x1.8780000000000p-13F,
     "f1e605c072abf4bc309ba685926d3f7a318f7ac5b218e546e7784d83a4eece50"},
    {DType::q5_1,
     {0, 2},
     0x1.8641c00000000p+2F,
     -0x1.4c1f000000000p-2F,
     "0b27360273069a23657bfbc4d0ee919e8e770b74c41d4b786d003cd1810aa173"},
    {DType::q2_k,
     {80, 82},
     0x1.b841400000000p-4F,
     0x1.fc3f000000000p-3F,
     "4af6d9f20aaa437f1676ba6a2ec32e5e17bb7a500ea2c4c4d2f40c5bfc64747d"},
    {DType::q3_k,
     {108},
     0x1.2220000000000p-4F,
     0x1.d88c000000000p-8F,
     "35a210a9dca4e193db747045368e4e22626407bc9ffcd65e271367220e28e530"},
    {DType::q4_k,
     {0, 2},
     0x1.6cc2300000000p+2F,
     0x1.1917400000000p+4F,
     "36fa32b52ec7ead4a49f4b75bf7d0edcb48a323edb329df5330d48314521f6f4"},
    {DType::q5_k,
     {0, 2},
     0x1.b281b80000000p+10F,
     0x1.6764000000000p+6F,
     "922b22a26d2c23f67f631977488be5a6edc86d22f96ed073fbb73aeab69b628b"},
    {DType::q6_k,
     {208},
     -0x1.e02b200000000p+8F,
     0x1.9f9b000000000p+3F,
     "7e73701e9fe8059d0ff626bd163d26e048db98db5947ff7c0c16a4e1e4654f55"}};

constexpr size_t kBlocks = 64;

/// The same bytes as the script's.
std::string random_blocks(size_t block_bytes, const std::vector<size_t>& halves) {
  std::string out;
  auto state = static_cast<uint32_t>(block_bytes);
  for (size_t i = 0; i < kBlocks * block_bytes; ++i) {
    state = state * 1664525U + 1013904223U;
    out += static_cast<char>(state >> 24);
  }
  for (size_t block = 0; block < kBlocks; ++block) {
    for (const size_t half : halves) out[block * block_bytes + half + 1] &= static_cast<char>(0xBF);
  }
  return out;
}

class BlockFormats : public testing::TestWithParam<BlockCase> {};

TEST_P(BlockFormats, EqualTheReferenceBitForBit) {
  const BlockCase& expected = GetParam();
  const DTypeInfo& type = info(expected.dtype);
  const std::string blocks = random_blocks(static_cast<size_t>(type.block_bytes), expected.halves);
  const auto values = decoded(expected.dtype, blocks, static_cast<int64_t>(kBlocks) * type.block_size);
  EXPECT_EQ(values.front(), expected.first);
  EXPECT_EQ(values.back(), expected.last);
  EXPECT_EQ(sha256_hex(fixtures::raw(values)), expected.sha256);
}

INSTANTIATE_TEST_SUITE_P(All, BlockFormats, testing::ValuesIn(kBlockCases),
                         [](const auto& test) { return std::string(model::info(test.param.dtype).name); });

// Every half, by the definition of the format.
TEST(PlainFormats, F16) {
  std::string bytes;
  for (uint32_t half = 0; half < 65536; ++half) bytes += fixtures::raw(static_cast<uint16_t>(half));
  const auto values = decoded(DType::f16, bytes, 65536);
  for (uint32_t half = 0; half < 65536; ++half) {
    const int exponent = static_cast<int>(half >> 10 & 31);
    const auto mantissa = static_cast<double>(half & 1023);
    double expected = exponent == 0   ? std::ldexp(mantissa, -24)
                      : exponent < 31 ? std::ldexp(1024 + mantissa, exponent - 25)
                      : mantissa == 0 ? std::numeric_limits<double>::infinity()
                                      : std::numeric_limits<double>::quiet_NaN();
    if ((half & 0x8000) != 0) expected = -expected;
    const float value = values[half];
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << half;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(static_cast<float>(expected)))
          << half;
    }
  }
}

TEST(PlainFormats, Bf16IsTheUpperHalfOfAFloat) {
  const std::string bytes = fixtures::raw(uint16_t{0x3FC0}) + fixtures::raw(uint16_t{0xC2F7});
  EXPECT_THAT(decoded(DType::bf16, bytes, 2), testing::ElementsAre(1.5F, -123.5F));
}

TEST(PlainFormats, F32IsCopiedAndF64Rounded) {
  EXPECT_THAT(decoded(DType::f32, fixtures::raw(0.1F), 1), testing::ElementsAre(0.1F));
  EXPECT_THAT(decoded(DType::f64, fixtures::raw(0.1) + fixtures::raw(-2.0), 2),
              testing::ElementsAre(0.1F, -2.0F));
}

TEST(Layout, CountsBytes) {
  EXPECT_EQ(byte_count(DType::f16, std::vector<int64_t>{3, 5}), 30);
  EXPECT_EQ(byte_count(DType::f32, std::vector<int64_t>{}), 4);
  EXPECT_EQ(byte_count(DType::f32, std::vector<int64_t>{0, 5}), 0);
  EXPECT_EQ(byte_count(DType::q6_k, std::vector<int64_t>{2, 512}), 840);
}

TEST(Layout, RefusesImpossibleShapes) {
  EXPECT_EQ(byte_count(DType::f32, std::vector<int64_t>{-1, 5}), std::nullopt);
  EXPECT_EQ(byte_count(DType::q8_0, std::vector<int64_t>{2, 33}), std::nullopt);
  EXPECT_EQ(byte_count(DType::f32, std::vector<int64_t>{int64_t{1} << 32, int64_t{1} << 32}), std::nullopt);
  EXPECT_EQ(byte_count(DType::f32, std::vector<int64_t>{int64_t{1} << 61}), std::nullopt);
  EXPECT_EQ(byte_count(DType::f32, std::vector<int64_t>{0, int64_t{1} << 62, 8}), std::nullopt);
}

}  // namespace
}  // namespace qeval::model
