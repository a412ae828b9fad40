#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/model/fixtures.h"

namespace qeval::model {
namespace {

using fixtures::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<fixtures::Tensor> two_tensors() {
  return {fixtures::f32_tensor("b", {2, 2}, {1, 2, 3, 4}),
          {.name = "a", .dtype = DType::bf16, .shape = {2}, .bytes = fixtures::raw(uint32_t{0xBF803FC0})}};
}

TEST(Safetensors, ReadsTensors) {
  const fixtures::TemporaryFolder folder;
  fixtures::write(folder / "x.safetensors", fixtures::safetensors(two_tensors()));
  const auto checkpoint = open_safetensors(folder / "x.safetensors");
  ASSERT_EQ(checkpoint->tensors().size(), 2U);
  EXPECT_EQ(checkpoint->format(), "safetensors");
  EXPECT_THAT(checkpoint->require("b").shape, ElementsAre(2, 2));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("b")), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(checkpoint->require("a").dtype, DType::bf16);
  EXPECT_THAT(fixtures::values_of(checkpoint->require("a")), ElementsAre(1.5F, -1.0F));
  EXPECT_EQ(checkpoint->find("c"), nullptr);
  EXPECT_THAT(error_of([&] { checkpoint->require("c"); }), HasSubstr("tensor c is missing"));
}

// Writers pad the header, but need not: kernels still find aligned elements.
TEST(Safetensors, AlignsElementsThatTheFileLeavesUnaligned) {
  const fixtures::TemporaryFolder folder;
  for (size_t padding = 0; padding < 8; ++padding) {
    fixtures::write(folder / "x.safetensors", fixtures::safetensors(two_tensors(), padding));
    const auto checkpoint = open_safetensors(folder / "x.safetensors");
    const TensorView& tensor = checkpoint->require("b");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 4, 0U);
    EXPECT_THAT(fixtures::values_of(tensor), ElementsAre(1, 2, 3, 4));
  }
}

TEST(Safetensors, RefusesEveryTruncation) {
  const fixtures::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  fixtures::expect_error_at_every_length(path, fixtures::safetensors(two_tensors()),
                                         [&] { open_safetensors(path); });
}

TEST(Safetensors, SurvivesEveryCorruptedByte) {
  const fixtures::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  fixtures::survive_every_corrupted_byte(path, fixtures::safetensors(two_tensors()), [&] {
    const auto checkpoint = open_safetensors(path);
    for (const TensorView& tensor : checkpoint->tensors()) {
      if (info(tensor.dtype).is_float) fixtures::values_of(tensor);
    }
  });
}

struct BadHeader {
  const char* header;
  const char* message;
};

class BadSafetensors : public testing::TestWithParam<BadHeader> {};

TEST_P(BadSafetensors, IsRefused) {
  const fixtures::TemporaryFolder folder;
  fixtures::write(folder / "x.safetensors", fixtures::safetensors(GetParam().header, std::string(16, '\0')));
  EXPECT_THAT(error_of([&] { open_safetensors(folder / "x.safetensors"); }),
              testing::AllOf(HasSubstr("x.safetensors"), HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, BadSafetensors,
    testing::Values(
        BadHeader{"not json", "not JSON"}, BadHeader{"[]", "not a JSON object"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4]}})", "lacks"}, BadHeader{R"({"a": 3})", "lacks"},
        BadHeader{R"({"a": {"dtype": "F8_E5M2", "shape": [16], "data_offsets": [0, 16]}})", "F8_E5M2"},
        BadHeader{R"({"a": {"dtype": 3, "shape": [16], "data_offsets": [0, 16]}})", "dtype 3"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}})", "does not fit"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}})", "shape holds -4"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}})", "shape holds 4.0"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}})", "not an array"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967297], "data_offsets": [0, 16]}})",
                  "does not fit"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,4], "data_offsets": [0, 16]}})",
                  "9 dimensions"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}})", "not a range within"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}})", "not a range within"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 16]}})",
                  "not a range within"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}})", "belong to none"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}})", "leave a hole"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                      "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
                  "overlap"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                      "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
                  "occurs twice"}));

