#include "quant/calibrate/calibration_text.h"

#include <fstream>
#include <optional>
#include <span>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/model/fixtures.h"

namespace qeval::quant {
namespace {

using model::fixtures::error_of;
using model::fixtures::write;
using test::TemporaryFolder;
using testing::HasSubstr;

/// A token per byte.
class ByteTokenizer : public model::Tokenizer {
 public:
  explicit ByteTokenizer(std::optional<int32_t> bos = {}, std::optional<int32_t> eos = {}) {
    bos_id_ = bos;
    eos_id_ = eos;
  }
  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += static_cast<char>(id);
    return text;
  }
  int32_t vocab_size() const override { return 256; }
  std::string_view kind() const override { return "bytes"; }
};

TEST(CalibrationText, DrawsWindowsWithTheSeed) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 500; ++i) text += std::to_string(i) + " ";
  write(folder / "text.txt", text);
  const ByteTokenizer tokenizer;
  const Samples samples = sample_text(folder / "text.txt", tokenizer, 5, 20, 3);
  ASSERT_EQ(samples.size(), 5);
  for (const auto& sample : samples) {
    EXPECT_EQ(sample.size(), 20);
    EXPECT_THAT(text, HasSubstr(tokenizer.decode(sample)));
  }
  EXPECT_EQ(sample_text(folder / "text.txt", tokenizer, 5, 20, 3), samples);
  EXPECT_NE(sample_text(folder / "text.txt", tokenizer, 5, 20, 4), samples);
  EXPECT_NE(samples_hash(samples), samples_hash(sample_text(folder / "text.txt", tokenizer, 5, 20, 4)));
}

/// As every evaluated window does: its activations need ranges too.
TEST(CalibrationText, WindowsBeginWithTheFirstToken) {
  const TemporaryFolder folder;
  write(folder / "text.txt", "abcdefghijklmnopqrstuvwxyz");
  for (const ByteTokenizer& tokenizer : {ByteTokenizer(1, 2), ByteTokenizer({}, 1)}) {
    for (const auto& sample : sample_text(folder / "text.txt", tokenizer, 4, 10, 0)) {
      ASSERT_EQ(sample.size(), 10);
      EXPECT_EQ(sample.front(), 1);
      EXPECT_THAT("abcdefghijklmnopqrstuvwxyz", HasSubstr(tokenizer.decode(std::span(sample).subspan(1))));
    }
    // 26 tokens of text and the first one.
    EXPECT_EQ(sample_text(folder / "text.txt", tokenizer, 1, 27, 0)[0].size(), 27);
    EXPECT_THROW(sample_text(folder / "text.txt", tokenizer, 1, 28, 0), Error);
  }
}

TEST(CalibrationText, TakesDocumentsThatAreLongEnough) {
  const TemporaryFolder folder;
  write(folder / "text.jsonl",
        "{\"text\": \"short\"}\n\n{\"text\": \"one that is long enough\", \"id\": 3}\n");
  const ByteTokenizer tokenizer;
  for (const auto& sample : sample_text(folder / "text.jsonl", tokenizer, 4, 15, 0)) {
    EXPECT_THAT("one that is long enough", HasSubstr(tokenizer.decode(sample)));
  }
  EXPECT_THAT(error_of([&] { sample_text(folder / "text.jsonl", tokenizer, 1, 100, 0); }),
              HasSubstr("text.jsonl"));
}

