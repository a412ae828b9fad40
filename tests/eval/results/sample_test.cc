#include "eval/results/sample.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/hash.h"
#include "tests/eval/sample_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

std::string sample_error(std::string_view line) {
  return message_of([&] { parse_line(line, "samples_x.jsonl:7"); });
}

/// `line` with a field replaced (or removed, by null) and the checksum made right again.
std::string with_field(const std::string& line, const char* key, const ordered_json& value) {
  ordered_json json = ordered_json::parse(line);
  json.erase("checksum");
  if (value.is_null()) {
    json.erase(key);
  } else {
    json[key] = value;
  }
  std::string body = json.dump();
  body.pop_back();
  return body + ",\"checksum\":\"" + sha256_hex(body).substr(0, 16) + "\"}";
}

TEST(SampleLine, ReadsBackAsWritten) {
  for (Sample sample : {choice_sample(17), rolling_sample(3, -3315.25, 1093, 5667, 1407)}) {
    sample.scores.answers[0].truncated = 4;
    sample.scores.answers[0].encoded_apart = true;
    const std::string line = to_line(sample);
    const Sample back = parse_line(line, "x");
    EXPECT_EQ(to_line(back), line);
    EXPECT_EQ(back.scores.answers, sample.scores.answers);
    EXPECT_EQ(back.scores.facts, sample.scores.facts);
    EXPECT_EQ(back.scores.metrics, sample.scores.metrics);
    EXPECT_EQ(back.scores.scoring, sample.scores.scoring);
    EXPECT_EQ(back.requests, sample.requests);
    EXPECT_EQ(back.doc, sample.doc);
    EXPECT_EQ(line.find('\n'), std::string::npos);
  }
}

TEST(SampleLine, HasTheHarnessFieldsInItsOrderAndSpelling) {
  const ordered_json json = ordered_json::parse(to_line(choice_sample(17)));
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  const std::vector<std::string> expected{"doc_id",         "doc",    "target",  "arguments", "resps",
                                          "filtered_resps", "filter", "metrics", "doc_hash",  "prompt_hash",
                                          "target_hash",    "acc",    "acc_norm"};
  ASSERT_GE(keys.size(), expected.size());
  EXPECT_EQ(
      std::vector<std::string>(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(expected.size())),
      expected);
  EXPECT_EQ(keys.back(), "checksum");
  EXPECT_EQ(json["target"], "2");
  EXPECT_EQ(json["arguments"]["gen_args_1"]["arg_0"], "Wie spät?\nAnswer:");
  EXPECT_EQ(json["arguments"]["gen_args_1"]["arg_1"], " zwölf");
  EXPECT_EQ(json["resps"].dump(),
            R"([[["-22.5","False"]],[["-12","False"]],[["-10.25","True"]],[["-20.1","False"]]])");
  EXPECT_EQ(json["filtered_resps"][2].dump(), R"(["-10.25","True"])");
  EXPECT_EQ(json["acc"].dump(), "1.0");
  EXPECT_EQ(json["acc_norm"].dump(), "0.0");
  EXPECT_EQ(json["tokens"], 20);
  EXPECT_EQ(json["tokens_requested"], 48);
  // Python: hashlib.sha256(text.encode()).hexdigest() of str(target), of the prompt, of json.dumps(doc,
  // indent=2, ensure_ascii=False).
  EXPECT_EQ(json["target_hash"], "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35");
  EXPECT_EQ(json["prompt_hash"], "beaa33cfa02b3ce9f72a012da38d720faf36e2cf10c6f9697a16c43b4268c875");
  EXPECT_EQ(json["doc_hash"], "ca0e0c54596a62a3af8767a2c99dfad0c5ba31d352137b2f478007d0088a955d");
}