TEST(Safetensors, RefusesAnAbsurdHeaderLength) {
  const fixtures::TemporaryFolder folder;
  for (const uint64_t length : {uint64_t{0} - 1, uint64_t{1} << 40, uint64_t{100}}) {
    fixtures::write(folder / "x.safetensors", fixtures::raw(length) + "{}");
    EXPECT_THAT(error_of([&] { open_safetensors(folder / "x.safetensors"); }),
                HasSubstr("not a safetensors file"));
  }
}

TEST(Safetensors, RefusesDeepNesting) {
  const fixtures::TemporaryFolder folder;
  const std::string deep(100'000, '[');
  fixtures::write(folder / "x.safetensors", fixtures::safetensors(R"({"a":)" + deep, ""));
  EXPECT_THAT(error_of([&] { open_safetensors(folder / "x.safetensors"); }), HasSubstr("nested deeper"));
}

class Sharded : public testing::Test {
 protected:
  void write_shards(const std::string& index) {
    const auto tensors = two_tensors();
    fixtures::write(folder_ / "one.safetensors", fixtures::safetensors({tensors[0]}));
    fixtures::write(folder_ / "two.safetensors", fixtures::safetensors({tensors[1]}));
    fixtures::write(folder_ / "model.safetensors.index.json", index);
  }
  std::string open_error() {
    return error_of([&] { open_directory(folder_.path()); });
  }
  fixtures::TemporaryFolder folder_;
};

TEST_F(Sharded, ReadsAllShards) {
  write_shards(R"({"metadata": {}, "weight_map": {"b": "one.safetensors", "a": "two.safetensors"}})");
  const auto checkpoint = open_directory(folder_.path());
  EXPECT_THAT(fixtures::values_of(checkpoint->require("b")), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("a")), ElementsAre(1.5F, -1.0F));
  EXPECT_EQ(checkpoint->format(), "safetensors");
}

TEST_F(Sharded, StaysInItsFolder) {
  for (const char* name :
       {"../one.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "one\\u0000x"}) {
    write_shards(fmt::format(R"({{"weight_map": {{"b": "{}"}}}})", name));
    EXPECT_THAT(open_error(), HasSubstr("in the same folder")) << name;
  }
}

/// Whether it is missed is known when the configuration is.
TEST_F(Sharded, NamesTheFileOfATensorThatOnlyTheIndexLists) {
  write_shards(R"({"weight_map": {"b": "one.safetensors", "a": "one.safetensors"}})");
  const auto checkpoint = open_directory(folder_.path());
  EXPECT_EQ(checkpoint->find("a"), nullptr);
  ASSERT_EQ(checkpoint->listed_only().size(), 1U);
  EXPECT_EQ(checkpoint->listed_only().at("a"), folder_ / "one.safetensors");
  EXPECT_THAT(error_of([&] { checkpoint->require("a"); }), HasSubstr("one.safetensors: tensor a is missing"));
  EXPECT_THAT(error_of([&] { checkpoint->require("a\n\x1b[31m"); }),
              HasSubstr(R"(index.json: tensor a\x0a\x1b[31m is missing)"));
}

TEST_F(Sharded, RefusesAnIndexThatDoesNotFit) {
  write_shards(R"({"weight_map": {"b": "three.safetensors"}})");
  EXPECT_THAT(open_error(), HasSubstr("three.safetensors: cannot open"));
  write_shards(R"({"weight_map": {"b": 1}})");
  EXPECT_THAT(open_error(), HasSubstr("in the same folder"));
  write_shards(R"({"weight_map": {}})");
  EXPECT_THAT(open_error(), HasSubstr("empty"));
  write_shards("{}");
  EXPECT_THAT(open_error(), HasSubstr("weight_map"));
}

TEST(Directory, WithoutWeightsSaysWhatItLookedFor) {
  const fixtures::TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { open_directory(folder.path()); }),
              testing::AllOf(HasSubstr("model.safetensors.index.json"), HasSubstr("pytorch_model.bin")));
}

TEST(Directory, PrefersSafetensors) {
  const fixtures::TemporaryFolder folder;
  fixtures::write(folder / "pytorch_model.bin", fixtures::pytorch(two_tensors()));
  EXPECT_EQ(open_directory(folder.path())->format(), "pytorch");
  fixtures::write(folder / "model.safetensors", fixtures::safetensors(two_tensors()));
  EXPECT_EQ(open_directory(folder.path())->format(), "safetensors");
}

}  // namespace
}  // namespace qeval::model
