#include "eval/results/divergence.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using ::testing::HasSubstr;

const DivergenceBase base{"weights", "float", "", "samples"};

DocumentDivergence divergence_document(int64_t id) {
  return {
      id, "00ff", {0.0F, 0.1F + static_cast<float>(id), 1e-9F, 3.25F}, {0.0F, 0.5F, 0.0F, 1e-12F}, {1, 3}};
}

std::string divergence_error(const std::string& content) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "d.jsonl", content);
  return message_of([&] { read_divergence(folder.path() / "d.jsonl", "arc"); });
}

TEST(Divergence, ReadsBackEveryBit) {
  const TemporaryFolder folder;
  const auto path = folder.path() / divergence_file("arc");
  DocumentDivergence broken = divergence_document(7);
  broken.kl[0] = std::numeric_limits<float>::quiet_NaN();
  broken.kl[1] = std::numeric_limits<float>::infinity();
  broken.kl[2] = std::nextafterf(0.1F, 1.0F);
  write_file_atomically(path, divergence_header("arc", base, 256) + "\n" +
                                  divergence_line(divergence_document(2)) + "\n" + divergence_line(broken) +
                                  "\n");
  const TaskDivergence read = read_divergence(path, "arc");
  EXPECT_EQ(read.base, base);
  EXPECT_EQ(read.kept, 256);
  ASSERT_EQ(read.documents.size(), 2U);
  EXPECT_EQ(read.documents[0], divergence_document(2));
  EXPECT_TRUE(std::isnan(read.documents[1].kl[0]));
  EXPECT_EQ(read.documents[1].kl[1], broken.kl[1]);
  EXPECT_EQ(read.documents[1].kl[2], broken.kl[2]);
}

TEST(Divergence, RefusesWhatIsDamaged) {
  const std::string header = divergence_header("arc", base, 256) + "\n";
  const std::string line = divergence_line(divergence_document(2)) + "\n";
  EXPECT_EQ(divergence_error(header + line), "");
  EXPECT_THAT(divergence_error(""), HasSubstr("header"));
  EXPECT_THAT(divergence_error(divergence_header("boolq", base, 256) + "\n" + line),
              HasSubstr("accepted: arc"));
  EXPECT_THAT(divergence_error(header + line.substr(0, line.size() - 1)),
              HasSubstr("d.jsonl:2: the last line"));
  EXPECT_THAT(divergence_error(header + line + line), HasSubstr("ascending"));
  std::string edited = line;
  edited[edited.find("3.25")] = '4';
  EXPECT_THAT(divergence_error(header + edited), HasSubstr("checksum"));
  DocumentDivergence odd = divergence_document(1);
  odd.slack.pop_back();
  EXPECT_THAT(divergence_error(header + divergence_line(odd) + "\n"), HasSubstr("as long as \"kl\""));
  odd = divergence_document(1);
  odd.disagreements = {4};
  EXPECT_THAT(divergence_error(header + divergence_line(odd) + "\n"), HasSubstr("below the 4 positions"));
  odd = divergence_document(1);
  odd.kl[0] = -1;
  EXPECT_THAT(divergence_error(header + divergence_line(odd) + "\n"), HasSubstr("at least 0"));
}

TEST(Divergence, SummarizesOverPositions) {
  std::vector<DocumentDivergence> documents(2);
  for (int i = 0; i < 100; ++i) {  // 0 … 9.9 and a slack of 1 each
    DocumentDivergence& one = documents[static_cast<size_t>(i % 2)];
    one.kl.push_back(static_cast<float>(i) / 10);
    one.slack.push_back(1);
  }
  documents[1].disagreements = {0, 1, 2};
  const DivergenceSummary summary = summarize(documents);
  EXPECT_EQ(summary.positions, 100);
  EXPECT_EQ(summary.documents, 2);
  EXPECT_NEAR(summary.mean_kl, 4.95, 1e-6);
  EXPECT_NEAR(summary.mean_kl_upper, 5.95, 1e-6);
  EXPECT_NEAR(summary.kl_99, 9.801, 1e-6);  // numpy.quantile(numpy.arange(100) / 10, 0.99)
  EXPECT_NEAR(summary.max_kl, 9.9, 1e-6);
  EXPECT_NEAR(summary.top1_agreement, 0.97, 1e-12);

  const DivergenceSummary nothing = summarize(std::vector<DocumentDivergence>(3));
  EXPECT_EQ(nothing.positions, 0);
  EXPECT_EQ(nothing.mean_kl, 0);
  EXPECT_EQ(nothing.top1_agreement, 1);
  documents[0].kl[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(summarize(documents).max_kl));
  EXPECT_TRUE(std::isnan(summarize(documents).kl_99));
}

}  // namespace
}  // namespace qeval::eval
