#include <filesystem>

#include <gmock/gmock.h>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class ReportCli : public Cli {
 protected:
  ReportCli() {
    EXPECT_EQ(eval({"-t", "piqa", "-o", path("a")}).status, 0);
    EXPECT_EQ(eval({"-t", "piqa", "-o", path("b")}).status, 0);
  }
  /// `qeval report` on both runs must fail with this status and one line that holds `text`.
  void expect_failure(const std::vector<std::string>& arguments, int status, const std::string& text) const {
    std::vector<std::string> all{"report", path("a"), path("b")};
    all.insert(all.end(), arguments.begin(), arguments.end());
    expect_one_line(run(all), status, text);
  }
};

TEST_F(ReportCli, TablesSayWhichBosARunWasGiven) {
  EXPECT_EQ(eval({"-t", "piqa", "--add-bos-token", "false", "-o", path("without")}).status, 0);
  EXPECT_THAT(run({"report", path("without")}).output, HasSubstr(", add-bos-token false\n"));
  EXPECT_THAT(run({"report", path("a")}).output, Not(HasSubstr("add-bos-token")));
}

TEST_F(ReportCli, WritesEveryFormatAndSaysSo) {
  const Outcome outcome =
      run({"report", path("a"), path("b"), "--baseline", path("a"), "-o", path("out/report.md"), "--html",
           path("out/report.html"), "--csv", path("out/s.csv"), "--latex", path("out/t.tex"), "--json",
           path("out/r.json"), "--paper", "--recompute"});
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.output, HasSubstr("equal to the baseline in every score"));
  EXPECT_THAT(outcome.output, HasSubstr("every metric follows from the samples"));
  EXPECT_THAT(outcome.output, HasSubstr("Report: " + path("out/report.html")));
  EXPECT_THAT(read("out/report.md"), HasSubstr("(report-delta-1.svg)"));
  EXPECT_THAT(read("out/report-delta-1.svg"), HasSubstr("<svg"));
  EXPECT_THAT(read("out/report.html"), HasSubstr("</html>"));
  EXPECT_THAT(read("out/s.csv"), HasSubstr("piqa,acc_norm,2"));
  EXPECT_THAT(read("out/t.tex"), HasSubstr("\\toprule"));
  EXPECT_THAT(read("out/r.json"), HasSubstr("\"verdict\""));
}

TEST_F(ReportCli, NeedsNothingButTheResultFiles) {
  std::filesystem::remove_all(path("model"));
  std::filesystem::remove_all(path("data"));
  EXPECT_EQ(run({"report", path("a"), "-o", path("report.md")}).status, 0);
  const std::string first = read("report.md");
  EXPECT_EQ(run({"report", path("a"), "-o", path("report.md")}).status, 0);
  EXPECT_EQ(read("report.md"), first);
  EXPECT_THAT(run({"report", path("a")}).output, HasSubstr("acc_norm"));
}

TEST_F(ReportCli, NamesWhatCannotBeReported) {
  expect_failure({"-o", path("r.md")}, kFailed, "--baseline DIR");
  expect_failure({"--baseline", path("data"), "-o", path("r.md")}, kFailed, "--baseline");
  expect_failure({path("data"), "-o", path("r.md")}, kFailed, "holds neither results.json nor compare.json");
  expect_failure({"--baseline", path("a"), "-o", path("a/results.json/r.md")}, kFailed, "results.json");
  expect_failure({"--baseline", path("a"), "--json", path("b/results.json")}, kFailed, "would replace");
  expect_failure({"--paper"}, kWrongUsage, "--paper needs a report to write");
  EXPECT_FALSE(std::filesystem::exists(path("r.md")));
  write("b/samples_piqa.jsonl", "damaged\n");
  expect_failure({"--baseline", path("a"), "-o", path("r.md")}, kFailed, "samples_piqa.jsonl:1");
}

}  // namespace
}  // namespace qeval::test
