// Writes the inputs that fuzzing begins with: fuzz_corpus FOLDER makes FOLDER/TARGET/NAME. Small whole files
// of every kind, made by the writers that the tests have, so that the fuzzer need not find the formats out by
// itself.
#include <iostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "eval/distributed/shard_record.h"
#include "eval/kept_distributions.h"
#include "eval/results/checked_line.h"
#include "eval/results/comparison_file.h"
#include "eval/results/divergence.h"
#include "model/checkpoint/pickle.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "quant/calibrate/calibration_text.h"
#include "quant/grid/qcfg.h"
#include "tests/fuzz/quantized_seeds.h"
#include "tests/fuzz/targets.h"
#include "tests/model/fixtures.h"
#include "tests/reports/report_fixture.h"
#include "tests/tiny_model.h"

namespace {

using namespace qeval;
namespace fixtures = model::fixtures;
using nlohmann::json;

std::filesystem::path corpus;

void put(std::string_view target, std::string_view name, std::string_view bytes) {
  qeval::create_directories(corpus / target);
  write_file_atomically(corpus / target / name, bytes);
}

const std::string kNext = "\n%%%\n";

void configs() {
  put("config", "llama", fixtures::tiny_config());
  put("config", "gemma",
      fixtures::tiny_config(R"("head_dim": 8, "hidden_activation": "gelu_pytorch_tanh",)", "gemma"));
  put("config", "stablelm",
      fixtures::tiny_config(R"("use_qkv_bias": true, "partial_rotary_factor": 0.5,
    "layer_norm_eps": 1e-5, "hidden_act": "silu", "parallel_residual": false,)",
                            "stablelm"));
  put("config", "llama3",
      fixtures::tiny_config(R"("rope_theta": 500000.0, "bos_token_id": 1, "eos_token_id": [2, 3],
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192}, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,)"));
  put("config", "rope_parameters",
      fixtures::tiny_config(
          R"("rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2},)"));
  put("config", "unified",
      fixtures::tiny_config(R"("norm_class": "layernorm", "layer_norm_eps": 1e-5,
    "l2norm_as_rmsnorm": true, "normalize_embed": true, "use_qkv_bias_only": true, "num_linears_per_mlp": 3,
    "shared_attention_norm": false, "num_local_experts": 1, "sliding_window": null,)",
                            "hfmodel"));
}

std::vector<fixtures::Tensor> few_tensors() {
  return {
      fixtures::f32_tensor("a", {2, 3}, {1, 2, 3, 4, 5, 6}),
      {.name = "b", .dtype = model::DType::bf16, .shape = {2}, .bytes = fixtures::raw(uint32_t{0xBF803FC0})},
      {.name = "c", .dtype = model::DType::f16, .shape = {2}, .bytes = fixtures::raw(uint32_t{0xC0003C00})},
      {.name = "d", .dtype = model::DType::i64, .shape = {1}, .bytes = fixtures::raw(int64_t{7})},
      {.name = "e", .dtype = model::DType::f64, .shape = {}, .bytes = fixtures::raw(0.5)}};
}

void checkpoints() {
  const std::string whole = fixtures::safetensors(few_tensors());
  put("safetensors", "few", whole);
  put("safetensors", "padded", fixtures::safetensors(few_tensors(), 7));
  put("safetensors", "metadata",
      fixtures::safetensors(R"({"__metadata__": {"format": "pt"}, "x": {"dtype": "F32", "shape": [0, 4],
        "data_offsets": [0, 0]}, "y": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}})",
                            "abcd"));
  for (const fuzz::QuantizedSeed& seed : fuzz::quantized_seeds())
    put("quantized", seed.name, seed.config + kNext + seed.weights);
  const std::string index = R"({"metadata": {"total_size": 54}, "weight_map": {"a": "a.safetensors",
    "b": "a.safetensors", "c": "a.safetensors", "d": "a.safetensors", "e": "a.safetensors"}})";
  put("safetensors", "index", index + kNext + whole);
  put("safetensors", "index_outside", R"({"weight_map": {"a": "../a.safetensors"}})" + kNext + whole);

  put("pytorch", "archive", fixtures::pytorch(few_tensors()));
  put("pytorch", "pickle", fixtures::pickled_dict(few_tensors()));
  const std::string one = fixtures::pickled_tensor("p", "FloatStorage", "0", 6, 0, {6}, {1});
  put("pytorch", "one", fixtures::pytorch("\x80\x02}(" + one + "u.", {std::string(24, '\1')}));
  put("pytorch", "parameter",
      "\x80\x02}(" + one.substr(0, 6) + "ctorch._utils\n_rebuild_parameter\n(" + one.substr(6) +
          "\x88"
          "ccollections\nOrderedDict\n)RtRq\x05X\1" +
          std::string(3, '\0') + "qh\x05u.");
}

