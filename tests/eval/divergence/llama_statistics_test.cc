// llama.cpp's statistics of divergence and its file of log-probabilities, against what its own code makes of
// the same logits (tools/perplexity of July 2026, its functions compiled alone, without fused multiply-adds).
#include "eval/divergence/llama_statistics.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "eval/divergence/logits_file.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using testing::HasSubstr;

constexpr int64_t kContext = 64, kVocabulary = 301, kChunks = 6, kFirst = kContext / 2;
constexpr int64_t kRows = kContext - 1 - kFirst;

/// Logits of two models and the tokens, the same numbers as in the program that made the expectations.
struct Logits {
  std::vector<int32_t> tokens;
  std::vector<float> base, other;

  Logits() {
    uint32_t state = 12345;
    const auto next = [&state] {
      state = state * 1664525U + 1013904223U;
      return static_cast<float>(state >> 8) / 16777216.0F;
    };
    for (int64_t i = 0; i < kContext * kChunks; ++i)
      tokens.push_back(static_cast<int32_t>(next() * static_cast<float>(kVocabulary)));
    for (int64_t i = 0; i < kChunks * kRows * kVocabulary; ++i) {
      const float a = next(), b = next();
      base.push_back(24 * a * a * a * (b < 0.05F ? 1.5F : 0.5F) - 6);
      other.push_back(base.back() + (next() - 0.5F));
    }
    for (int64_t chunk = 0; chunk < kChunks; ++chunk) {
      for (int64_t row = 1; row < kRows; row += 2) {
        const auto logits = row_of(base, chunk, row);
        tokens[static_cast<size_t>(chunk * kContext + kFirst + row + 1)] =
            static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      }
    }
  }
  static std::span<const float> row_of(const std::vector<float>& logits, int64_t chunk, int64_t row) {
    return std::span(logits).subspan(static_cast<size_t>((chunk * kRows + row) * kVocabulary), kVocabulary);
  }
  int32_t target(int64_t chunk, int64_t row) const {
    return tokens[static_cast<size_t>(chunk * kContext + kFirst + row + 1)];
  }
};

void write_base(const Logits& logits, const std::filesystem::path& path) {
  LogitsWriter writer(path, {kContext, kVocabulary, kChunks, logits.tokens});
  std::vector<uint16_t> row(static_cast<size_t>(LogitsHeader::row_values(kVocabulary)));
  for (int64_t chunk = 0; chunk < kChunks; ++chunk) {
    for (int64_t i = 0; i < kRows; ++i) {
      quantize_row(Logits::row_of(logits.base, chunk, i), logits.target(chunk, i), row);
      writer.add(row);
    }
  }
  writer.commit();
}

