#include "model/checkpoint/quantized/format.h"
#include "model/weights.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

/// Decodes every matrix, in tiles whose last ones are cut.
void decode_all(const model::Model& model) {
  constexpr int64_t kRows = 20, kCols = 96;
  std::vector<float> tile(kRows * kCols);
  const auto decode = [&](const model::Matrix& matrix) {
    for (int64_t row = 0; row < matrix.rows; row += kRows) {
      for (int64_t col = 0; col < matrix.cols; col += kCols) {
        matrix.decode(row, std::min(kRows, matrix.rows - row), col, std::min(kCols, matrix.cols - col),
                      tile.data(), kCols);
      }
    }
  };
  decode(model.embedding);
  decode(model.head.weight);
  for (const model::LayerWeights& layer : model.layers) {
    for (const auto& [module, linear] : layer.linears) decode(linear.weight);
  }
}

void quantized(Input input) {
  const auto [config, weights] = split(text_of(input));
  scratch().write("quantized/config.json", config);
  scratch().write("quantized/model.safetensors", weights);
  for (const char* zeros : {"", "v2"}) {
    accepted([&] {
      const model::Model model = model::load_model(scratch() / "quantized", zeros);
      decode_all(model);
      (void)model.weight_hash();
      (void)model.weight_format();
    });
  }
}

}  // namespace qeval::fuzz
