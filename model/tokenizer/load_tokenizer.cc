#include "base/error.h"
#include "model/tokenizer/bpe_tokenizer.h"
#include "model/tokenizer/sentencepiece_tokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {
namespace {

std::unique_ptr<Tokenizer> load_json(const std::filesystem::path& file, const std::filesystem::path& folder) {
  return make_bpe_tokenizer(read_bpe_json(file, folder), file.string());
}

std::unique_ptr<Tokenizer> load_gguf(const std::filesystem::path& file) {
  const GgufFile gguf(file);
  const std::string name = file.string();
  if (gguf.find_value("tokenizer.ggml.model") == nullptr) {
    fail("{}: the file has no tokenizer (tokenizer.ggml.model is missing)", name);
  }
  const std::string& kind = gguf.string("tokenizer.ggml.model");
  if (kind == "llama") return load_sentencepiece_gguf(gguf, name);
  if (kind == "gpt2") return make_bpe_tokenizer(read_bpe_gguf(gguf, name), name);
  fail("{}: tokenizer.ggml.model '{}' is not supported; accepted are llama, gpt2", name, printable(kind));
}

std::unique_ptr<Tokenizer> load_folder(const std::filesystem::path& folder) {
  if (const auto file = folder / "tokenizer.model"; std::filesystem::exists(file)) {
    return load_sentencepiece(file, folder);
  }
  if (const auto file = folder / "tokenizer.json"; std::filesystem::exists(file))
    return load_json(file, folder);
  if (const auto file = folder / "tokenizer.gguf"; std::filesystem::exists(file)) return load_gguf(file);
  fail("{}: the folder has no tokenizer; tokenizer.model, tokenizer.json or tokenizer.gguf is expected",
       folder.string());
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return load_folder(path);
  if (!std::filesystem::exists(path)) fail("{}: no such file or folder", path.string());
  if (path.extension() == ".gguf") return load_gguf(path);
  if (path.extension() == ".json") return load_json(path, {});
  if (path.extension() == ".model") return load_sentencepiece(path, {});
  fail(
      "{}: not a tokenizer; accepted are a model folder, a .gguf file, a tokenizer.json and a "
      "tokenizer.model",
      path.string());
}

}  // namespace qeval::model