/// The whole of a model of 2 × 2 channels: a few hundred bytes.
fixtures::GgufParts smallest_gguf() {
  fixtures::GgufParts parts;
  parts.values = {fixtures::gguf_text("general.architecture", "llama"),
                  fixtures::gguf_u32("llama.block_count", 1),
                  fixtures::gguf_u32("llama.context_length", 16),
                  fixtures::gguf_u32("llama.embedding_length", 4),
                  fixtures::gguf_u32("llama.feed_forward_length", 2),
                  fixtures::gguf_u32("llama.attention.head_count", 2),
                  fixtures::gguf_u32("llama.attention.head_count_kv", 1),
                  fixtures::gguf_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F)};
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    size_t count = 1;
    for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
    parts.tensors.push_back(fixtures::f32_tensor(name, shape, fixtures::random_values(count, 1)));
  };
  add("token_embd.weight", {3, 4});
  add("output_norm.weight", {4});
  for (const char* name : {"attn_norm", "ffn_norm"}) add("blk.0." + std::string(name) + ".weight", {4});
  add("blk.0.attn_q.weight", {4, 4});
  add("blk.0.attn_q.bias", {4});
  add("blk.0.attn_k.weight", {2, 4});
  add("blk.0.attn_k.bias", {2});
  add("blk.0.attn_v.weight", {2, 4});
  add("blk.0.attn_v.bias", {2});
  add("blk.0.attn_output.weight", {4, 4});
  add("blk.0.ffn_gate.weight", {2, 4});
  add("blk.0.ffn_up.weight", {2, 4});
  add("blk.0.ffn_down.weight", {4, 2});
  return parts;
}

std::string gguf_array(std::string_view key, uint32_t type, uint64_t count, std::string_view elements) {
  return fixtures::gguf_value(key, 9, fixtures::raw(type) + fixtures::raw(count) + std::string(elements));
}

std::string gguf_texts(std::string_view key, const std::vector<std::string>& texts) {
  std::string elements;
  for (const std::string& text : texts) elements += fixtures::gguf_string(text);
  return gguf_array(key, 8, texts.size(), elements);
}

std::string vocabulary_gguf(std::string_view kind, const std::vector<std::string>& tokens,
                            const std::vector<int32_t>& types, std::string_view further,
                            uint64_t further_values) {
  std::string stored_types, scores;
  for (const int32_t type : types) stored_types += fixtures::raw(type);
  for (size_t i = 0; i < tokens.size(); ++i) scores += fixtures::raw(-static_cast<float>(i));
  fixtures::GgufParts parts;
  parts.values = {fixtures::gguf_text("tokenizer.ggml.model", kind),
                  gguf_texts("tokenizer.ggml.tokens", tokens),
                  gguf_array("tokenizer.ggml.token_type", 5, types.size(), stored_types),
                  gguf_array("tokenizer.ggml.scores", 6, tokens.size(), scores),
                  fixtures::gguf_u32("tokenizer.ggml.bos_token_id", 1)};
  std::string whole = fixtures::gguf(parts);
  // The count of metadata values stands behind magic, version and tensor count.
  whole.replace(16, 8, fixtures::raw(uint64_t{parts.values.size() + further_values}));
  size_t length = 24;
  for (const std::string& value : parts.values) length += value.size();
  return whole.substr(0, length) + std::string(further);
}