TEST(SampleLine, RollingDocumentsFollowTheHarnessToo) {
  const ordered_json json = ordered_json::parse(to_line(rolling_sample(3, -3315.25, 1093, 5667, 1407)));
  EXPECT_EQ(json["arguments"].dump(), R"({"gen_args_0":{"arg_0":"some text"}})");
  EXPECT_EQ(json["filtered_resps"].dump(), R"(["-3315.25"])");
  EXPECT_EQ(json["resps"].dump(), R"([["-3315.25"]])");
  EXPECT_EQ(json["word_perplexity"].dump(), "[-3315.25,1093]");
  EXPECT_EQ(json["words"], 1093);
  EXPECT_EQ(json["bytes"], 5667);
  EXPECT_EQ(json["tokens"], 1407);
  EXPECT_EQ(json["windows"], 2);
}

TEST(SampleLine, KeepsNumbersThatJsonLacks) {
  Sample sample = choice_sample(0);
  sample.scores.answers[0].log_likelihood = std::numeric_limits<double>::quiet_NaN();
  sample.scores.answers[1].log_likelihood = -std::numeric_limits<double>::infinity();
  sample.scores.answers[3].log_likelihood = std::nextafter(-1.0 / 3, 0.0);
  const Sample back = parse_line(to_line(sample), "x");
  EXPECT_TRUE(std::isnan(back.scores.answers[0].log_likelihood));
  EXPECT_EQ(back.scores.answers[1].log_likelihood, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(back.scores.answers[3].log_likelihood, sample.scores.answers[3].log_likelihood);
  EXPECT_EQ(to_line(back), to_line(sample));
}

TEST(SampleLine, EveryFlippedBitIsDetected) {
  const std::string line = to_line(choice_sample(1));
  for (size_t i = 0; i < line.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = line;
      damaged[i] = static_cast<char>(static_cast<unsigned char>(damaged[i]) ^ (1U << bit));
      const std::string message = sample_error(damaged);
      ASSERT_THAT(message, HasSubstr("samples_x.jsonl:7: ")) << "byte " << i << " bit " << bit;
      ASSERT_THAT(message, HasSubstr("checksum"));
    }
  }
  for (size_t length = 0; length < line.size(); ++length) {
    ASSERT_THAT(sample_error(line.substr(0, length)), HasSubstr("checksum"));
  }
}

TEST(SampleLine, ContradictionsBehindARightChecksumAreErrors) {
  const std::string line = to_line(choice_sample(1));
  ASSERT_EQ(sample_error(with_field(line, "filter", "none")), "")
      << "the helper must make lines that are accepted";
  EXPECT_THAT(sample_error(with_field(line, "doc_id", -1)), HasSubstr("doc_id is "));
  EXPECT_THAT(sample_error(with_field(line, "doc_id", nullptr)), HasSubstr("doc_id is missing"));
  EXPECT_THAT(sample_error(with_field(line, "gold", {4})), HasSubstr("gold is "));
  EXPECT_THAT(sample_error(with_field(line, "gold", ordered_json::array())), HasSubstr("gold is "));
  EXPECT_THAT(sample_error(with_field(line, "choice_chars", {1, 2})), HasSubstr("choice_chars is "));
  EXPECT_THAT(sample_error(with_field(line, "truncated", {1, 2})), HasSubstr("truncated is "));
  EXPECT_THAT(sample_error(with_field(line, "request_tokens", {1, 2, 3, 1e300})),
              HasSubstr("request_tokens is "));
  EXPECT_THAT(sample_error(with_field(line, "filtered_resps", ordered_json::array())),
              HasSubstr("filtered_resps is "));
  EXPECT_THAT(sample_error(with_field(line, "filtered_resps", {1, 2, 3, 4})),
              HasSubstr("filtered_resps is "));
  EXPECT_THAT(sample_error(with_field(line, "arguments", ordered_json::object())),
              HasSubstr("arguments is "));
  EXPECT_THAT(sample_error(with_field(line, "arguments", {{"gen_args_9", {{"arg_0", ""}, {"arg_1", ""}}}})),
              HasSubstr("gen_args_0 is "));
  EXPECT_THAT(sample_error(with_field(line, "scoring", "guess")), HasSubstr("guess"));
  EXPECT_THAT(sample_error(with_field(line, "metrics", {"f1"})), HasSubstr("f1"));
  EXPECT_THAT(sample_error(with_field(line, "encoded_apart", {4})), HasSubstr("encoded_apart is "));
}

