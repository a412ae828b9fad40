#pragma once

#include <cstddef>
#include <span>
#include <string_view>

/// One function per kind of file that comes from strangers. Each reads `input` as that file and returns; what
/// is refused must be refused by a qeval::Error of one line. Anything else (another exception, a crash, a
/// sanitizer's finding, a limit of time or memory) is a defect.
namespace qeval::fuzz {

using Input = std::span<const std::byte>;

/// config.json of a model.
void config(Input input);
/// A folder's safetensors index, a line "%%%", and the shard's bytes; without that line, one safetensors
/// file.
void safetensors(Input input);
/// A quantized folder: its config.json, a line "%%%", and its model.safetensors.
void quantized(Input input);
/// A GGUF file: metadata, tensors, the model, and the vocabulary's tokenizer.
void gguf(Input input);
/// A PyTorch file, or (not beginning with "PK") the bare pickle inside one.
void pytorch(Input input);
/// tokenizer.json, and after a line "%%%" its tokenizer_config.json.
void tokenizer_json(Input input);
/// A SentencePiece model, or a GGUF file with such a vocabulary.
void sentencepiece(Input input);
/// A chat template, a line "%%%", and an object of its variables.
void chat_template(Input input);
/// default_qcfg.json, act_dict.json and the sketch of the calibration text: the same text as each of them.
void quantization(Input input);
/// Rows as JSON lines and as MMLU's CSV, labels, running text, and what the built-in tasks ask of the rows.
void task_rows(Input input);
/// A user's task description, a line "%%%", and its rows.
void user_task(Input input);
/// results.json, a line "%%%", and the samples of its first task, whose checksums are set right first.
void results(Input input);
/// compare.json, shard.json, run.json, a journal and kept distributions: the same bytes as each of them.
void run_files(Input input);
/// As results; the report of such a run must be well-formed in every format.
void report(Input input);
/// A line of `qeval score`.
void score_request(Input input);
/// The body of a request to `qeval serve`.
void serve_request(Input input);

struct Target {
  std::string_view name;
  void (*run)(Input input);
};
/// Those of the program at hand (replay_models.cc, replay_runs.cc).
std::span<const Target> targets();

}  // namespace qeval::fuzz
