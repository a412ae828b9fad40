#include "tests/model/fixtures.h"

#include <algorithm>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <stdlib.h>

#include "base/error.h"

namespace qeval::model::fixtures {
namespace {

uint32_t ggml_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0;
    case DType::f16:
      return 1;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q5_0:
      return 6;
    case DType::q5_1:
      return 7;
    case DType::q8_0:
      return 8;
    case DType::q2_k:
      return 10;
    case DType::q3_k:
      return 11;
    case DType::q4_k:
      return 12;
    case DType::q5_k:
      return 13;
    case DType::q6_k:
      return 14;
    case DType::i32:
      return 26;
    case DType::i64:
      return 27;
    case DType::f64:
      return 28;
    case DType::bf16:
      return 30;
    case DType::iq2_xxs:
      return 16;
    case DType::iq2_xs:
      return 17;
    case DType::iq3_xxs:
      return 18;
    case DType::iq1_s:
      return 19;
    case DType::iq4_nl:
      return 20;
    case DType::iq3_s:
      return 21;
    case DType::iq2_s:
      return 22;
    case DType::iq4_xs:
      return 23;
    case DType::iq1_m:
      return 29;
    case DType::tq1_0:
      return 34;
    case DType::tq2_0:
      return 35;
    case DType::mxfp4:
      return 39;
    case DType::nvfp4:
      return 40;
    case DType::q1_0:
      return 41;
    case DType::q2_0:
      return 42;
    case DType::i8:
      return 24;
    case DType::u8:
    case DType::f8_e4m3:
    case DType::f8_e8m0:
      break;  // GGUF has no such type
  }
  return 0;
}

std::string_view storage_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "DoubleStorage";
    case DType::f16:
      return "HalfStorage";
    case DType::bf16:
      return "BFloat16Storage";
    case DType::i64:
      return "LongStorage";
    case DType::i32:
      return "IntStorage";
    default:
      return "FloatStorage";
  }
}

std::string pickled_text(std::string_view text) {
  return std::string("X") + raw(static_cast<uint32_t>(text.size())) + std::string(text);
}

/// LONG1 with eight bytes: right for any value.
std::string pickled_integer(int64_t value) {
  return std::string("\x8a\x08") + raw(value);
}

std::string pickled_integers(const std::vector<int64_t>& values) {
  std::string out = "(";
  for (const int64_t value : values) out += pickled_integer(value);
  return out + "t";
}

void replace(std::string& text, std::string_view from, std::string_view to) {
  if (const size_t at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

}  // namespace

void write(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void expect_error_at_every_length(const std::filesystem::path& path, std::string_view bytes,
                                  const std::function<void()>& open) {
  write(path, bytes);
  EXPECT_NO_THROW(open()) << "whole";
  for (size_t length = bytes.size(); length-- > 0;) {
    std::filesystem::resize_file(path, length);
    EXPECT_THROW(open(), Error) << "cut at byte " << length;
  }
}

void survive_every_corrupted_byte(const std::filesystem::path& path, std::string_view bytes,
                                  const std::function<void()>& open) {
  write(path, bytes);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto overwrite = [&](size_t offset, char byte) {
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte).flush();
  };
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char flip : {'\x01', '\x80', '\xFF'}) {
      overwrite(i, static_cast<char>(bytes[i] ^ flip));
      try {
        open();
      } catch (const Error&) {
        // As good an end as any.
      }
    }
    overwrite(i, bytes[i]);
  }
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << error.what();
    return error.what();
  } catch (const std::exception& exception) {
    ADD_FAILURE() << "not a qeval::Error: " << exception.what();
    return {};
  }
  ADD_FAILURE() << "no Error";
  return {};
}

std::string raw(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::vector<float> values_of(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.element_count()));
  decode(tensor.dtype, tensor.bytes.data(), tensor.element_count(), values.data());
  return values;
}

std::vector<float> random_values(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  uint32_t state = seed * 2654435761U + 1;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(static_cast<int>(state >> 24) - 128) / 128.0F;
  }
  return values;
}

Tensor f32_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& values) {
  return {.name = std::move(name), .dtype = DType::f32, .shape = std::move(shape), .bytes = raw(values)};
}

