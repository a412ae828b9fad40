#include <algorithm>
#include <fstream>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "reports/render/table.h"
#include "tests/reference_data.h"
#include "tests/reports/report_fixture.h"

namespace qeval::reports {
namespace {

using testing::HasSubstr;

Report paper_report(const TemporaryFolder& folder, const std::string& model) {
  SourceList sources = example_sources(folder.path());
  for (Source& source : sources.runs) source.results.model.name = model;
  return build_report(sources, {.baseline = {}, .paper = true});
}

/// Every figure of the reference file stands in the table, in its row and column.
TEST(PaperTables, HoldTheFiguresOfTheReference) {
  const auto tables = test::shared_data("reference/paper_tables.json");
  std::ifstream file(tables);
  if (!file) GTEST_SKIP() << "no " << tables;
  const auto json = nlohmann::json::parse(file);
  const std::map<std::string, std::string> labels{{"smoothquant-static", "SmoothQuant (original) "},
                                                  {"smoothquant-edge", "SmoothQuant "},
                                                  {"omniquant-static", "OmniQuant (original) "},
                                                  {"omniquant-edge", "OmniQuant "},
                                                  {"lrl", "LRL "},
                                                  {"mobilequant", "MobileQuant "},
                                                  {"mobilequant-sym", "MobileQuant "}};
  int checked = 0;
  for (const auto& [model, schemes] : json["models"].items()) {
    const TemporaryFolder folder;
    const Report report = paper_report(folder, model);
    ASSERT_EQ(report.paper.size(), 1U) << model;
    EXPECT_TRUE(report.paper[0].same_family);
    const auto expect = [&](const std::string& label, const nlohmann::json& values) {
      const auto row = std::ranges::find(report.paper[0].rows, label, &PaperRow::label);
      ASSERT_NE(row, report.paper[0].rows.end()) << label;
      for (size_t i = 0; i < 4; ++i) {
        ASSERT_EQ(row->paper[i].has_value(), !values[i].is_null()) << model << " " << label;
        if (row->paper[i]) {
          EXPECT_NEAR(*row->paper[i] * (i == 0 ? 1 : 100), values[i].get<double>(), 1e-9) << label;
        }
        ++checked;
      }
    };
    expect("FP16", schemes["fp16"]);
    for (const auto& [scheme, methods] : schemes.items()) {
      if (scheme == "fp16") continue;
      for (const auto& [method, values] : methods.items())
        expect(labels.at(method) + scheme + (method == "mobilequant-sym" ? "-sym" : ""), values);
    }
  }
  EXPECT_EQ(checked, 3 * 12 * 4);
}

TEST(PaperTables, SetOurRunsBesideTheSameMethod) {
  const TemporaryFolder folder;
  const Report report = paper_report(folder, "TinyLlama-1.1B-Chat-v1.0");
  const auto& rows = report.paper.at(0).rows;
  const auto mobilequant = std::ranges::find(rows, "MobileQuant w8a8", &PaperRow::label);
  EXPECT_EQ(mobilequant->ours[0], report.rows[2].cells[0]->value);
  EXPECT_EQ(mobilequant->ours_delta[0], report.rows[2].cells[0]->difference->delta);
  EXPECT_NEAR(*mobilequant->paper_delta[0], 15.5 / 14.9 - 1, 1e-12);
  EXPECT_NEAR(*mobilequant->paper_delta[1], -0.011, 1e-12);
  EXPECT_EQ(std::ranges::find(rows, "OmniQuant w8a8", &PaperRow::label)->ours[0], std::nullopt);
  EXPECT_EQ(rows[0].ours[0], report.rows[0].cells[0]->value);
}

TEST(PaperTables, SayWhereTheFamilyIsNotInThePaper) {
  const TemporaryFolder folder;
  const Report report = paper_report(folder, "SmolLM2-135M");
  ASSERT_EQ(report.paper.size(), 3U);
  EXPECT_THAT(paper_table(report.paper[0]).caption, HasSubstr("no model of this family"));
}

}  // namespace
}  // namespace qeval::reports