void ggufs() {
  fixtures::GgufParts few;
  few.values = {fixtures::gguf_text("general.name", "few"),
                fixtures::gguf_value("u8", 0, fixtures::raw(uint8_t{200})),
                fixtures::gguf_value("i16", 3, fixtures::raw(int16_t{-300})),
                fixtures::gguf_value("u64", 10, fixtures::raw(uint64_t{1} << 40)),
                fixtures::gguf_value("f64", 12, fixtures::raw(0.25)),
                fixtures::gguf_value("flag", 7, fixtures::raw(uint8_t{1})),
                gguf_array("numbers", 4, 2, std::string(8, '\1')),
                gguf_array("flags", 7, 2, std::string(2, '\1')),
                gguf_texts("texts", {"a", ""})};
  few.tensors = {fixtures::f32_tensor("a", {2, 3}, {1, 2, 3, 4, 5, 6})};
  put("gguf", "few", fixtures::gguf(few));
  using model::DType;
  for (const DType type :
       {DType::q8_0,  DType::q4_0,    DType::q4_1,  DType::q5_0,   DType::q5_1,    DType::q2_k,
        DType::q3_k,  DType::q4_k,    DType::q5_k,  DType::q6_k,   DType::bf16,    DType::f16,
        DType::q1_0,  DType::q2_0,    DType::iq1_s, DType::iq1_m,  DType::iq2_xxs, DType::iq2_xs,
        DType::iq2_s, DType::iq3_xxs, DType::iq3_s, DType::iq4_nl, DType::iq4_xs,  DType::tq1_0,
        DType::tq2_0, DType::mxfp4,   DType::nvfp4}) {
    const model::DTypeInfo& about = model::info(type);
    fixtures::GgufParts parts;
    parts.tensors = {{.name = "b",
                      .dtype = type,
                      .shape = {2, about.block_size},
                      .bytes = std::string(static_cast<size_t>(2 * about.block_bytes), '\1')}};
    put("gguf", std::string(about.name), fixtures::gguf(parts));
  }
  put("gguf", "model", fixtures::gguf(smallest_gguf()));
  // Two files, which the target takes as the parts of one model.
  fixtures::GgufParts first = smallest_gguf(), second;
  second.tensors = {first.tensors.back()};
  first.tensors.pop_back();
  const auto tensors = static_cast<uint32_t>(first.tensors.size() + 1);
  for (fixtures::GgufParts* part : {&first, &second}) {
    part->values.push_back(fixtures::gguf_value("split.no", 2, fixtures::raw(uint16_t{part == &second})));
    part->values.push_back(fixtures::gguf_value("split.count", 2, fixtures::raw(uint16_t{2})));
    part->values.push_back(fixtures::gguf_value("split.tensors.count", 5, fixtures::raw(tensors)));
  }
  put("gguf", "parts", fixtures::gguf(first) + "\n%%%\n" + fixtures::gguf(second));

  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte)
    bytes.push_back(model::byte_level_of_bytes(std::string(1, static_cast<char>(byte))));
  bytes.insert(bytes.end(), {"he", "lo", "<end>"});
  std::vector<int32_t> types(bytes.size(), 1);
  types.back() = 3;
  const std::string further = gguf_texts("tokenizer.ggml.merges", {"h e", "l o"}) +
                              fixtures::gguf_text("tokenizer.ggml.pre", "llama-bpe") +
                              fixtures::gguf_u32("tokenizer.ggml.eos_token_id", 258);
  put("gguf", "bpe_vocabulary", vocabulary_gguf("gpt2", bytes, types, further, 3));
  const std::vector<std::string> pieces{"<unk>",
                                        "<s>",
                                        "</s>",
                                        "x",
                                        "\xE2\x96\x81",
                                        "a",
                                        "\xE2\x96\x81"
                                        "a",
                                        "lo"};
  const std::string flags =
      fixtures::gguf_value("tokenizer.ggml.add_space_prefix", 7, fixtures::raw(uint8_t{1}));
  const std::string sentencepiece = vocabulary_gguf("llama", pieces, {2, 3, 3, 1, 1, 1, 1, 4}, flags, 1);
  put("gguf", "sentencepiece_vocabulary", sentencepiece);
  put("sentencepiece", "gguf", sentencepiece);
}

