// Tokenizer speed. Environment: QEVAL_BENCH_TOKENIZERS, paths separated by ':'; QEVAL_BENCH_TEXT, a UTF-8
// text file.
//
//   QEVAL_BENCH_TOKENIZERS=shared/tokenizers/gpt-neox-tokenizer.json QEVAL_BENCH_TEXT=wiki.test.raw
//   tokenizer_bench
//
// The peer is Hugging Face's tokenizers on one thread (TOKENIZERS_PARALLELISM=false):
// Tokenizer.from_file(F).encode(text) for the whole text and encode_batch(lines) for the lines.
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/file.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end > 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void encode_texts(benchmark::State& state, const std::string& file, const std::vector<std::string>& texts) {
  const auto tokenizer = load_tokenizer(file);
  size_t bytes = 0, tokens = 0;
  for (const std::string& text : texts) bytes += text.size();
  for ([[maybe_unused]] const auto iteration : state) {
    tokens = 0;
    for (const std::string& text : texts) tokens += tokenizer->encode(text).size();
    benchmark::DoNotOptimize(tokens);
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
  state.counters["tokens"] = static_cast<double>(tokens);
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsIterationInvariantRate);
}

void load(benchmark::State& state, const std::string& file) {
  for ([[maybe_unused]] const auto iteration : state) benchmark::DoNotOptimize(load_tokenizer(file));
}

bool register_all() {
  const std::string text_file = environment("QEVAL_BENCH_TEXT");
  const std::string text = text_file.empty() ? std::string(1 << 16, 'x') : read_file(text_file);
  for (const std::string& file : split(environment("QEVAL_BENCH_TOKENIZERS"), ':')) {
    const std::string name = std::filesystem::path(file).filename().string();
    const auto add = [&](const std::string& what, std::vector<std::string> texts) {
      benchmark::RegisterBenchmark((what + "/" + name).c_str(), [file,
                                                                 texts = std::move(texts)](auto& state) {
        encode_texts(state, file, texts);
      })->Unit(benchmark::kMillisecond);
    };
    add("whole_text", {text});
    add("lines", split(text, '\n'));
    add("one_prompt",
        {"Question: Which factor will most likely cause a person to develop a fever?\nAnswer:"});
    benchmark::RegisterBenchmark(("load/" + name).c_str(), [file](auto& state) {
      load(state, file);
    })->Unit(benchmark::kMillisecond);
  }
  return true;
}

const bool kRegistered = register_all();

}  // namespace
}  // namespace qeval::model
