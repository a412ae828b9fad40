#include "cli/model_options.h"

#include <algorithm>
#include <iostream>

#include "cli/option_values.h"
#include "quant/arithmetic/ggml_arithmetic.h"

namespace qeval::cli {

void add_weight_options(po::options_description& options) {
  options.add_options()(
      "gptq-zeros", one_of("V", "v1, v2"),
      "how a GPTQ checkpoint stores zero points: less one (v1) or as they are (v2), whatever "
      "its configuration says");
}

model::Model load_model(const po::variables_map& arguments) {
  return model::load_model(require(arguments, "model"),
                           optional<std::string>(arguments, "gptq-zeros").value_or(""));
}

void add_arithmetic_options(po::options_description& options, bool several) {
  auto add = options.add_options();
  constexpr std::string_view kNames = "float, fake, integer, ggml";
  constexpr OpenEnd kGgml{quant::ggml_stem, quant::kGgmlNote};
  const std::string text =
      "how the model computes: float, fake (quantization simulated; default where the folder has "
      "act_dict.json and default_qcfg.json, or weights whose format rounds activations) or integer (no "
      "floating point between embedding and logits; of weights whose format rounds activations: int8 linear "
      "maps in integers, the rest in float) or ggml (a GGUF file as llama.cpp's CPU code computes it: inputs "
      "of products rounded in blocks)";
  if (several) {
    add("arithmetic", some_of("LIST", kNames, kGgml),
        (text + "; several, with commas, are run one after the other and compared").c_str());
  } else {
    add("arithmetic", one_of("A", kNames, kGgml), text.c_str());
  }
  add("kv-type", one_of("TYPE", quant::kGgmlKvTypes),
      "of --arithmetic ggml: how keys and values are stored, as llama.cpp's -ctk and -ctv (default: f16)");
  add("precision", one_of("P", "f32, bf16, auto")->default_value("f32"),
      "of float arithmetic: f32; bf16 (less exact: linear maps by the CPU's bfloat16 products, where it has "
      "them; results call it float-bf16, or float-bf16-amx where it has AMX); auto (the one that is faster "
      "here for the model's matrices, of "
      "many tokens together; not of generate and serve)");
  add("qcfg", po::value<std::string>()->value_name("FILE"),
      "what is quantized and to how many bits, instead of the model's default_qcfg.json");
  add("act-ranges", po::value<std::string>()->value_name("FILE"),
      "ranges of the activations, instead of the model's act_dict.json");
  add_weight_options(options);
}

void add_encoding_options(po::options_description& options) {
  auto add = options.add_options();
  add("max-length", po::value<int64_t>()->value_name("N"),
      "longest input in tokens (default: 2048, or the model's context if shorter)");
  add("batch-tokens", po::value<int64_t>()->value_name("N")->default_value(2048),
      "tokens computed at once: more needs more memory, fewer are slower; never changes a score");
  add_protocol_option(options);
  add("prefix-token", one_of("T", "auto, bos, eos, none")->default_value("auto"),
      "what an empty context becomes: auto (BOS if the tokenizer has one, else EOS; EOS under protocol "
      "lm-eval-0.3), bos, eos, none");
  add("add-bos-token", one_of("WHETHER", "true, false, always"),
      "put BOS before every text that does not begin with it (true), or nothing (false), instead of what the "
      "tokenizer's own files say; as the harness's model argument add_bos_token. always: in front of every "
      "sequence, windows and cut texts too (EOS without a BOS); the default of a checkpoint with a prefix");
}

void add_scoring_options(po::options_description& options, bool several) {
  add_arithmetic_options(options, several);
  add_encoding_options(options);
}

void add_protocol_option(po::options_description& options) {
  options.add_options()("protocol", one_of("NAME", "lm-eval-0.4, lm-eval-0.3")->default_value("lm-eval-0.4"),
                        "whose conventions scores follow: lm-eval-0.4, or lm-eval-0.3 (the paper's)");
}

std::vector<std::string> arithmetics(const po::variables_map& arguments) {
  const std::string text = optional<std::string>(arguments, "arithmetic").value_or("");
  std::vector<std::string> names = text.empty() ? std::vector<std::string>{""} : split_list(text);
  for (std::string& name : names) name = quant::canonical_arithmetic(name);
  const auto type = optional<std::string>(arguments, "kv-type");
  if (!type) return names;
  const auto ggml = std::ranges::find(names, "ggml");
  if (ggml == names.end()) refuse("kv-type", fmt::format("{}: used by --arithmetic ggml only", *type));
  *ggml = quant::canonical_arithmetic("ggml-" + *type);
  return names;
}

void refuse_measured_precision(const po::variables_map& arguments) {
  if (optional<std::string>(arguments, "precision") == "auto")
    refuse("precision auto", "measures many tokens together, not one at a time; accepted here: f32, bf16");
}

eval::SessionOptions session_options(const po::variables_map& arguments) {
  eval::SessionOptions options{.model = require(arguments, "model"),
                               .arithmetic = arithmetics(arguments).front(),
                               .max_length = optional<int64_t>(arguments, "max-length")};
  // Commands without these options have none.
  options.gptq_zeros = optional<std::string>(arguments, "gptq-zeros").value_or("");
  if (const auto file = optional<std::string>(arguments, "qcfg")) options.qcfg = *file;
  if (const auto file = optional<std::string>(arguments, "act-ranges")) options.act_ranges = *file;
  if (const auto precision = optional<std::string>(arguments, "precision")) options.precision = *precision;
  return options;
}

void warn_of_own_rounding(const model::Model& model, std::string_view but) {
  if (!model.rounds_activations()) return;
  std::cerr << fmt::format(
      "qeval: warning: {}: rounds activations as quant_method {} says; here its weights alone count{}\n",
      model.path.string(), model.quant_method, but);
}

void print_warnings(const eval::Session& session) {
  for (const std::string& warning : session.warnings()) std::cerr << "qeval: warning: " << warning << '\n';
}

int64_t batch_tokens(const po::variables_map& arguments) {
  const auto count = arguments["batch-tokens"].as<int64_t>();
  constexpr int64_t kMost = int64_t{1} << 24;
  return in_range<int64_t>("batch-tokens", count, 1, kMost);
}

eval::Protocol protocol(const po::variables_map& arguments) {
  const bool old = arguments["protocol"].as<std::string>() == "lm-eval-0.3";
  return old ? eval::Protocol::lm_eval_0_3 : eval::Protocol::lm_eval_0_4;
}

eval::PrefixToken prefix_token(const po::variables_map& arguments) {
  const auto name = arguments["prefix-token"].as<std::string>();
  if (name == "bos") return eval::PrefixToken::bos;
  if (name == "eos") return eval::PrefixToken::eos;
  return name == "none" ? eval::PrefixToken::none : eval::PrefixToken::automatic;
}

std::optional<eval::AddBos> add_bos_token(const po::variables_map& arguments) {
  const auto value = optional<std::string>(arguments, "add-bos-token");
  if (!value) return std::nullopt;
  if (*value == "always") return eval::AddBos::always;
  if (protocol(arguments) == eval::Protocol::lm_eval_0_3)
    throw UsageError(
        "--add-bos-token: protocol lm-eval-0.3 adds no special tokens; accepted with it: always");
  return *value == "true" ? eval::AddBos::texts : eval::AddBos::never;
}

void print_warnings(const model::Tokenizer& tokenizer) {
  for (const std::string& warning : tokenizer.warnings()) std::cerr << "qeval: warning: " << warning << '\n';
}

std::unique_ptr<eval::RequestEncoder> make_encoder(eval::Session& session,
                                                   const po::variables_map& arguments) {
  print_warnings(session.tokenizer());
  return std::make_unique<eval::RequestEncoder>(session.tokenizer(), protocol(arguments),
                                                prefix_token(arguments), session.max_length(),
                                                add_bos_for(session, add_bos_token(arguments)));
}

}  // namespace qeval::cli