TEST(LlamaStatistics, AreDigitForDigitWhatLlamaPerplexityPrints) {
  const test::TemporaryFolder folder;
  const Logits logits;
  write_base(logits, folder / "base.kld");
  const std::string bytes = read_file(folder / "base.kld");
  EXPECT_EQ(sha256_hex(bytes), "11ad2246bdf026a62fd1f23852b05eee51c1cbaf0134c13fa82b306d7a51fa62");
  const LogitsReader stored(folder / "base.kld");
  EXPECT_EQ(stored.header().tokens, logits.tokens);
  LlamaStatistics statistics;
  std::string lines;
  for (int64_t chunk = 0; chunk < kChunks; ++chunk) {
    for (int64_t i = 0; i < kRows; ++i) {
      statistics.add(
          llama_token(Logits::row_of(logits.other, chunk, i), stored.row(chunk, i), logits.target(chunk, i)));
    }
    lines += statistics.chunk_line(chunk + 1);
    if (chunk == 0) {
      EXPECT_EQ(statistics.report(), "");  // too few
    }
  }
  EXPECT_EQ(
      LlamaStatistics::chunk_head(),
      R"(chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS            Same top p
)");
  EXPECT_EQ(
      lines,
      R"(   1    763934.9691 ± 1903782.5106       5.15581 ±    1.19082       0.00749 ±    0.00335     1.952 ±  0.435 %    100.000 ±  0.000 %
   2    1012077.6897 ± 1802219.4262       5.51275 ±    0.86239       0.00699 ±    0.00189     2.889 ±  0.481 %    100.000 ±  0.000 %
   3    1098069.2349 ± 1596499.8884       5.58374 ±    0.69181       0.00735 ±    0.00148     2.462 ±  0.385 %    96.774 ±  1.842 %
   4    929798.6910 ± 1153055.1762       5.39964 ±    0.58214       0.00786 ±    0.00130     2.936 ±  0.427 %    96.774 ±  1.593 %
   5    866372.5683 ± 954571.9745       5.33771 ±    0.51289       0.00681 ±    0.00106     2.783 ±  0.369 %    96.774 ±  1.424 %
   6    1007290.3445 ± 1022861.6449       5.48171 ±    0.47708       0.00729 ±    0.00106     3.212 ±  0.432 %    97.312 ±  1.189 %
)");
  EXPECT_EQ(statistics.report(), R"(====== Perplexity statistics ======
Mean PPL(Q)                   : 1007290.344534 ± 1022861.644898
Mean PPL(base)                : 4192.541950 ± 2456.429952
Cor(ln(PPL(Q)), ln(PPL(base))):  96.38%
Mean ln(PPL(Q)/PPL(base))     :   5.481712 ±   0.477076
Mean PPL(Q)/PPL(base)         : 240.257666 ± 114.621137
Mean PPL(Q)-PPL(base)         : 1003097.802584 ± 1020494.367696

====== KL divergence statistics ======
Mean    KLD:   0.007292 ±   0.001062
Maximum KLD:   0.100387
99.9%   KLD:   0.096290
99.0%   KLD:   0.064154
95.0%   KLD:   0.035694
90.0%   KLD:   0.022373
Median  KLD:   0.000626
10.0%   KLD:   0.000000
 5.0%   KLD:  -0.000000
 1.0%   KLD:  -0.000001
 0.1%   KLD:  -0.000001
Minimum KLD:  -0.000001

====== Token probability statistics ======
Mean    Δp: -0.187 ± 0.236 %
Maximum Δp: 14.796%
99.9%   Δp: 14.306%
99.0%   Δp:  9.335%
95.0%   Δp:  4.002%
90.0%   Δp:  0.728%
75.0%   Δp: -0.000%
Median  Δp: -0.000%
25.0%   Δp: -0.000%
10.0%   Δp: -1.185%
 5.0%   Δp: -5.946%
 1.0%   Δp: -11.310%
 0.1%   Δp: -17.478%
Minimum Δp: -18.164%
RMS Δp    :  3.212 ± 0.432 %
Same top p: 97.312 ± 1.189 %
)");
}

TEST(LogitsFile, RefusesWhatIsNoSuchFile) {
  const test::TemporaryFolder folder;
  const std::filesystem::path path = folder / "base.kld";
  write_base(Logits(), path);
  const std::string bytes = read_file(path);
  const auto says = [&](const std::string& content) {
    write_file_atomically(path, content);
    return message_of([&] { LogitsReader reader(path); });
  };
  EXPECT_THAT(says("_logits"), HasSubstr("should begin with \"_logits_\""));
  EXPECT_THAT(says("x" + bytes.substr(1)), HasSubstr("should begin with"));
  EXPECT_THAT(says(bytes.substr(0, bytes.size() - 1)), HasSubstr("chunks of 64 tokens take"));
  const auto with = [&bytes](size_t at, int32_t value) {
    std::string changed = bytes;
    changed.replace(at, sizeof value, reinterpret_cast<const char*>(&value), sizeof value);
    return changed;
  };
  EXPECT_THAT(says(with(8, 3)), HasSubstr("chunks of 3 tokens"));
  EXPECT_THAT(says(with(8, -1)), HasSubstr("chunks of -1 tokens"));
  EXPECT_THAT(says(with(12, 1 << 30)), HasSubstr("accepted"));
  EXPECT_THAT(says(with(16, 0)), HasSubstr("0 chunks"));
  EXPECT_THAT(says(with(20, kVocabulary)), HasSubstr("token 301; accepted: 0 to 300"));
}

}  // namespace
}  // namespace qeval::eval
