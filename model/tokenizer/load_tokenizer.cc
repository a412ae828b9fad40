#include "base/error.h"
#include "model/tokenizer/definition.h"
#include "model/tokenizer/sentencepiece_tokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {
namespace {

std::unique_ptr<Tokenizer> load_json(const std::filesystem::path& file, const std::filesystem::path& folder) {
  return make_pipeline_tokenizer(read_tokenizer_json(file, folder), file.string());
}

std::unique_ptr<Tokenizer> load_gguf_tokenizer(const std::filesystem::path& file) {
  const GgufFile gguf(file);
  const std::string name = gguf.path().string();  // of a model in parts, the one with the keys
  if (gguf.find_value("tokenizer.ggml.model") == nullptr) {
    fail("{}: the file has no tokenizer (tokenizer.ggml.model is missing)", name);
  }
  const std::string& kind = gguf.string("tokenizer.ggml.model");
  if (kind == "llama") return load_sentencepiece_gguf(gguf, name);
  if (kind == "gpt2" || kind == "gemma4") return make_pipeline_tokenizer(read_bpe_gguf(gguf, name), name);
  fail("{}: tokenizer.ggml.model '{}' is not supported; accepted are llama, gpt2, gemma4", name,
       printable(kind));
}

std::unique_ptr<Tokenizer> load_folder(const std::filesystem::path& folder) {
  // transformers reads the first that is there, too.
  if (const auto file = folder / "tokenizer.json"; std::filesystem::exists(file))
    return load_json(file, folder);
  if (const auto file = folder / "tokenizer.model"; std::filesystem::exists(file)) {
    return make_pipeline_tokenizer(read_sentencepiece_folder(folder), file.string());
  }
  if (const auto file = folder / "tokenizer.gguf"; std::filesystem::exists(file))
    return load_gguf_tokenizer(file);
  fail("{}: the folder has no tokenizer; tokenizer.json, tokenizer.model or tokenizer.gguf is expected",
       folder.string());
}

/// A tokenizer with more tokens than its model has embeddings.
class LimitedTokenizer final : public Tokenizer {
 public:
  LimitedTokenizer(std::unique_ptr<Tokenizer> all, int32_t limit, const std::string& name)
      : all_(std::move(all)), limit_(limit), name_(name) {
    hash_ = all_->hash();
    warnings_ = all_->warnings();
    bos_id_ = within(all_->bos_id(), "BOS");
    eos_id_ = within(all_->eos_id(), "EOS");
    leading_ids_.assign(all_->leading_ids().begin(), all_->leading_ids().end());
    check(leading_ids_);
    for (int32_t id = 0; id < limit; ++id) {
      if (all_->is_special(id)) special_ids_.insert(id);
    }
  }

  std::vector<int32_t> encode(std::string_view text) const override { return check(all_->encode(text)); }
  std::vector<int32_t> encode_prompt(std::string_view text) const override {
    return check(all_->encode_prompt(text));
  }
  std::string decode(std::span<const int32_t> ids) const override { return all_->decode(ids); }
  int32_t vocab_size() const override { return limit_; }
  std::string_view kind() const override { return all_->kind(); }

 private:
  std::optional<int32_t> within(std::optional<int32_t> id, std::string_view what) {
    if (!id || *id < limit_) return id;
    warnings_.push_back(fmt::format("{}: {} is token {}, but the model has {} embeddings: taken as none",
                                    name_, what, *id, limit_));
    return std::nullopt;
  }

  std::vector<int32_t> check(std::vector<int32_t> ids) const {
    for (const int32_t id : ids) {
      if (id < limit_) continue;
      fail(
          "{}: the text holds token {} '{}', but the model has {} embeddings: the token was added without "
          "one, or "
          "the tokenizer belongs to another model",
          name_, id, printable(all_->decode({{id}}), 60), limit_);
    }
    return ids;
  }

  std::unique_ptr<Tokenizer> all_;
  int32_t limit_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path, int64_t vocab_size) {
  auto tokenizer = load_tokenizer(path);
  if (tokenizer->vocab_size() <= vocab_size) return tokenizer;
  return std::make_unique<LimitedTokenizer>(std::move(tokenizer), static_cast<int32_t>(vocab_size),
                                            path.string());
}

void put_in_front(std::span<const int32_t> leading, std::vector<int32_t>& ids) {
  if (leading.empty() || (!ids.empty() && ids.front() == leading.front())) return;
  ids.insert(ids.begin(), leading.begin(), leading.end());
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return load_folder(path);
  if (!std::filesystem::exists(path)) fail("{}: no such file or folder", path.string());
  if (path.extension() == ".gguf") return load_gguf_tokenizer(path);
  if (path.extension() == ".json") return load_json(path, {});
  if (path.extension() == ".model") return load_sentencepiece(path);
  fail(
      "{}: not a tokenizer; accepted are a model folder, a .gguf file, a tokenizer.json and a "
      "tokenizer.model",
      path.string());
}

}  // namespace qeval::model
