#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/tensor.h"
#include "tests/model/fixtures.h"
#include "tests/reference_data.h"

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
  std::vector<size_t> exponents;  // bytes with the exponent of a scale
  float first, last;
  const char* sha256;  // of all floats
};

// Computed with the gguf package by tests/tools/make_block_fixtures.py.
const std::vector<BlockCase> kBlockCases{
    {DType::q8_0,
     {1},
     0x1.a89c000000000p-4F,
     -0x1.0a68000000000p-8F,
     "1713855aef65112e2410270811ba929a3b37881d35a2900058463c63cdb7ec8d"},
    {DType::q4_0,
     {1},
     0x1.4f80000000000p-3F,
     -0x1.e060000000000p-9F,
     "0f19d8e30b4ec216c81f1d95403d1b258d0406293ceb1c530cd58d761426b9c2"},
    {DType::q4_1,
     {1, 3},
     0x1.77a8000000000p-5F,
     -0x1.5c80000000000p-12F,
     "a0b3e11b01d8765b4d6a43cb991df471acba18844a847bd307ee46adefe3e1cb"},
    {DType::q5_0,
     {1},
     -0x1.4498000000000p-10F,
     0x1.8780000000000p-13F,
     "f1e605c072abf4bc309ba685926d3f7a318f7ac5b218e546e7784d83a4eece50"},
    {DType::q5_1,
     {1, 3},
     0x1.8641c00000000p+2F,
     -0x1.4c1f000000000p-2F,
     "0b27360273069a23657bfbc4d0ee919e8e770b74c41d4b786d003cd1810aa173"},
    {DType::q2_k,
     {81, 83},
     0x1.b841400000000p-4F,
     0x1.fc3f000000000p-3F,
     "4af6d9f20aaa437f1676ba6a2ec32e5e17bb7a500ea2c4c4d2f40c5bfc64747d"},
    {DType::q3_k,
     {109},
     0x1.2220000000000p-4F,
     0x1.d88c000000000p-8F,
     "35a210a9dca4e193db747045368e4e22626407bc9ffcd65e271367220e28e530"},
    {DType::q4_k,
     {1, 3},
     0x1.6cc2300000000p+2F,
     0x1.1917400000000p+4F,
     "36fa32b52ec7ead4a49f4b75bf7d0edcb48a323edb329df5330d48314521f6f4"},
    {DType::q5_k,
     {1, 3},
     0x1.b281b80000000p+10F,
     0x1.6764000000000p+6F,
     "922b22a26d2c23f67f631977488be5a6edc86d22f96ed073fbb73aeab69b628b"},
    {DType::q6_k,
     {209},
     -0x1.e02b200000000p+8F,
     0x1.9f9b000000000p+3F,
     "7e73701e9fe8059d0ff626bd163d26e048db98db5947ff7c0c16a4e1e4654f55"},
    {DType::iq1_s,
     {1},
     -0x1.0bff000000000p-8F,
     -0x1.ae50000000000p-4F,
     "b9eced332ca5f8e833441e3bbc527e0072b4b68854a23822f7383bfcc5daa200"},
    {DType::iq1_m,
     {55},
     -0x1.888e000000000p-5F,
     -0x1.5a10000000000p-13F,
     "3e3863b77cb08e4a4017f8ff1548478d2f19c3674d8f9ce82ef64ce90e9600eb"},
    {DType::iq2_xxs,
     {1},
     0x1.bff3000000000p-10F,
     0x1.38e4000000000p-11F,
     "76266ed06f280fa9d2f2de6a3b97245d4d0579a0f45154f1681692555b68560c"},
    {DType::iq2_xs,
     {1},
     -0x1.463a000000000p+5F,
     0x1.b510000000000p+1F,
     "af29d565245fbff335d705fd7eac8827f5281862069206761d297f3682748002"},
    {DType::iq2_s,
     {1},
     0x1.3fb0000000000p+2F,
     0x1.bdf0000000000p-12F,
     "dd465cf41a89278c3033bddbf73f044e095f2054b18c151569df5f6d60b3aa4a"},
    {DType::iq3_xxs,
     {1},
     0x1.286b800000000p+3F,
     0x1.88bc000000000p+6F,
     "ba6f8f6de8611d28a0be65b6995fae1f4c2af8d8110d6beb04bd218c7732cabe"},
    {DType::iq3_s,
     {1},
     0x1.608c000000000p-10F,
     -0x1.2656000000000p-6F,
     "57542f52f4ba4fcf63f069dbe78e2800855415fcb74c1f4e5525ca048d8fd527"},
    {DType::iq4_nl,
     {1},
     0x1.00de000000000p+1F,
     -0x1.7c4c000000000p-5F,
     "bdb498515a1e7a4c3d5c360d7bab8e3aeaf47de30dffe6c149892468c602faf4"},
    {DType::iq4_xs,
     {1},
     -0x1.be98800000000p+3F,
     -0x1.80ab000000000p-4F,
     "daa4d55453e5eb0490448e0264cbd2be8e1bb12f91eb310ffdbf60447c83014f"},
    {DType::tq1_0,
     {53},
     0x1.27c0000000000p-5F,
     0x1.8fc0000000000p-12F,
     "6785c06aa949687dfe0aa0c8a20416408a8a7531ba6247c553405920618b3909"},
    {DType::tq2_0,
     {65},
     -0x1.3900000000000p-1F,
     0x1.5d40000000000p-9F,
     "877f90f16a79690cc395225be1e645a3140f230477913dc02dc65a66911d9fbf"},
    {DType::mxfp4,
     {0},
     0x1.0000000000000p-65F,
     -0x1.0000000000000p+45F,
     "3aa9b49de0745952cc538c68ee2cabb26e047834f9ed9d11e5f752b7e80fe938"},
    {DType::nvfp4,
     {},
     0x0.0p+0F,
     -0x1.b000000000000p-4F,
     "649b8b99ec646cf6f784172d1e78cb49e2a4e788fd6f0db12f2c40216354ab9b"},
    {DType::q1_0,
     {1},
     0x1.4f80000000000p-5F,
     -0x1.4040000000000p-10F,
     "707d5d5f52056c18eb94464d6f74e815a76fb44033d6d3267052dc58246923c0"},
    {DType::q2_0,
     {1},
     0x1.4f80000000000p-5F,
     -0x1.4040000000000p-10F,
     "41757a1dddef330371791b4014556debd1c372f2b85c43c47f68f559e248ddcb"}};