Sample generated_sample() {
  Sample sample;
  sample.scores.doc_id = 3;
  sample.scores.scoring = Scoring::generation;
  sample.scores.metrics = {"exact_match,strict", "f1,strict", "exact_match,loose", "f1,loose"};
  sample.scores.values = {0, 0.1, 1, 0.25};
  sample.scores.answers.push_back({.tokens = 7, .truncated = 2, .input_tokens = 30, .end = TextEnd::eos});
  sample.scores.token_hash = "0a";
  sample.scores.logits_hash = "0b";
  sample.doc = {{"question", "?"}};
  sample.target = "18";
  sample.requests.push_back({"Q: ?\nA:", ""});
  sample.generated = {
      {{"until", {"Q:"}}, {"do_sample", false}}, {" 18 – so"}, {{"strict", "[invalid]"}, {"loose", "18"}}};
  return sample;
}

TEST(SampleLine, AGeneratedTextIsReadAsItWasWritten) {
  const std::string line = to_line(generated_sample());
  const ordered_json fields = ordered_json::parse(line);
  EXPECT_EQ(fields["arguments"]["gen_args_0"].dump(),
            R"({"arg_0":"Q: ?\nA:","arg_1":{"until":["Q:"],"do_sample":false}})");
  EXPECT_EQ(fields["resps"].dump(), R"([[" 18 – so"]])");
  EXPECT_EQ(fields["filter"], "strict");
  EXPECT_EQ(fields["filtered_resps"].dump(), R"(["[invalid]"])");
  EXPECT_EQ(fields["filtered"].dump(), R"({"strict":"[invalid]","loose":"18"})");
  EXPECT_EQ(fields["exact_match,loose"], 1.0);
  EXPECT_EQ(fields["ends"].dump(), R"(["eos"])");
  const Sample read = parse_line(line, "here");
  EXPECT_EQ(to_line(read), line);
  EXPECT_EQ(read.scores.values, generated_sample().scores.values);
  EXPECT_EQ(read.scores.answers, generated_sample().scores.answers);
}

TEST(SampleLine, AGeneratedTextsContradictionsAreErrors) {
  const std::string line = to_line(generated_sample());
  EXPECT_THAT(sample_error(with_field(line, "ends", {"never"})), HasSubstr("ends is "));
  EXPECT_THAT(sample_error(with_field(line, "ends", ordered_json::array())), HasSubstr("ends is "));
  EXPECT_THAT(sample_error(with_field(line, "resps", {{1}})), HasSubstr("resps is "));
  EXPECT_THAT(sample_error(with_field(line, "filtered", ordered_json::object())), HasSubstr("filtered is "));
  EXPECT_THAT(sample_error(with_field(line, "f1,loose", "x")), HasSubstr("f1,loose is "));
  EXPECT_THAT(sample_error(with_field(line, "metrics", {"acc"})), HasSubstr("acc"));
  Sample sample = generated_sample();
  sample.scores.values.pop_back();
  EXPECT_THROW(to_line(sample), Error);
}

TEST(SampleLine, DeepNestingIsRefusedBeforeAnythingRecurses) {
  std::string body = R"({"doc":)" + std::string(100000, '[');
  body += ",\"checksum\":\"" + sha256_hex(body).substr(0, 16) + "\"}";
  EXPECT_THAT(sample_error(body), HasSubstr("nested"));
}

TEST(SampleLine, TextThatIsNotUtf8IsAnError) {
  Sample sample = choice_sample(5);
  sample.requests[1].continuation = "\xff";
  EXPECT_THROW(to_line(sample), Error);
  sample = choice_sample(5);
  sample.requests.pop_back();
  EXPECT_THROW(to_line(sample), Error);
}

}  // namespace
}  // namespace qeval::eval
