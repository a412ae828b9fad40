#include "model/checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/model/fixtures.h"

namespace qeval::model {
namespace {

using fixtures::error_of;
using fixtures::gguf_string;
using fixtures::gguf_value;
using fixtures::GgufParts;
using fixtures::raw;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class Gguf : public testing::Test {
 protected:
  GgufFile open(const GgufParts& parts) {
    fixtures::write(folder_ / "x.gguf", fixtures::gguf(parts));
    return GgufFile(folder_ / "x.gguf");
  }
  std::string refusal(const GgufParts& parts) {
    return error_of([&] { open(parts); });
  }
  fixtures::TemporaryFolder folder_;
};

GgufParts two_gguf_tensors() {
  GgufParts parts;
  parts.values = {fixtures::gguf_text("general.architecture", "llama")};
  parts.tensors = {fixtures::f32_tensor("a", {2, 3}, {1, 2, 3, 4, 5, 6}),
                   {.name = "b", .dtype = DType::q8_0, .shape = {2, 32}, .bytes = std::string(68, '\1')}};
  return parts;
}

std::string array(uint32_t type, uint64_t count, const std::string& elements) {
  return raw(type) + raw(count) + elements;
}

TEST_F(Gguf, ReadsTensors) {
  for (const uint32_t version : {2U, 3U}) {
    GgufParts parts = two_gguf_tensors();
    parts.version = version;
    const GgufFile file = open(parts);
    ASSERT_EQ(file.tensors().size(), 2U);
    EXPECT_THAT(file.require("a").shape, ElementsAre(2, 3));
    EXPECT_EQ(file.require("b").dtype, DType::q8_0);
    EXPECT_EQ(file.require("b").bytes.size(), 68U);
    float values[6];
    decode(DType::f32, file.require("a").bytes.data(), 6, values);
    EXPECT_THAT(values, ElementsAre(1, 2, 3, 4, 5, 6));
  }
}

TEST_F(Gguf, HonoursTheAlignment) {
  GgufParts parts = two_gguf_tensors();
  parts.values.push_back(fixtures::gguf_u32("general.alignment", 256));
  parts.alignment = 256;
  const GgufFile file = open(parts);
  EXPECT_EQ(file.require("b").bytes[67], std::byte{1});
  for (const uint32_t bad : {0U, 3U, 1U << 20}) {
    parts.values.back() = fixtures::gguf_u32("general.alignment", bad);
    EXPECT_THAT(refusal(parts), HasSubstr("general.alignment"));
  }
}

TEST_F(Gguf, ReadsValuesOfEveryType) {
  GgufParts parts;
  parts.values = {gguf_value("u8", 0, raw(uint8_t{200})),
                  gguf_value("i8", 1, raw(int8_t{-3})),
                  gguf_value("u16", 2, raw(uint16_t{60000})),
                  gguf_value("i16", 3, raw(int16_t{-300})),
                  gguf_value("u32", 4, raw(uint32_t{4000000000})),
                  gguf_value("i32", 5, raw(int32_t{-70000})),
                  gguf_value("f32", 6, raw(0.5F)),
                  gguf_value("bool", 7, raw(uint8_t{1})),
                  gguf_value("text", 8, gguf_string("hello")),
                  gguf_value("u64", 10, raw(uint64_t{1} << 40)),
                  gguf_value("i64", 11, raw(int64_t{-5})),
                  gguf_value("f64", 12, raw(0.25)),
                  gguf_value("texts", 9, array(8, 2, gguf_string("x") + gguf_string(""))),
                  gguf_value("numbers", 9, array(6, 2, raw(1.5F) + raw(-2.0F))),
                  gguf_value("integers", 9, array(5, 2, raw(int32_t{-1}) + raw(int32_t{7}))),
                  gguf_value("flags", 9, array(7, 2, "\1" + std::string(1, '\0')))};
  const GgufFile file = open(parts);
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -3);
  EXPECT_EQ(file.integer("u16"), 60000);
  EXPECT_EQ(file.integer("i16"), -300);
  EXPECT_EQ(file.integer("u32"), 4000000000);
  EXPECT_EQ(file.integer("i32"), -70000);
  EXPECT_EQ(file.number("f32"), 0.5);
  EXPECT_TRUE(file.boolean_or("bool", false));
  EXPECT_EQ(file.string("text"), "hello");
  EXPECT_EQ(file.integer("u64"), int64_t{1} << 40);
  EXPECT_EQ(file.integer("i64"), -5);
  EXPECT_EQ(file.number("f64"), 0.25);
  EXPECT_THAT(file.strings("texts"), ElementsAre("x", ""));
  EXPECT_THAT(*file.find_numbers("numbers"), ElementsAre(1.5, -2.0));
  EXPECT_THAT(*file.find_integers("integers"), ElementsAre(-1, 7));
  EXPECT_THAT(*file.find_integers("flags"), ElementsAre(1, 0));
}

TEST_F(Gguf, LookUpsDefaultMissingKeysOnly) {
  GgufParts parts;
  parts.values = {fixtures::gguf_u32("number", 5), fixtures::gguf_text("text", "x")};
  const GgufFile file = open(parts);
  EXPECT_EQ(file.integer_or("missing", 3), 3);
  EXPECT_EQ(file.integer_or("number", 3), 5);
  EXPECT_EQ(file.number_or("missing", 0.5), 0.5);
  EXPECT_EQ(file.string_or("missing", "y"), "y");
  EXPECT_TRUE(file.boolean_or("missing", true));
  EXPECT_EQ(file.find_strings("missing"), nullptr);
  EXPECT_THAT(error_of([&] { file.integer("missing"); }), HasSubstr("missing (an integer) is missing"));
  EXPECT_THAT(error_of([&] { file.integer_or("text", 3); }), HasSubstr("text is not an integer"));
  EXPECT_THAT(error_of([&] { file.find_strings("number"); }), HasSubstr("number is not an array of strings"));
}

TEST_F(Gguf, RefusesEveryTruncation) {
  GgufParts parts = two_gguf_tensors();
  parts.values.push_back(gguf_value("texts", 9, array(8, 2, gguf_string("x") + gguf_string("yz"))));
  parts.values.push_back(gguf_value("integers", 9, array(5, 2, raw(int32_t{-1}) + raw(int32_t{7}))));
  const auto path = folder_ / "x.gguf";
  fixtures::expect_error_at_every_length(path, fixtures::gguf(parts), [&] { GgufFile{path}; });
}

TEST_F(Gguf, SurvivesEveryCorruptedByte) {
  const auto path = folder_ / "x.gguf";
  fixtures::survive_every_corrupted_byte(path, fixtures::gguf(two_gguf_tensors()), [&] {
    const GgufFile file(path);
    for (const TensorView& tensor : file.tensors()) {
      std::vector<float> values(static_cast<size_t>(tensor.element_count()));
      if (info(tensor.dtype).is_float)
        decode(tensor.dtype, tensor.bytes.data(), tensor.element_count(), values.data());
    }
  });
}

TEST_F(Gguf, RefusesOtherFiles) {
  GgufParts parts = two_gguf_tensors();
  parts.magic = "GGML";
  EXPECT_THAT(refusal(parts), HasSubstr("not a GGUF file"));
  parts.magic = "GGUF";
  for (const uint32_t version : {0U, 1U, 4U}) {
    parts.version = version;
    EXPECT_THAT(refusal(parts), HasSubstr(fmt::format("GGUF version {}; accepted: 2 and 3", version)));
  }
  parts.version = 3U << 24;
  EXPECT_THAT(refusal(parts), HasSubstr("big-endian"));
}

TEST_F(Gguf, RefusesBadValues) {
  const auto with = [&](const std::string& value) {
    GgufParts parts = two_gguf_tensors();
    parts.values.push_back(value);
    return refusal(parts);
  };
  EXPECT_THAT(with(fixtures::gguf_text("general.architecture", "x")), HasSubstr("occurs twice"));
  EXPECT_THAT(with(gguf_value("k", 13, "")), HasSubstr("value type 13"));
  EXPECT_THAT(with(gguf_value("k", 7, "\2")), HasSubstr("boolean 2"));
  EXPECT_THAT(with(gguf_value("k", 10, raw(uint64_t{1} << 63))), HasSubstr("below 2^63"));
  EXPECT_THAT(with(gguf_value("k", 9, array(9, 0, ""))), HasSubstr("arrays not nested"));
  EXPECT_THAT(with(gguf_value("k", 9, array(77, 0, ""))), HasSubstr("array of value type 77"));
  EXPECT_THAT(with(gguf_value("k", 9, array(4, uint64_t{1} << 62, ""))), HasSubstr("claims"));
  EXPECT_THAT(with(gguf_value("k", 8, raw(uint64_t{1} << 60))), HasSubstr("truncated"));
  EXPECT_THAT(with(gguf_value("", 7, "\1")), HasSubstr("metadata key of 0 bytes"));
  EXPECT_THAT(with(fixtures::gguf_u32("split.count", 3)), HasSubstr("split.count is 3"));
}

class SplitGguf : public testing::Test {
 protected:
  /// Part `number` of `count`, with what says so and a tensor of its own.
  static GgufParts part(int number, int count) {
    GgufParts parts;
    if (number == 1) {
      parts.values = {fixtures::gguf_text("general.architecture", "llama"),
                      fixtures::gguf_text("general.name", "split")};
    }
    parts.values.push_back(u16("split.no", number - 1));
    parts.values.push_back(u16("split.count", count));
    parts.values.push_back(gguf_value("split.tensors.count", 5, raw(int32_t{count})));
    parts.tensors = {
        fixtures::f32_tensor("t" + std::to_string(number), {2}, {static_cast<float>(number), 0})};
    return parts;
  }
  static std::string u16(const char* key, int value) {
    return gguf_value(key, 2, raw(static_cast<uint16_t>(value)));
  }
  std::filesystem::path name(int number, int count = 3) const {
    return folder_ / fmt::format("m-{:05}-of-{:05}.gguf", number, count);
  }
  void write(int number, const GgufParts& parts) { fixtures::write(name(number), fixtures::gguf(parts)); }
  void write_all() {
    for (int number = 1; number <= 3; ++number) write(number, part(number, 3));
  }
  /// What is said of the model when one part is another.
  std::string with(int number, const GgufParts& parts) {
    write_all();
    write(number, parts);
    return error_of([&] { GgufFile{name(2)}; });
  }
  fixtures::TemporaryFolder folder_;
};

TEST_F(SplitGguf, IsOpenedByAnyPart) {
  write_all();
  for (const int given : {1, 2, 3}) {
    const GgufFile file(name(given));
    ASSERT_EQ(file.tensors().size(), 3U);
    EXPECT_EQ(file.path(), name(1));
    EXPECT_EQ(file.string("general.name"), "split");
    for (int number = 1; number <= 3; ++number) {
      float value = 0;
      decode(DType::f32, file.require("t" + std::to_string(number)).bytes.data(), 1, &value);
      EXPECT_EQ(value, static_cast<float>(number));
    }
  }
}

// llama-gguf-split makes such with --no-tensor-first-split.
TEST_F(SplitGguf, MayHaveAFirstPartOfKeysAlone) {
  GgufParts keys = part(1, 3);
  keys.tensors.clear();
  keys.values.back() = gguf_value("split.tensors.count", 5, raw(int32_t{2}));
  write(1, keys);
  for (const int number : {2, 3}) {
    GgufParts parts = part(number, 3);
    parts.values.back() = keys.values.back();
    write(number, parts);
  }
  EXPECT_EQ(GgufFile(name(3)).tensors().size(), 2U);
}

TEST_F(SplitGguf, LeavesAVocabularyThatIsOneFile) {
  write_all();
  const auto vocabulary = folder_ / "tokenizer.gguf";
  fixtures::write(vocabulary, GgufFile(name(1)).without_tensors());
  const GgufFile file(vocabulary);
  EXPECT_EQ(file.string("general.name"), "split");
  EXPECT_EQ(file.find_value("split.count"), nullptr);
  EXPECT_TRUE(file.tensors().empty());
}

TEST_F(SplitGguf, RefusesWhatIsNotWhole) {
  write_all();
  std::filesystem::remove(name(3));
  const std::string message = error_of([&] { GgufFile{name(1)}; });
  EXPECT_THAT(message, AllOf(HasSubstr("part 3 of 3 is missing"), HasSubstr(name(3).string())));
  std::filesystem::remove(name(1));
  EXPECT_THAT(error_of([&] { GgufFile{name(2)}; }), HasSubstr(name(1).string()));
  write_all();
  fixtures::write(name(2), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  EXPECT_THAT(error_of([&] { GgufFile{name(1)}; }),
              AllOf(HasSubstr(name(2).string()), HasSubstr("git lfs pull")));
  EXPECT_THAT(with(2, part(3, 3)),
              AllOf(HasSubstr(name(2).string()), HasSubstr("split.no is 2; accepted: 1")));
  EXPECT_THAT(with(1, part(1, 2)), HasSubstr("split.count is 2; the name says 3"));
  EXPECT_THAT(with(3, part(3, 4)),
              AllOf(HasSubstr(name(3).string()), HasSubstr("split.count is 4; accepted: 3")));
}

TEST_F(SplitGguf, RefusesPartsThatDisagree) {
  GgufParts fewer = part(3, 3);
  fewer.tensors.clear();
  EXPECT_THAT(with(3, fewer), HasSubstr("split.tensors.count is 3; accepted: 2"));
  GgufParts twice = part(3, 3);
  twice.tensors[0].name = "t1";
  EXPECT_THAT(with(3, twice), HasSubstr("tensor t1 occurs twice"));
  GgufParts other = part(2, 3);
  other.values.push_back(fixtures::gguf_text("general.name", "x"));
  EXPECT_THAT(with(2, other), AllOf(HasSubstr(name(2).string()), HasSubstr("metadata key general.name")));
  GgufParts silent = part(2, 3);
  silent.values.erase(silent.values.begin());
  EXPECT_THAT(with(2, silent), HasSubstr("split.no (an integer) is missing"));
  GgufParts whole = part(1, 3);
  whole.values.resize(2);
  EXPECT_THAT(with(1, whole), HasSubstr("the name says part 1 of 3, and split.count is missing"));
  GgufParts text = part(1, 3);
  text.values[3] = fixtures::gguf_text("split.count", "3");
  EXPECT_THAT(with(1, text), HasSubstr("split.count is not an integer"));
}

TEST_F(SplitGguf, GoesByTheName) {
  fixtures::write(folder_ / "m.gguf", fixtures::gguf(part(1, 3)));
  EXPECT_THAT(error_of([&] { GgufFile(folder_ / "m.gguf"); }),
              HasSubstr("split.count is 3; accepted: all parts"));
  fixtures::write(name(4), "");
  EXPECT_THAT(error_of([&] { GgufFile{name(4)}; }), HasSubstr("the name says part 4 of 3"));
  fixtures::write(name(0), "");
  EXPECT_THAT(error_of([&] { GgufFile{name(0)}; }), HasSubstr("the name says part 0 of 3"));
  // One file that says nothing of parts, and one part of one.
  fixtures::write(name(1, 1), fixtures::gguf(two_gguf_tensors()));
  EXPECT_EQ(GgufFile(name(1, 1)).tensors().size(), 2U);
  fixtures::write(name(1, 1), fixtures::gguf(part(1, 1)));
  EXPECT_EQ(GgufFile(name(1, 1)).tensors().size(), 1U);
}

TEST_F(Gguf, RefusesAbsurdCounts) {
  for (const bool tensors : {false, true}) {
    const uint64_t absurd = uint64_t{1} << 60;
    fixtures::write(folder_ / "x.gguf",
                    "GGUF" + raw(uint32_t{3}) + raw(tensors ? absurd : 0) + raw(tensors ? 0 : absurd));
    EXPECT_THAT(error_of([&] { GgufFile(folder_ / "x.gguf"); }), HasSubstr("cannot fit"));
  }
}

TEST_F(Gguf, RefusesBadTensors) {
  const GgufParts good = two_gguf_tensors();
  const auto with = [&](auto change) {
    GgufParts parts = good;
    change(parts);
    return refusal(parts);
  };
  EXPECT_THAT(with([](GgufParts& p) { p.tensors[1].name = "a"; }), HasSubstr("tensor a occurs twice"));
  EXPECT_THAT(
      with([](GgufParts& p) {
        p.types = {0, 9};
      }),
      AllOf(HasSubstr("tensor b has type Q8_1; accepted: F32, F16,"), HasSubstr("NVFP4, Q1_0, Q2_0")));
  EXPECT_THAT(with([](GgufParts& p) { p.types = {0, 15}; }), HasSubstr("tensor b has type Q8_K; accepted"));
  EXPECT_THAT(with([](GgufParts& p) { p.types = {0, 43}; }), HasSubstr("number 43"));
  EXPECT_THAT(with([](GgufParts& p) { p.types = {0, 1000}; }), HasSubstr("number 1000"));
  EXPECT_THAT(with([](GgufParts& p) { p.tensors[1].shape = {32, 2}; }), HasSubstr("whole number of blocks"));
  EXPECT_THAT(with([](GgufParts& p) { p.tensors[1].shape = {3, 32}; }), HasSubstr("102 bytes at offset 32"));
  EXPECT_THAT(with([](GgufParts& p) { p.tensors[0].shape = {}; }), HasSubstr("0 dimensions"));
  EXPECT_THAT(with([](GgufParts& p) { p.tensors[0].shape = {1, 1, 1, 2, 3}; }), HasSubstr("5 dimensions"));
  EXPECT_THAT(with([](GgufParts& p) { p.tensors[0].shape = {0, 3}; }), HasSubstr("extent of 0"));
  EXPECT_THAT(with([](GgufParts& p) {
                p.tensors[0].shape = {-1, 3};
              }),
              HasSubstr("extent of 18446744073709551615"));
  EXPECT_THAT(with([](GgufParts& p) {
                p.tensors[0].shape = {int64_t{1} << 40, int64_t{1} << 40};
              }),
              HasSubstr("too large"));
  EXPECT_THAT(with([](GgufParts& p) { p.offsets = {0, 0}; }), HasSubstr("overlap"));
  EXPECT_THAT(with([](GgufParts& p) { p.offsets = {0, 33}; }), HasSubstr("a multiple of 32"));
  EXPECT_THAT(with([](GgufParts& p) { p.offsets = {0, 64}; }), HasSubstr("within the 100 bytes"));
  EXPECT_THAT(with([](GgufParts& p) { p.offsets = {0, ~uint64_t{31}}; }), HasSubstr("within the 100 bytes"));
}

}  // namespace
}  // namespace qeval::model
