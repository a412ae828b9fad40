#include "cli/calibration_options.h"

#include <functional>
#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/method_options.h"
#include "model/tokenizer/tokenizer.h"
#include "quant/calibrate/calibration_text.h"

namespace qeval::cli {

void add_calibration_options(po::options_description& options, bool has_presets) {
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  const auto count = [](const char* name) { return po::value<int64_t>()->value_name(name); };
  add("calibration", text("FILE"), "calibration text: a .txt, or a .jsonl with \"text\" on each line");
  add("calibration-ids", text("FILE"), "calibration token ids: a JSON array of ids per line");
  add("samples", count("N"),
      has_presets
          ? "calibration samples (default: 32, or what --preset asks for, or all of --calibration-ids)"
          : "calibration samples (default: 32, or all of --calibration-ids)");
  add("sequence-length", count("N"),
      has_presets ? "tokens per sample (default: 512, or what --preset asks for, or all of --calibration-ids)"
                  : "tokens per sample (default: 512, or all of --calibration-ids)");
  add("seed", po::value<uint64_t>()->value_name("N"),
      "seed of the places that samples are drawn from, and of a rotation's signs (default: 0)");
}

quant::Samples read_samples(const po::variables_map& arguments, const model::Model& model,
                            quant::SampleSize otherwise, std::vector<quant::Warning>* warnings) {
  if (given(arguments, "calibration") && given(arguments, "calibration-ids")) {
    refuse("calibration-ids", "not used with --calibration; one of the two");
  }
  if (given(arguments, "seed") && !given(arguments, "calibration") && !draws_signs(arguments)) {
    refuse("seed", "not used without --calibration, which draws samples from text");
  }
  for (const char* option : {"samples", "sequence-length"}) {
    if (!given(arguments, "calibration") && !given(arguments, "calibration-ids") &&
        given(arguments, option)) {
      refuse(option, "not used without --calibration or --calibration-ids");
    }
  }
  const auto samples = optional<int64_t>(arguments, "samples");
  const auto length = optional<int64_t>(arguments, "sequence-length");
  const int64_t context = model.config.max_position_embeddings;
  if (samples) in_range<int64_t>("samples", *samples, 1, int64_t{1} << 20);
  if (length) in_range<int64_t>("sequence-length", *length, 1, context);
  if (const auto file = optional<std::string>(arguments, "calibration-ids")) {
    quant::Samples ids = quant::read_ids(*file, model.config.vocab_size, samples, length);
    for (const auto& sample : ids) {
      if (std::ssize(sample) > context) {
        fail("{}: a sample of {} ids; accepted: at most {}, the model's context", *file, sample.size(),
             context);
      }
    }
    return ids;
  }
  const auto file = optional<std::string>(arguments, "calibration");
  if (!file) return {};
  const auto tokenizer = model::load_tokenizer(model.path, model.config.vocab_size);
  const auto warn = [&](const std::string& warning) {
    std::cerr << "qeval: warning: " << warning << '\n';
    if (warnings != nullptr) warnings->push_back({.what = warning, .places = {}});
  };
  // A default's samples may overlap in a short text, within limits; those that were asked for should not
  // unnoticed.
  return quant::sample_text(*file, *tokenizer, samples.value_or(otherwise.count),
                            length.value_or(std::min(otherwise.length, context)),
                            optional<uint64_t>(arguments, "seed").value_or(0), warn, samples ? 1 : 4);
}

nlohmann::ordered_json calibration_json(const po::variables_map& arguments, const quant::Samples& samples) {
  if (samples.empty()) return nullptr;
  const bool ids = given(arguments, "calibration-ids");
  int64_t tokens = 0;
  for (const auto& sample : samples) tokens += std::ssize(sample);
  nlohmann::ordered_json json{
      {"file", printable(arguments[ids ? "calibration-ids" : "calibration"].as<std::string>(), 4096)},
      {"samples", samples.size()},
      {"tokens", tokens},
      {"sha256", quant::samples_hash(samples)}};
  if (!ids) json["seed"] = optional<uint64_t>(arguments, "seed").value_or(0);
  return json;
}

}  // namespace qeval::cli