json small_tokenizer(const json& pre_tokenizer, const json& normalizer = nullptr) {
  json vocab, merges = json::array();
  // Enough letters for the texts that are encoded; what is missing is dropped.
  int next = 0;
  const auto add = [&](const std::string& token) {
    if (!vocab.contains(token)) vocab[token] = next++;
  };
  const std::string letters = "Helo,wrdtins123456caf b<>[]/\n";
  for (const char letter : letters) add(model::byte_level_of_bytes(std::string(1, letter)));
  for (const auto& [left, right] :
       std::vector<std::pair<std::string, std::string>>{{"l", "l"}, {"ll", "o"}, {"a", "a"}}) {
    merges.push_back(left + " " + right);
    add(left + right);
  }
  const json end = {{"id", 90}, {"content", "</s>"}, {"special", true}, {"lstrip", true}, {"rstrip", true}};
  const json word = {{"id", 91}, {"content", "two"}, {"single_word", true}, {"normalized", true}};
  return {{"version", "1.0"},
          {"added_tokens", {end, word}},
          {"normalizer", normalizer},
          {"pre_tokenizer", pre_tokenizer},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", {{{"SpecialToken", {{"id", "</s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}},
          {"model", {{"type", "BPE"}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", merges}}}};
}

void tokenizers() {
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  const json plain = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const json regex = {
      {"type", "Split"},
      {"pattern", {{"Regex", R"((?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+)"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  const json literal = {
      {"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "Removed"}, {"invert", true}};
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  put("tokenizer_json", "bytes", small_tokenizer(bytes).dump());
  put("tokenizer_json", "regex",
      small_tokenizer({{"type", "Sequence"}, {"pretokenizers", {regex, plain}}}, {{"type", "NFC"}}).dump());
  put("tokenizer_json", "literal",
      small_tokenizer({{"type", "Sequence"}, {"pretokenizers", {literal, digits, bytes}}}).dump());
  const json config = {{"bos_token", "</s>"},
                       {"eos_token", {{"content", "two"}}},
                       {"add_bos_token", true},
                       {"added_tokens_decoder", {{"92", {{"content", "[INST]"}, {"special", true}}}}}};
  put("tokenizer_json", "config", small_tokenizer(bytes).dump() + kNext + config.dump());

  const std::string space(model::kSpaceMark);
  const std::vector<model::SentencePiece> words = {
      {space, -1, 1}, {"a", -2, 1}, {space + "a", -3, 1}, {"lo", -4, 4}, {"aa", -5, 1}};
  model::SentencePieceModel model;
  model.pieces = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}};
  model::SentencePieceModel with_bytes = model;
  model.byte_fallback = false;
  model.pieces.insert(model.pieces.end(), words.begin(), words.end());
  put("sentencepiece", "plain", model::serialize_sentencepiece(model));
  for (int byte = 0; byte < 256; ++byte) with_bytes.pieces.push_back({fmt::format("<0x{:02X}>", byte), 0, 6});
  with_bytes.pieces.insert(with_bytes.pieces.end(), words.begin(), words.end());
  put("sentencepiece", "bytes", model::serialize_sentencepiece(with_bytes));
  model.add_dummy_prefix = false;
  model.remove_extra_whitespaces = true;
  const json added = {
      {"bos_token", "<s>"},
      {"add_bos_token", true},
      {"legacy", false},
      {"added_tokens_decoder",
       {{"1", {{"content", "<s>"}, {"special", true}}}, {"8", {{"content", "[INST]"}, {"lstrip", true}}}}}};
  put("sentencepiece", "config", model::serialize_sentencepiece(model) + kNext + added.dump());
}

void quantizations() {
  const model::ModelConfig config = test::TinyModel().config;
  for (const char* scheme : {"w8a8", "w4a16"}) {
    json whole =
        json::parse(quant::qcfg_json(quant::make_qcfg(config, quant::parse_scheme(scheme)), config).dump());
    json few;
    for (const auto& [module, slots] : whole.items()) {
      if (few.size() < 5 || module.find("layers.1.mlp") != std::string::npos) few[module] = slots;
    }
    put("quantization", scheme, few.dump());
  }
  put("quantization", "kinds", R"({"model.layers.0.mlp.w2": {"weight": {"bitwidth": 4, "group_size": "20",
    "is_symmetric": true, "is_per_channel": "True"}, "input": {"bitwidth": "16", "is_dynamic": "True"}}})");
  put("quantization", "ranges", R"({"model.layers.0.mlp.w2": {"input": [-1.5, 2.25], "output": [0, 1e-3]},
    "model.layers.1.self_attn.q_proj": {"output": [-3.0, 3]}, "model.norm": {"input": [-1, 1]}})");
  const quant::Samples samples{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
  put("quantization", "sketch", quant::NgramSketch(samples).to_json().dump());
  put("quantization", "ids", "[1, 2, 3]\n[[4, 5], [6]]\n");
}

void tasks() {
  const std::string choices =
      R"({"id": "1", "question": "How?", "choices": {"text": ["a", "b"], "label": ["A", "B"]},
 "answerKey": "B"})";
  std::string flat = choices;
  std::erase(flat, '\n');
  put("task_rows", "arc", flat + "\n");
  put("task_rows", "piqa",
      R"({"goal": "Cool", "sol1": "Wait.", "sol2": "Boil.", "label": 0})"
      "\n");
  put("task_rows", "labels",
      R"({"goal": "Cool", "sol1": "Wait.", "sol2": "Boil."})"
      "\n" +
          kNext + "1\n");
  put("task_rows", "hellaswag", R"({"ctx_a": "A", "ctx_b": "b", "ctx": "A b", "activity_label": "X [title] y",
 "endings": ["c", "d", "e", "f"], "label": "2"})");
  put("task_rows", "winogrande",
      R"({"sentence": "A _ b", "option1": "x", "option2": "y", "answer": "1"})"
      "\n");
  put("task_rows", "boolq",
      "\xEF\xBB\xBF"
      R"({"passage": "P", "question": "q", "label": 1, "answer": true})"
      "\r\n");
  put("task_rows", "openbookqa",
      R"({"question_stem": "Q", "choices": {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]}, "answerKey": "A"})"
      "\n");
  put("task_rows", "truthfulqa",
      R"({"question": "Q", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]}, "mc2_targets": {"choices": ["a", "b"], "labels": [1, 0]}})"
      "\n");
  put("task_rows", "mmlu",
      R"({"question": "Q", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 3})"
      "\n");
  put("task_rows", "lambada",
      R"({"text": "A long story ends here", "domain": "x"})"
      "\n");
  put("task_rows", "social",
      R"({"context": "C", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"})"
      "\n");
  put("task_rows", "csv", "What?,a,\"b, c\",\"d \"\"e\"\"\nf\",g,B\r\nWhy?,1,2,3,4,D\n");
  put("task_rows", "wikitext",
      " = Title = \n\n A page @-@ with ( marks ) , \" quotes \" . \n = = Part = = \n text \n = Next = \n\n "
      "end 's \n");

  const std::string description =
      R"({"name": "capitals", "data": "capitals.jsonl", "prompt": "Q: {{question}}\nA:",
    "choices": "options", "gold": "answer"})";
  const std::string rows = R"({"question": "What is it?", "options": ["Lyon", "Paris"], "answer": 1})"
                           "\n"
                           R"({"question": "Which?", "options": ["no", "yes", "maybe"], "answer": "A"})"
                           "\n";
  put("user_task", "plain", description + kNext + rows);
  put("user_task", "full",
      R"({"name": "x-1.b", "data": "{split}.jsonl", "prompt": "question", "choices": ["{{a}}", "{{b.0}}"],
    "gold": "{{key}}", "labels": "names", "gold_start": 1, "metrics": ["acc", "acc_bytes"], "description": "d",
    "split": "dev", "fewshot": "train.jsonl", "preamble": "Answer.\n"})" +
          kNext +
          R"({"question": "q", "a": "x", "b": ["y"], "names": ["one", "two"], "key": "two"})"
          "\n"
          R"({"question": "r", "a": 1, "b": [2], "names": ["one", "two"], "key": "one"})"
          "\n");
  put("user_task", "text",
      R"({"name": "t", "data": "t.jsonl", "text": "{{a}} {{b.0}}", "metrics": ["token_perplexity"]})" +
          kNext +
          R"({"a": "One", "b": ["text."]})"
          "\n");
  put("user_task", "start",
      R"({"name": "s", "data": "s", "prompt": "q", "choices": "c", "gold": "g", "gold_start": 1})" + kNext +
          R"({"q": "q", "c": ["x", "y"], "g": "2"})"
          "\n"
          R"({"q": "q", "c": [{"t": "x"}], "g": true})"
          "\n");
}