/// As data is read: a text saved by another editor would give other ranges.
TEST(CalibrationText, LineEndsAndByteOrderMarkDoNotCount) {
  const TemporaryFolder folder;
  const std::string unix_text = "first line\nsecond\n\nthird line of the text\n";
  const std::string mark = "\xEF\xBB\xBF";
  std::string windows_text;
  for (const char c : unix_text) windows_text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  const auto jsonl = [](const std::string& text) { return nlohmann::json{{"text", text}}.dump(); };
  const ByteTokenizer tokenizer;
  const auto drawn = [&](const char* name, const std::string& content) {
    write(folder / name, content);
    return sample_text(folder / name, tokenizer, 6, 9, 5);
  };
  const Samples wanted = drawn("text.txt", unix_text);
  EXPECT_EQ(drawn("text.txt", windows_text), wanted);
  EXPECT_EQ(drawn("text.txt", mark + windows_text), wanted);
  EXPECT_EQ(drawn("text.jsonl", jsonl(unix_text)), wanted);
  EXPECT_EQ(drawn("text.jsonl", mark + jsonl(unix_text) + "\r\n"), wanted);
  EXPECT_NE(drawn("text.jsonl", jsonl(windows_text)), wanted);  // a string keeps what it escapes
  write(folder / "ids", mark + "[1, 2]\r\n[3]\r\n");
  EXPECT_EQ(read_ids(folder / "ids", 10, {}, {}), (Samples{{1, 2}, {3}}));
}

TEST(CalibrationText, MoreSamplesThanTheTextHasRoomForAreWarnedOf) {
  const TemporaryFolder folder;
  const ByteTokenizer tokenizer(1);  // a window of 11 has ten tokens of text
  const auto warning = [&](const char* name, int64_t samples) {
    std::string said;
    EXPECT_EQ(std::ssize(sample_text(folder / name, tokenizer, samples, 11, 0,
                                     [&](const std::string& text) { said += text; })),
              samples);
    return said;
  };
  write(folder / "text.txt", std::string(39, 'a'));
  EXPECT_EQ(warning("text.txt", 3), "");
  EXPECT_THAT(warning("text.txt", 4), testing::AllOf(HasSubstr("text.txt: 4 samples of 11 tokens"),
                                                     HasSubstr("room for 3 side by side")));
  // Of documents by themselves: 1 + 0 + 2.
  const auto line = [](size_t length) { return "{\"text\": \"" + std::string(length, 'a') + "\"}\n"; };
  write(folder / "text.jsonl", line(19) + line(9) + line(20));
  EXPECT_EQ(warning("text.jsonl", 3), "");
  EXPECT_THAT(warning("text.jsonl", 4), HasSubstr("room for 3 side by side"));
}

TEST(CalibrationText, RefusesWhatIsNoText) {
  const TemporaryFolder folder;
  const ByteTokenizer tokenizer;
  write(folder / "a.csv", "text");
  write(folder / "b.jsonl", "{\"text\": \"fine\"}\n{\"txt\": \"x\"}\n");
  write(folder / "c.jsonl", "not json\n");
  write(folder / "d.jsonl", "");
  const auto message = [&](const char* name) {
    return error_of([&] { sample_text(folder / name, tokenizer, 50, 2, 0); });
  };
  EXPECT_THAT(message("a.csv"), HasSubstr("a.csv"));
  EXPECT_THAT(message("b.jsonl"), HasSubstr("b.jsonl:2"));
  EXPECT_THAT(message("c.jsonl"), HasSubstr("c.jsonl:1"));
  EXPECT_THAT(message("d.jsonl"), HasSubstr("d.jsonl"));
}

TEST(CalibrationIds, ReadAndCut) {
  const TemporaryFolder folder;
  write(folder / "flat", "[1, 2, 3]\n\n[4, 5, 6]\n[7, 8, 9]\n");
  write(folder / "nested", "[[1, 2, 3], [4, 5, 6]]\n[[7, 8, 9]]\n");
  for (const char* name : {"flat", "nested"}) {
    EXPECT_EQ(read_ids(folder / name, 10, {}, {}), (Samples{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}));
    EXPECT_EQ(read_ids(folder / name, 10, 2, 2), (Samples{{1, 2}, {4, 5}}));
    EXPECT_THAT(error_of([&] { read_ids(folder / name, 10, 4, {}); }), HasSubstr("samples"));
    EXPECT_THAT(error_of([&] { read_ids(folder / name, 10, {}, 4); }), HasSubstr("sequence_length"));
    EXPECT_THAT(error_of([&] { read_ids(folder / name, 9, {}, {}); }), HasSubstr("9 is no token id"));
  }
}

