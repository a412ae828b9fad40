#include "quant/checkpoint/checkpoint.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/directory_lock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/export.h"
#include "quant/arithmetic/prefix.h"
#include "quant/checkpoint/packed.h"

namespace qeval::quant {
namespace {

void write_json(const std::filesystem::path& file, const nlohmann::ordered_json& json, int indent) {
  write_file_atomically(file, json.dump(indent) + "\n");
}

constexpr const char* kQcfgFile = "default_qcfg.json";
constexpr const char* kRangesFile = "act_dict.json";

bool has(const std::filesystem::path& folder, const char* name) {
  std::error_code code;
  return std::filesystem::exists(folder / name, code);
}

void remove(const std::filesystem::path& folder, const char* name) {
  std::error_code code;
  std::filesystem::remove(folder / name, code);
  if (code) fail("{}: cannot remove: {}", (folder / name).string(), code.message());
}

bool is_of_a_checkpoint(std::string_view name) {
  std::vector<const char*> ours = model::exported_files();
  ours.insert(ours.end(), {kQcfgFile, kRangesFile, kPrefixFile, kNgramFile, kRecordFile, kUnfinishedFile,
                           kStateFile, kTrainingFile});
  return std::ranges::find(ours, name) != ours.end();
}

/// Whether weights were made codes that their floats need not round to.
bool has_own_codes(const QuantizedModel& model) {
  return model.edited && std::ranges::any_of(model.model().layers, [](const model::LayerWeights& layer) {
           bool coded = false;
           layer.visit_linears([&](Module, const model::LinearWeights& linear) {
             coded = coded || linear.weight.stored.coded() != nullptr;
           });
           return coded;
         });
}

/// What a killed process left of files that it was writing; the weights' may be large.
void remove_temporaries(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    const auto file = file_of_temporary(name);
    if (file && is_of_a_checkpoint(*file)) names.push_back(std::move(name));
  }
  for (const std::string& name : names) remove(folder, name.c_str());
}

}  // namespace

CheckpointFormat parse_checkpoint_format(std::string_view name) {
  if (name == "packed") return CheckpointFormat::packed;
  if (name == "mobilequant") return CheckpointFormat::mobilequant;
  fail("{}: unknown format; accepted: {}", printable(name), kCheckpointFormatNames);
}

std::string_view name(CheckpointFormat format) {
  return format == CheckpointFormat::packed ? "packed" : "mobilequant";
}

void prepare_checkpoint_folder(const std::filesystem::path& folder, const model::Model& source,
                               bool keep_learning) {
  std::error_code code;
  if (std::filesystem::equivalent(folder, source.path, code)) {
    fail("{}: is the model itself; accepted: another folder", folder.string());
  }
  const bool occupied = std::filesystem::exists(folder, code) && !is_unused(folder);
  const bool ours = has(folder, kRecordFile) || has(folder, kUnfinishedFile) || has(folder, kTrainingFile);
  if (occupied && !ours) {
    fail(
        "{}: not empty and no checkpoint of `qeval quantize`; accepted: a new or empty folder, or one with "
        "{}",
        folder.string(), kRecordFile);
  }
  qeval::create_directories(folder);
  remove_temporaries(folder);
  write_file_atomically(folder / kUnfinishedFile, "qeval quantize has not finished here.\n");
  remove(folder, kRecordFile);
  for (const char* name : model::exported_files()) remove(folder, name);
  for (const char* name : {kQcfgFile, kRangesFile, kPrefixFile, kNgramFile}) remove(folder, name);
  if (keep_learning) return;
  for (const char* name : {kStateFile, kTrainingFile}) remove(folder, name);
}

void write_checkpoint(const std::filesystem::path& folder, const QuantizedModel& model,
                      const Samples& samples, const nlohmann::ordered_json& record, CheckpointFormat format) {
  const model::ModelConfig& config = model.model().config;
  model::copy_tokenizer(model.model(), folder);
  // A prefix decides its grids.
  const FirstToken* first = model.first && !model.prefix ? &*model.first : nullptr;
  write_json(folder / kQcfgFile, qcfg_json(model.qcfg, config, first == nullptr ? nullptr : &first->qcfg), 1);
  write_json(folder / kRangesFile,
             act_ranges_json(model.ranges, config, first == nullptr ? nullptr : &first->ranges), 1);
  if (model.prefix) write_json(folder / kPrefixFile, prefix_json(*model.prefix), -1);
  if (!samples.empty()) write_json(folder / kNgramFile, NgramSketch(samples).to_json(), -1);
  if (format == CheckpointFormat::packed) {
    write_packed(model.model(), model.qcfg, folder);
  } else if (has_own_codes(model)) {
    write_floats_and_codes(model.model(), model.qcfg, folder);
  } else {
    model::write_unified(model.model(), folder, model::DType::f32);
  }
  write_json(folder / kRecordFile, record, 2);
  remove(folder, kUnfinishedFile);
}

std::optional<NgramSketch> read_ngram_sketch(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / kNgramFile;
  std::error_code code;
  if (!std::filesystem::exists(file, code)) return std::nullopt;
  return NgramSketch::from_json(parse_strict_json(read_file(file), file.string()), file.string());
}

}  // namespace qeval::quant