std::string samples_of(const reports::MadeRun& run) {
  std::string out;
  for (const eval::Sample& sample : run.samples.front()) out += eval::to_line(sample) + "\n";
  return out;
}

std::string text_of_run(const reports::MadeRun& run) {
  return eval::to_json(run.results).dump() + kNext + samples_of(run);
}

void runs() {
  reports::MadeRun base = reports::made_run("tiny", "float"), other = reports::quantized_run("rtn", "w8a8");
  base.add("arc_easy", reports::questions(4, 3));
  other.add("arc_easy", reports::questions(4, 2));
  reports::MadeRun pages = reports::made_run("tiny", "float"),
                   other_pages = reports::quantized_run("rtn", "w4a8");
  pages.add("wikitext", reports::pages(3, -300));
  other_pages.add("wikitext", reports::pages(3, -310));
  reports::MadeRun group = base;
  group.results.groups.push_back(eval::make_group_results(group.results, "both", {"arc_easy"}, {"acc"}));
  for (const std::string target : {"results", "report"}) {
    put(target, "choices", text_of_run(base));
    put(target, "quantized", text_of_run(other));
    put(target, "pages", text_of_run(pages));
    put(target, "group", text_of_run(group));
  }
  put("report", "two", text_of_run(base) + kNext + text_of_run(other));
  put("report", "two_pages", text_of_run(pages) + kNext + text_of_run(other_pages));

  eval::ComparisonFile comparison{"fp",
                                  {{"fp", "fp", "", "", "float", "fp/results", "", {"qeval eval"}},
                                   {"rtn w8a8",
                                    "rtn",
                                    "",
                                    "w8a8",
                                    "fake",
                                    "rtn/results",
                                    "rtn/model",
                                    {"qeval quantize", "qeval eval"}}}};
  eval::write_comparison_file(corpus / "run_files", comparison);
  eval::ShardRecord record;
  record.run = base.results;
  record.vocab_size = 61;
  record.shard = {.index = 1, .count = 2};
  record.fingerprint = {{"shard", "1/2"}, {"weights", "abc"}};
  record.documents["arc_easy"] = 4;
  eval::write_shard_record(corpus / "run_files", record);
  put("run_files", "run.json", R"({"fingerprint": {"weights": "abc", "tasks": "arc_easy", "seed": "1"}})");
  const eval::KeptDocument document{
      1, "0123456789abcdef", {{{5, 9, 2}, {-0.5F, -1.5F, -3.0F}, 0.12, 0}, {{}, {}, 1.0, 0}}};
  put("run_files", "kept", eval::kept_format(61).header("task") + eval::kept_record(document));
  put("run_files", "divergence",
      eval::divergence_header("task", {"a", "float", "", "b"}, 256) + "\n" +
          eval::divergence_line({1, "0123456789abcdef", {0.5F, 0.25F}, {0, 0.125F}, {1}}) + "\n");
}