constexpr size_t kBlocks = 64;

/// The same bytes as the script's.
std::string random_blocks(size_t block_bytes, const std::vector<size_t>& exponents) {
  std::string out;
  auto state = static_cast<uint32_t>(block_bytes);
  for (size_t i = 0; i < kBlocks * block_bytes; ++i) {
    state = state * 1664525U + 1013904223U;
    out += static_cast<char>(state >> 24);
  }
  for (size_t block = 0; block < kBlocks; ++block) {
    for (const size_t exponent : exponents) out[block * block_bytes + exponent] &= static_cast<char>(0xBF);
  }
  return out;
}

class BlockFormats : public testing::TestWithParam<BlockCase> {};

TEST_P(BlockFormats, EqualTheReferenceBitForBit) {
  const BlockCase& expected = GetParam();
  const DTypeInfo& type = info(expected.dtype);
  const std::string blocks = random_blocks(static_cast<size_t>(type.block_bytes), expected.exponents);
  const auto values = decoded(expected.dtype, blocks, static_cast<int64_t>(kBlocks) * type.block_size);
  EXPECT_EQ(values.front(), expected.first);
  EXPECT_EQ(values.back(), expected.last);
  EXPECT_EQ(sha256_hex(fixtures::raw(values)), expected.sha256);
}

INSTANTIATE_TEST_SUITE_P(All, BlockFormats, testing::ValuesIn(kBlockCases),
                         [](const auto& test) { return std::string(model::info(test.param.dtype).name); });

// A file with a tensor of random blocks of every type, decoded alike by ggml's C and by the gguf package.
TEST(GgufTypes, EqualTheReferenceBitForBit) {
  const auto folder = test::goldens() / "quantized";
  const GgufFile file(folder / "gguf-types.gguf");
  const auto expected = nlohmann::json::parse(read_file(folder / "gguf-types.json"));
  ASSERT_EQ(file.tensors().size(), expected.size());
  ASSERT_EQ(expected.size(), 26U);
  for (const TensorView& tensor : file.tensors()) {
    std::vector<float> values(static_cast<size_t>(tensor.element_count()));
    decode(tensor.dtype, tensor.bytes.data(), tensor.element_count(), values.data());
    EXPECT_EQ(sha256_hex(fixtures::raw(values)), expected.at(tensor.name).get<std::string>()) << tensor.name;
  }
}

// Exponents 0 and 1 stand for subnormal scales; code 8 is +0.
TEST(Mxfp4, ReadsTheSmallestScalesAndNoNegativeZero) {
  for (const int exponent : {0, 1, 2, 128}) {
    std::string block(17, '\x81');
    block[0] = static_cast<char>(exponent);
    const auto values = decoded(DType::mxfp4, block, 32);
    EXPECT_EQ(values[0], std::ldexp(1.0F, exponent - 128)) << exponent;
    EXPECT_EQ(std::bit_cast<uint32_t>(values[16]), 0U) << exponent;
  }
}

TEST(Nvfp4, ScalesOf0And7fAreZeroAndTheSignIsNotRead) {
  const auto scaled = [](int scale) {
    std::string block(36, '\x22');
    block[0] = static_cast<char>(scale);
    return decoded(DType::nvfp4, block, 64)[0];  // code 2 is 1
  };
  EXPECT_EQ(scaled(0), 0.0F);
  EXPECT_EQ(scaled(0x7F), 0.0F);
  EXPECT_EQ(scaled(1), std::ldexp(1.0F, -9));
  EXPECT_EQ(scaled(0x7E), 448.0F);
  EXPECT_EQ(scaled(0x38), 1.0F);
  EXPECT_EQ(scaled(0xB8), 1.0F);
}

TEST(Iq4Xs, ScaleHasBitsInTwoPlaces) {
  std::string block(136, '\x99');  // code 9: 13
  block.replace(0, 8,
                fixtures::raw(uint16_t{0x3C00}) + fixtures::raw(uint16_t{0x8000}) + std::string(4, '\x10'));
  const auto values = decoded(DType::iq4_xs, block, 256);
  EXPECT_EQ(values[0], -32.0F * 13);   // 0
  EXPECT_EQ(values[32], -31.0F * 13);  // 1
  EXPECT_EQ(values[255], 1.0F * 13);   // 1 + 2·16
}

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
