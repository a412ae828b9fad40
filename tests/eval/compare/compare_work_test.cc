#include "eval/compare/compare_work.h"

#include <gtest/gtest.h>

#include "tests/model/byte_model.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

struct Interrupted {};

/// Two methods, of which the second learns, on a tiny model and the shipped questions.
class CompareWorkTest : public testing::Test {
 protected:
  CompareWorkTest() {
    test::write_byte_model(folder_ / "model");
    options_.session.model = folder_ / "model";
    options_.evaluation.tasks = "sample_qa";
    options_.evaluation.batch_tokens = 64;
    options_.output = folder_ / "out";
    options_.spelling = {[](const auto&, const auto&, const auto&, const auto&) { return "evaluate"; },
                         [](const auto&, const auto&, const auto&) { return "quantize"; }};
    options_.methods = {quant::Method::rtn, quant::Method::omniquant};
    options_.schemes = {"w8a8"};
    options_.quantize.samples = {{1, 2, 3, 4, 5, 6, 7, 8}, {11, 12, 13, 14, 15, 16, 17, 18}};
    options_.quantize.save_interval = std::chrono::minutes(60);  // an interruption saves, too
    options_.learning[{quant::Method::omniquant, "w8a8"}] = {.method = quant::LearnMethod::omniquant,
                                                             .epochs = 4};
  }

  std::vector<CompareStep> plan() const { return CompareWork(options_).plan(); }

  /// Runs the comparison until `stop` is true of what its progress says.
  void run_until(
      const std::function<bool(const std::string& what, int64_t done, int64_t total)>& stop) const {
    CompareWork work(options_);
    work.open_folder();
    const CompareObserver observer{[&](const std::string& what, int64_t done, int64_t total) {
                                     if (stop(what, done, total)) throw Interrupted();
                                   },
                                   [](const std::string&, double) {}, [](const std::string&) {}};
    EXPECT_THROW(work.run(observer), Interrupted);
  }

  test::TemporaryFolder folder_;
  CompareOptions options_;
};

/// What an interruption left was counted as if nothing of it had been done, so "left to do" was too much.
TEST_F(CompareWorkTest, ThePlanCountsWhatAnInterruptedRunHasDone) {
  const std::vector<CompareStep> fresh = plan();
  ASSERT_EQ(fresh.size(), 5U);  // evaluate fp; quantize rtn, evaluate it; quantize omniquant, evaluate it
  for (const CompareStep& step : fresh) EXPECT_DOUBLE_EQ(step.left, step.seconds) << step.name;

  run_until([](const std::string& what, int64_t done, int64_t total) {
    return what.starts_with("fp: ") && 2 * done > total;
  });
  std::vector<CompareStep> steps = plan();
  EXPECT_FALSE(steps[0].finished);
  EXPECT_GT(steps[0].left, 0);
  EXPECT_LT(steps[0].left, 0.75 * steps[0].seconds);
  for (size_t i = 1; i < steps.size(); ++i) EXPECT_DOUBLE_EQ(steps[i].left, steps[i].seconds) << i;

  run_until([](const std::string& what, int64_t done, int64_t total) {
    return what.starts_with("omniquant w8a8: learning") && 2 * done > total;
  });
  steps = plan();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(steps[i].finished);
    EXPECT_EQ(steps[i].left, 0) << steps[i].name;
  }
  EXPECT_FALSE(steps[3].finished);
  EXPECT_GT(steps[3].left, 0);
  EXPECT_LT(steps[3].left, 0.75 * steps[3].seconds);
  EXPECT_DOUBLE_EQ(steps[4].left, steps[4].seconds);
}

/// The points' ranges are measured once for all methods, but kept in memory only: whoever continues measures
/// them again. The plan had them in the first step alone, also when that was done.
TEST_F(CompareWorkTest, ThePlanOfAContinuedRunMeasuresAgain) {
  options_.methods = {quant::Method::rtn};
  options_.schemes = {"w8a8", "w4a8"};
  constexpr int64_t kSampleTokens = 16;
  const std::vector<CompareStep> fresh = plan();
  run_until(
      [](const std::string& what, int64_t, int64_t) { return what.starts_with("rtn w8a8: sample_qa"); });
  const std::vector<CompareStep> continued = plan();
  EXPECT_TRUE(continued[1].finished);
  EXPECT_EQ(continued[1].tokens, fresh[1].tokens);
  EXPECT_EQ(continued[3].name, "quantize rtn w4a8");
  EXPECT_EQ(continued[3].tokens, fresh[3].tokens + kSampleTokens);
}

}  // namespace
}  // namespace qeval::eval
