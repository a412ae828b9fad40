#include "eval/compare/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "eval/compare/schedule.h"
#include "eval/results/folder_use.h"
#include "quant/checkpoint/checkpoint.h"
#include "tests/message_of.h"
#include "tests/model/byte_model.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CompareLayoutTest : public testing::Test {
 protected:
  CompareLayoutTest() {
    test::write_byte_model(folder_ / "model");
    config_ = model::load_model(folder_ / "model").config;
    options_.session.model = "base";
    options_.output = folder_ / "out";
    options_.methods = {quant::Method::rtn, quant::Method::smoothquant};
    options_.schemes = {"w8a8", "w4a8"};
    options_.spelling = {
        [](const auto& model, const auto& arithmetic, const auto& base, const auto& output) {
          return fmt::format("evaluate {} in {} from {} to {}", model.string(), arithmetic,
                             base ? base->filename().string() : "nothing", output.filename().string());
        },
        [](const auto& model, const quant::QuantizeRun& run, const auto& output) {
          return fmt::format("quantize {} by {} {} to {}", model.string(), quant::name(run.options.method),
                             run.scheme, output.filename().string());
        }};
  }

  test::TemporaryFolder folder_;
  model::ModelConfig config_;
  CompareOptions options_;
};

TEST_F(CompareLayoutTest, NamesFoldersAndCommandsOfEveryRun) {
  options_.integer = IntegerRuns::all;
  const CompareLayout layout(options_, config_);
  ASSERT_EQ(layout.made().size(), 4U);
  EXPECT_EQ(layout.made()[1].name(), "smoothquant w8a8");
  EXPECT_THAT(layout.base().commands, ElementsAre("evaluate base in float from nothing to fp"));
  const std::vector<ComparisonEntry> entries = layout.entries(layout.made()[3]);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "smoothquant w4a8");
  EXPECT_EQ(entries[0].variant, "modified");
  EXPECT_EQ(layout.entries(layout.made()[0])[0].variant, "");
  EXPECT_EQ(entries[1].name, "smoothquant w4a8 integer");
  EXPECT_EQ(entries[1].results, "results/smoothquant-w4a8-integer");
  EXPECT_EQ(layout.model(entries[1]), folder_ / "out" / "checkpoints" / "smoothquant-w4a8");
  ASSERT_EQ(entries[1].commands.size(), 2U);
  EXPECT_EQ(entries[1].commands[0], "quantize base by smoothquant w4a8 to smoothquant-w4a8");
  EXPECT_THAT(entries[1].commands[1], HasSubstr("in integer from fp to smoothquant-w4a8-integer"));
}

TEST_F(CompareLayoutTest, SeesWhatIsFinishedAndRefusesWhatIsOfAnotherModel) {
  const CompareLayout layout(options_, config_);
  const MadeModel& rtn = layout.made()[0];
  EXPECT_FALSE(layout.is_quantized(rtn));
  qeval::create_directories(layout.checkpoint(rtn));
  const std::filesystem::path record = layout.checkpoint(rtn) / quant::kRecordFile;
  write_file_atomically(record, R"({"method": "rtn", "settings": {"scheme": "w8a8"}})");
  EXPECT_TRUE(layout.is_quantized(rtn));
  write_file_atomically(record, R"({"method": "rtn", "settings": {"scheme": "w4a8"}})");
  EXPECT_THAT(message_of([&] { layout.is_quantized(rtn); }), HasSubstr("is of rtn w4a8; expected: rtn w8a8"));
  EXPECT_FALSE(layout.is_evaluated(layout.base()));
  qeval::create_directories(layout.results(layout.base()));
  write_file_atomically(layout.results(layout.base()) / results_file, "{}");
  EXPECT_TRUE(layout.is_evaluated(layout.base()));
}

TEST_F(CompareLayoutTest, TheFolderIsOfTheSettingsThatItWasMadeWith) {
  const CompareLayout layout(options_, config_);
  const Fingerprint settings = compare_fingerprint(options_, "abc", {{"protocol", "lm-eval-0.4"}});
  EXPECT_EQ(settings.at("methods"), "rtn,smoothquant");
  EXPECT_EQ(settings.at("evaluation protocol"), "lm-eval-0.4");
  layout.check_folder(settings);
  qeval::create_directories(options_.output);
  layout.record(settings);
  layout.check_folder(settings);
  options_.schemes = {"w8a8"};
  const Fingerprint others = compare_fingerprint(options_, "abc", {{"protocol", "lm-eval-0.4"}});
  EXPECT_THAT(message_of([&] { layout.check_folder(others); }), HasSubstr("schemes"));
  std::filesystem::remove(options_.output / matrix_file);
  qeval::create_directories(options_.output / "results");
  EXPECT_THAT(message_of([&] { layout.check_folder(settings); }),
              HasSubstr("holds results but no matrix.json"));
}

TEST_F(CompareLayoutTest, RefusesSchemesThatIntegersCannotRun) {
  options_.schemes = {"w4a16"};
  EXPECT_EQ(CompareLayout(options_, config_).made().size(), 2U);
  options_.integer = IntegerRuns::best;
  EXPECT_THAT(message_of([&] { CompareLayout(options_, config_); }),
              HasSubstr("scheme w4a16: leaves activations in float"));
}

/// Checkpoints take what they did when they were float32, log-probabilities a record per scored position.
TEST_F(CompareLayoutTest, BytesGrowWithModelsAndPositions) {
  const model::Model model = model::load_model(folder_ / "model");
  const int64_t none = compare_disk_bytes(model, 0, 0);
  EXPECT_EQ(none, 0);
  const int64_t one = compare_disk_bytes(model, 1, 0);
  EXPECT_GE(one, 4 * model.embedding.rows * model.embedding.cols);
  EXPECT_EQ(compare_disk_bytes(model, 3, 0), 3 * one);
  EXPECT_GT(compare_disk_bytes(model, 1, 10), one);
}

}  // namespace
}  // namespace qeval::eval