TEST(CalibrationIds, RefuseNonsenseByLine) {
  const TemporaryFolder folder;
  for (const char* text : {"[1]\n{}", "[1]\n[1.5]", "[1]\n[-1]", "[1]\n[\"1\"]", "[1]\n[]", "[1]\n[[]]",
                           "[1]\n[[1], 2]", "[1]\n[18446744073709551615]", "[1]\n3", "[1]\nids"}) {
    write(folder / "ids", text);
    EXPECT_THAT(error_of([&] { read_ids(folder / "ids", 10, {}, {}); }), HasSubstr("ids:2")) << text;
  }
  write(folder / "ids", "\n");
  EXPECT_THAT(error_of([&] { read_ids(folder / "ids", 10, {}, {}); }), HasSubstr("no samples"));
  // Found by reading: printing the bad id recursed as deep as it was nested, off the end of the stack.
  write(folder / "ids", std::string(1'000'000, '[') + std::string(1'000'000, ']'));
  EXPECT_THAT(error_of([&] { read_ids(folder / "ids", 10, {}, {}); }), HasSubstr("nested deeper"));
}

std::vector<int32_t> sequence(int32_t start, int32_t step, int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back((start + i * step) % 50021);
  return ids;
}

TEST(NgramSketch, FindsWhatCalibrationHasSeen) {
  const NgramSketch sketch(Samples{sequence(3, 7, 300), sequence(9, 11, 300)});
  NgramSketch::Overlap seen, fresh, half;
  sketch.look_up(sequence(3, 7, 300), seen);
  EXPECT_EQ(seen.looked_up, 288);
  EXPECT_EQ(seen.share(), 1.0);
  sketch.look_up(sequence(4, 13, 300), fresh);
  EXPECT_EQ(fresh.share(), 0.0);
  sketch.look_up(sequence(9, 11, 300), half);
  sketch.look_up(sequence(5, 17, 300), half);
  EXPECT_EQ(half.share(), 0.5);
  NgramSketch::Overlap nothing;
  sketch.look_up(sequence(3, 7, 12), nothing);  // shorter than an n-gram
  EXPECT_EQ(nothing.share(), 0.0);
}

TEST(NgramSketch, ThinsOutLongTexts) {
  const NgramSketch sketch(Samples{sequence(3, 7, 40000)});
  NgramSketch::Overlap overlap;
  sketch.look_up(sequence(3 + 7 * 10000, 7, 10000), overlap);
  EXPECT_GT(overlap.looked_up, 500);
  EXPECT_EQ(overlap.share(), 1.0);
  EXPECT_EQ(sketch.to_json()["hashes"].size(), NgramSketch::kSketchSize);
}

TEST(NgramSketch, IsWrittenAndRead) {
  const NgramSketch sketch(Samples{sequence(3, 7, 100)});
  const auto json = nlohmann::json::parse(sketch.to_json().dump());
  NgramSketch::Overlap overlap;
  NgramSketch::from_json(json, "x").look_up(sequence(3, 7, 100), overlap);
  EXPECT_EQ(overlap.share(), 1.0);
  for (const char* text : {"{}", "[]", R"({"length": 5, "threshold": 1, "hashes": []})",
                           R"({"length": 13, "threshold": -1, "hashes": []})",
                           R"({"length": 13, "threshold": 9, "hashes": [2, 1]})",
                           R"({"length": 13, "threshold": 9, "hashes": ["1"]})"}) {
    EXPECT_THROW(NgramSketch::from_json(nlohmann::json::parse(text), "x"), Error) << text;
  }
}

}  // namespace
}  // namespace qeval::quant