std::string safetensors(const std::vector<Tensor>& tensors, size_t padding) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const Tensor& tensor : tensors) {
    const size_t begin = data.size();
    data += tensor.bytes;
    header[tensor.name] = {
        {"dtype", info(tensor.dtype).name}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return safetensors(header.dump() + std::string(padding, ' '), data);
}

std::string safetensors(std::string_view header, std::string_view data) {
  return raw(uint64_t{header.size()}) + std::string(header) + std::string(data);
}

std::string gguf_string(std::string_view text) {
  return raw(uint64_t{text.size()}) + std::string(text);
}

std::string gguf_value(std::string_view key, uint32_t type, std::string_view value) {
  return gguf_string(key) + raw(type) + std::string(value);
}

std::string gguf_u32(std::string_view key, uint32_t value) {
  return gguf_value(key, 4, raw(value));
}
std::string gguf_f32(std::string_view key, float value) {
  return gguf_value(key, 6, raw(value));
}
std::string gguf_text(std::string_view key, std::string_view value) {
  return gguf_value(key, 8, gguf_string(value));
}

std::string gguf(const GgufParts& parts) {
  const auto pad = [&](std::string& bytes) {
    bytes.resize((bytes.size() + parts.alignment - 1) / parts.alignment * parts.alignment);
  };
  std::string out = parts.magic + raw(parts.version) + raw(uint64_t{parts.tensors.size()}) +
                    raw(uint64_t{parts.values.size()});
  for (const std::string& value : parts.values) out += value;
  std::string data;
  for (size_t i = 0; i < parts.tensors.size(); ++i) {
    const Tensor& tensor = parts.tensors[i];
    pad(data);
    out += gguf_string(tensor.name) + raw(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d-- > 0;) out += raw(tensor.shape[d]);
    out += raw(parts.types.empty() ? ggml_type(tensor.dtype) : parts.types[i]);
    out += raw(parts.offsets.empty() ? uint64_t{data.size()} : parts.offsets[i]);
    data += tensor.bytes;
  }
  pad(out);
  return out + data;
}

std::string zip(const std::vector<std::pair<std::string, std::string>>& entries, uint16_t method) {
  std::string out, directory;
  for (const auto& [name, bytes] : entries) {
    const auto offset = static_cast<uint32_t>(out.size());
    const auto size = static_cast<uint32_t>(bytes.size());
    const std::string common = raw(uint16_t{0}) + raw(method) + raw(uint32_t{0}) + raw(uint32_t{0}) +
                               raw(size) + raw(size) + raw(static_cast<uint16_t>(name.size()));
    // Data begins on a multiple of 64, as torch.save pads it.
    const size_t padding = 63 - (out.size() + 30 + name.size() + 63) % 64;
    out += raw(uint32_t{0x04034b50}) + raw(uint16_t{20}) + common + raw(static_cast<uint16_t>(padding)) +
           name + std::string(padding, '\0') + bytes;
    directory += raw(uint32_t{0x02014b50}) + raw(uint16_t{20}) + raw(uint16_t{20}) + common +
                 raw(uint16_t{0}) + raw(uint16_t{0}) + raw(uint16_t{0}) + raw(uint16_t{0}) +
                 raw(uint32_t{0}) + raw(offset) + name;
  }
  const auto count = static_cast<uint16_t>(entries.size());
  const auto offset = static_cast<uint32_t>(out.size());
  return out + directory + raw(uint32_t{0x06054b50}) + raw(uint16_t{0}) + raw(uint16_t{0}) + raw(count) +
         raw(count) + raw(static_cast<uint32_t>(directory.size())) + raw(offset) + raw(uint16_t{0});
}

std::string pickled_tensor(std::string_view name, std::string_view storage_type, std::string_view key,
                           int64_t elements, int64_t offset, const std::vector<int64_t>& shape,
                           const std::vector<int64_t>& stride) {
  return pickled_text(name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + pickled_text("storage") + "ctorch\n" +
         std::string(storage_type) + "\n" + pickled_text(key) + pickled_text("cpu") +
         pickled_integer(elements) + "tQ" + pickled_integer(offset) + pickled_integers(shape) +
         pickled_integers(stride) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}

std::string pickled_dict(const std::vector<Tensor>& tensors) {
  std::string out = "\x80\x02" + std::string("ccollections\nOrderedDict\n)R(");
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    std::vector<int64_t> stride(tensor.shape.size());
    int64_t count = 1;
    for (size_t d = stride.size(); d-- > 0; count *= tensor.shape[d]) stride[d] = count;
    out += pickled_tensor(tensor.name, storage_type(tensor.dtype), std::to_string(i), count, 0, tensor.shape,
                          stride);
  }
  // Attributes of the dict, as every nn.Module's state dict has them.
  return out + "u}" + pickled_text("_metadata") + "}sb.";
}

std::string pytorch(std::string_view pickle, const std::vector<std::string>& storages) {
  std::vector<std::pair<std::string, std::string>> entries{{"archive/data.pkl", std::string(pickle)},
                                                           {"archive/byteorder", "little"}};
  for (size_t i = 0; i < storages.size(); ++i)
    entries.emplace_back("archive/data/" + std::to_string(i), storages[i]);
  entries.emplace_back("archive/version", "3\n");
  return zip(entries);
}

std::string pytorch(const std::vector<Tensor>& tensors) {
  std::vector<std::string> storages;
  for (const Tensor& tensor : tensors) storages.push_back(tensor.bytes);
  return pytorch(pickled_dict(tensors), storages);
}

std::vector<Tensor> tiny_model(const TinyModel& options) {
  std::vector<Tensor> tensors;
  uint32_t seed = 1;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    tensors.push_back(f32_tensor(name, std::move(shape), random_values(static_cast<size_t>(count), seed++)));
  };
  const auto linear = [&](const std::string& name, int64_t rows, int64_t cols, bool bias) {
    add(name + ".weight", {rows, cols});
    if (bias) add(name + ".bias", {rows});
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {kTinyHidden});
    if (options.norm_bias) add(name + ".bias", {kTinyHidden});
  };
  constexpr int64_t kQ = kTinyHeads * kTinyHeadDim, kKv = kTinyKvHeads * kTinyHeadDim;
  add("model.embed_tokens.weight", {kTinyVocab, kTinyHidden});
  for (int64_t i = 0; i < kTinyLayers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    norm(layer + "input_layernorm");
    norm(layer + "post_attention_layernorm");
    linear(layer + "self_attn.q_proj", kQ, kTinyHidden, options.qkv_bias);
    linear(layer + "self_attn.k_proj", kKv, kTinyHidden, options.qkv_bias);
    linear(layer + "self_attn.v_proj", kKv, kTinyHidden, options.qkv_bias);
    linear(layer + "self_attn.o_proj", kTinyHidden, kQ, options.o_bias);
    linear(layer + "mlp.gate_proj", kTinyInner, kTinyHidden, options.mlp_bias);
    linear(layer + "mlp.up_proj", kTinyInner, kTinyHidden, options.mlp_bias);
    linear(layer + "mlp.down_proj", kTinyHidden, kTinyInner, options.mlp_bias);
  }
  norm("model.norm");
  if (options.head) add("lm_head.weight", {kTinyVocab, kTinyHidden});
  return tensors;
}

