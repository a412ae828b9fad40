#include "quant/checkpoint.h"

#include <nlohmann/json.hpp>

#include "base/directory_lock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/export.h"

namespace qeval::quant {
namespace {

void write_json(const std::filesystem::path& file, const nlohmann::ordered_json& json, int indent) {
  write_file_atomically(file, json.dump(indent) + "\n");
}

}  // namespace

void prepare_checkpoint_folder(const std::filesystem::path& folder, const model::Model& source) {
  std::error_code code;
  if (std::filesystem::equivalent(folder, source.path, code)) {
    fail("{}: is the model itself; accepted: another folder", folder.string());
  }
  const bool occupied = std::filesystem::exists(folder, code) && !is_empty_but_for_lock(folder);
  // A learning run that was interrupted leaves its log.
  const bool ours = std::filesystem::exists(folder / kRecordFile, code) ||
                    std::filesystem::exists(folder / kTrainingFile, code);
  if (occupied && !ours) {
    fail(
        "{}: not empty and no checkpoint of `qeval quantize`; accepted: a new or empty folder, or one with "
        "{}",
        folder.string(), kRecordFile);
  }
  qeval::create_directories(folder);
  // What is left of an earlier run must not pass for this one's while it is being written.
  std::filesystem::remove(folder / kRecordFile, code);
}

void write_checkpoint(const std::filesystem::path& folder, const QuantizedModel& model,
                      const Samples& samples, const nlohmann::ordered_json& record) {
  model::write_unified(model.model(), folder, model::DType::f32);
  model::copy_tokenizer(model.model(), folder);
  const model::ModelConfig& config = model.model().config;
  write_json(folder / "default_qcfg.json", qcfg_json(model.qcfg, config), 1);
  write_json(folder / "act_dict.json", act_ranges_json(model.ranges, config), 1);
  if (!samples.empty()) write_json(folder / kNgramFile, NgramSketch(samples).to_json(), -1);
  write_json(folder / kRecordFile, record, 2);
}

std::optional<NgramSketch> read_ngram_sketch(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / kNgramFile;
  std::error_code code;
  if (!std::filesystem::exists(file, code)) return std::nullopt;
  return NgramSketch::from_json(parse_strict_json(read_file(file), file.string()), file.string());
}

}  // namespace qeval::quant
