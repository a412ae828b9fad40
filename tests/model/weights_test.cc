#include "model/weights.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qeval::model {
namespace {

TEST(Weights, GoldensLoad) {
  const std::filesystem::path shared = QEVAL_SHARED_DIR;
  if (!std::filesystem::exists(shared)) GTEST_SKIP() << "needs the reference data in " << shared;
  int count = 0;
  for (const char* folder : {"goldens/huggingface", "goldens/mobilequant", "models"}) {
    for (const auto& entry : std::filesystem::directory_iterator(shared / folder)) {
      const Model model = load_model(entry.path());
      EXPECT_EQ(static_cast<int64_t>(model.layers.size()), model.config.num_layers);
      EXPECT_EQ(model.name, entry.path().filename());
      ++count;
    }
  }
  EXPECT_GE(count, 18);
}

}  // namespace
}  // namespace qeval::model