std::string tiny_config(std::string_view extra, std::string_view model_type) {
  return R"({"model_type": ")" + std::string(model_type) + "\", " + std::string(extra) +
         R"( "vocab_size": 48, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5})";
}

GgufParts tiny_gguf(const TinyModel& options) {
  GgufParts parts;
  parts.values = {gguf_text("general.architecture", "llama"),
                  gguf_u32("llama.block_count", kTinyLayers),
                  gguf_u32("llama.context_length", 128),
                  gguf_u32("llama.embedding_length", kTinyHidden),
                  gguf_u32("llama.feed_forward_length", kTinyInner),
                  gguf_u32("llama.attention.head_count", kTinyHeads),
                  gguf_u32("llama.attention.head_count_kv", kTinyKvHeads),
                  gguf_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F)};
  parts.tensors = tiny_model(options);
  for (Tensor& tensor : parts.tensors) {
    std::string& name = tensor.name;
    const bool rotated = name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos;
    replace(name, "model.embed_tokens", "token_embd");
    replace(name, "model.norm", "output_norm");
    replace(name, "lm_head", "output");
    replace(name, "model.layers.", "blk.");
    replace(name, "input_layernorm", "attn_norm");
    replace(name, "post_attention_layernorm", "ffn_norm");
    replace(name, "self_attn.o_proj", "attn_output");
    for (const char* letter : {"q", "k", "v"}) {
      replace(name, "self_attn." + std::string(letter) + "_proj", "attn_" + std::string(letter));
    }
    for (const char* part : {"gate", "up", "down"}) {
      replace(name, "mlp." + std::string(part) + "_proj", "ffn_" + std::string(part));
    }
    if (!rotated) continue;
    // Row i + j·d/2 of a head goes to 2i + j.
    const std::string source = tensor.bytes;
    const size_t row = source.size() / static_cast<size_t>(tensor.shape[0]);
    constexpr size_t kHalf = kTinyHeadDim / 2;
    for (size_t r = 0; r < static_cast<size_t>(tensor.shape[0]); ++r) {
      const size_t head = r / kTinyHeadDim, i = r % kHalf, j = r % kTinyHeadDim / kHalf;
      source.copy(tensor.bytes.data() + (head * kTinyHeadDim + 2 * i + j) * row, row, r * row);
    }
  }
  return parts;
}

}  // namespace qeval::model::fixtures
