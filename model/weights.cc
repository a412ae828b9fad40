#include "model/weights.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"

namespace qeval::model {
namespace {

/// Calls `visit(Matrix)`, `visit(name, vector)` for everything the model computes with, tied weights once.
template <typename Visitor>
void visit_weights(const Model& model, const Visitor& visit) {
  const auto norm = [&](const NormWeights& weights) {
    visit(weights.name + ".weight", weights.weight);
    visit(weights.name + ".bias", weights.bias);
  };
  const auto linear = [&](const LinearWeights& weights) {
    visit(weights.weight);
    visit(weights.weight.name + ".bias", weights.bias);
  };
  visit(model.embedding);
  for (const LayerWeights& layer : model.layers) {
    norm(layer.input_norm);
    norm(layer.post_attention_norm);
    for (const LinearWeights* weights :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      linear(*weights);
    }
  }
  norm(model.final_norm);
  if (model.head.weight.data != model.embedding.data) linear(model.head);
}

struct Hasher {
  Sha256& sha;
  const Checkpoint* checkpoint;
  void operator()(const Matrix& matrix) const {
    sha.update(fmt::format("{} {} {}x{} {}\n", matrix.name, info(matrix.dtype).name, matrix.rows, matrix.cols,
                           matrix.interleaved_head_dim));
    sha.update(std::span(matrix.data, static_cast<size_t>(matrix.byte_count())));
    // What an arithmetic keeps in another form need not stay in memory for having been hashed.
    if (checkpoint != nullptr) checkpoint->release_pages();
  }
  void operator()(const std::string& name, const std::vector<float>& values) const {
    sha.update(fmt::format("{} {}\n", name, values.size()));
    sha.update(std::as_bytes(std::span(values)));
  }
};

struct ByteCounter {
  int64_t& total;
  void operator()(const Matrix& matrix) const { total += matrix.byte_count(); }
  void operator()(const std::string&, const std::vector<float>& values) const {
    total += static_cast<int64_t>(values.size() * sizeof(float));
  }
};

}  // namespace

const std::byte* Matrix::row(int64_t r) const {
  if (interleaved_head_dim != 0) {
    const int64_t half = interleaved_head_dim / 2;
    const int64_t within = r % interleaved_head_dim;
    r += 2 * (within % half) + within / half - within;
  }
  return data + r * row_bytes;
}

void Matrix::decode_rows(int64_t first, int64_t count, float* destination) const {
  if (interleaved_head_dim == 0) {
    decode(dtype, row(first), count * cols, destination);
    return;
  }
  for (int64_t r = 0; r < count; ++r) decode(dtype, row(first + r), cols, destination + r * cols);
}

std::string Model::weight_hash() const {
  Sha256 sha;
  sha.update(unified_config(config, "").dump());
  visit_weights(*this, Hasher{sha, checkpoint.get()});
  return sha.hex();
}

int64_t Model::weight_bytes() const {
  int64_t total = 0;
  visit_weights(*this, ByteCounter{total});
  return total;
}

}  // namespace qeval::model