void requests() {
  put("score_request", "text", R"({"id": 1, "context": "The capital is", "continuation": " Paris"})");
  put("score_request", "ids",
      R"({"id": [null, {"a": 1.5}], "context_ids": [1, 2, 3], "continuation_ids": [4, 256]})");
  put("score_request", "empty", R"({"context": "", "continuation": "caf\u00e9<end>"})");
  put("serve_request", "text",
      R"({"model": "tiny", "prompt": "ab", "max_tokens": 2, "temperature": 0, "echo": true, "logprobs": 3})");
  put("serve_request", "ids",
      R"({"prompt": [[1, 2], [3]], "max_tokens": 1, "stop": ["a", "b"], "seed": 7, "top_p": 0.5, "top_k": 4})");
  put("serve_request", "inert",
      R"({"prompt": ["a", [5]], "max_tokens": 0, "n": 1, "best_of": 1, "stream": false, "suffix": null,
    "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "user": "u", "ignore_eos": true, "stop": "x"})");
  put("serve_request", "tokenize", R"({"prompt": "caf\u00e9", "add_special_tokens": true})");
  put("serve_request", "detokenize", R"({"tokens": [1, 2, 256]})");
}

void chat_templates() {
  const std::string variables =
      kNext + R"({"messages": [{"role": "user", "content": "Hi"}], "d": {"k": [1, 2.5]}})";
  put("chat_template", "messages",
      R"({%- for m in messages %}{% if m.role == 'user' and not loop.last %}
    {{ raise_exception('no') }}{% endif %}{{- '<|' + m['role'] ~ m.content | trim }}{% endfor %})" +
          variables);
  put("chat_template", "scopes",
      R"({% macro m(a, b=2) %}{{ a }}{{ varargs }}{{ caller() }}{% endmacro %}
    {% set n = namespace(x=1) %}{% for x in d.k if x %}{% set n.x = loop.index %}{% break %}{% else %}{% endfor %}
    {% call m(1, 2, 3) %}c{% endcall %}{% filter upper %}f{% endfilter %}{% set t %}t{% endset %})" +
          variables);
  put("chat_template", "filters",
      R"({{ d | tojson(indent=2) }}{{ d.k | map('string') | select('defined') | list }}
    {{ '%5.2f|%-4s' % (1.5, 'a') }}{{ '{:>5}'.format('x') }}{{ d | dictsort }}{{ 'a b'.split()[::-1] }}
    {{ messages | groupby('role') }}{{ strftime_now('%Y') }}{{ 'a' | replace('a', 'b') | indent }})" +
          variables);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: fuzz_corpus FOLDER, where a folder of inputs per target is made\n";
    return 2;
  }
  corpus = argv[1];
  configs();
  checkpoints();
  ggufs();
  tokenizers();
  quantizations();
  tasks();
  runs();
  requests();
  chat_templates();
  return 0;
}
