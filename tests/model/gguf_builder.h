#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/checkpoint/gguf.h"
#include "model/weights.h"
#include "tests/model/fixtures.h"

/// Tiny GGUF files of any architecture, for tests of what they come to.
namespace qeval::model::fixtures {

constexpr int64_t kHidden = 32, kInner = 48, kHeads = 4, kKvHeads = 2, kDim = 8, kVocab = 40;

inline std::string gguf_bool(const std::string& key, bool value) {
  return gguf_value(key, 7, raw(value));
}
inline std::string gguf_bools(const std::string& key, const std::vector<int>& values) {
  std::string bytes = raw<uint32_t>(7) + raw<uint64_t>(values.size());
  for (const int value : values) bytes += static_cast<char>(value);
  return gguf_value(key, 9, bytes);
}
inline std::string gguf_floats(const std::string& key, const std::vector<float>& values) {
  return gguf_value(key, 9, raw<uint32_t>(6) + raw<uint64_t>(values.size()) + raw(values));
}

/// A file of some architecture: 2 blocks unless said otherwise, and its embedding.
class GgufBuilder {
 public:
  explicit GgufBuilder(std::string architecture, uint32_t blocks = 2) : prefix_(architecture + ".") {
    parts_.values = {gguf_text("general.architecture", architecture)};
    u32("block_count", blocks).u32("context_length", 128).u32("embedding_length", kHidden);
    u32("feed_forward_length", kInner)
        .u32("attention.head_count", kHeads)
        .u32("attention.head_count_kv", kKvHeads);
    f32("attention.layer_norm_rms_epsilon", 0.25F).f32("attention.layer_norm_epsilon", 0.125F);
    tensor("token_embd.weight", {kVocab, kHidden});
  }
  GgufBuilder& u32(const std::string& key, int64_t value) {
    return add(gguf_u32(prefix_ + key, static_cast<uint32_t>(value)));
  }
  GgufBuilder& f32(const std::string& key, float value) { return add(gguf_f32(prefix_ + key, value)); }
  GgufBuilder& text(const std::string& key, const std::string& value) {
    return add(gguf_text(prefix_ + key, value));
  }
  GgufBuilder& flag(const std::string& key, bool value) { return add(gguf_bool(prefix_ + key, value)); }
  GgufBuilder& flags(const std::string& key, const std::vector<int>& values) {
    return add(gguf_bools(prefix_ + key, values));
  }
  GgufBuilder& add(std::string value) {
    parts_.values.push_back(std::move(value));
    return *this;
  }
  GgufBuilder& tensor(const std::string& name, const std::vector<int64_t>& shape) {
    size_t count = 1;
    for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
    return tensor(name, shape, random_values(count, static_cast<uint32_t>(parts_.tensors.size() + 1)));
  }
  GgufBuilder& tensor(const std::string& name, const std::vector<int64_t>& shape,
                      const std::vector<float>& values) {
    parts_.tensors.push_back(f32_tensor(name, shape, values));
    return *this;
  }
  /// The same tensor in each of the two blocks.
  GgufBuilder& blocks(const std::string& name, const std::vector<int64_t>& shape) {
    for (const char* block : {"blk.0.", "blk.1."}) tensor(block + name, shape);
    return *this;
  }
  /// What most families have beside their norms; linears without biases.
  GgufBuilder& body(bool gated = true) {
    tensor("output_norm.weight", {kHidden}).tensor("output.weight", {kVocab, kHidden});
    blocks("attn_q.weight", {kHeads * kDim, kHidden}).blocks("attn_k.weight", {kKvHeads * kDim, kHidden});
    blocks("attn_v.weight", {kKvHeads * kDim, kHidden})
        .blocks("attn_output.weight", {kHidden, kHeads * kDim});
    if (gated) blocks("ffn_gate.weight", {kInner, kHidden});
    return blocks("ffn_up.weight", {kInner, kHidden}).blocks("ffn_down.weight", {kHidden, kInner});
  }
  const GgufParts& parts() const { return parts_; }

 private:
  std::string prefix_;
  GgufParts parts_;
};

/// Opens them.
class GgufArchitectures : public testing::Test {
 protected:
  ModelConfig config(const GgufBuilder& file) {
    write(folder_ / "x.gguf", gguf(file.parts()));
    return read_config(GgufFile(folder_ / "x.gguf"));
  }
  Model load(const GgufBuilder& file) {
    write(folder_ / "x.gguf", gguf(file.parts()));
    return load_model(folder_ / "x.gguf");
  }
  /// The settings that folders are written with say the same as the file.
  ModelConfig again(const ModelConfig& config) {
    write(folder_ / "config.json", config.source);
    return read_config(folder_ / "config.json");
  }
  std::string refusal(const GgufBuilder& file) {
    return error_of([&] { load(file); });
  }
  TemporaryFolder folder_;
};

}  // namespace qeval::model::fixtures
