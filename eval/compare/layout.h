#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "eval/compare/compare_options.h"
#include "eval/results/comparison_file.h"
#include "eval/results/run_record.h"

namespace qeval::eval {

/// A quantized model that a comparison makes.
struct MadeModel {
  quant::Method method;
  std::string scheme;

  std::string name() const;    ///< "mobilequant w8a8"
  std::string folder() const;  ///< "mobilequant-w8a8"
};

/// What a comparison consists of and where each part of it lies: names, folders, commands. It computes
/// nothing; what is finished it reads off the output folder.
///
/// OUT has matrix.json (the settings, from the start), checkpoints/METHOD-SCHEME, results/fp,
/// results/LABEL of a ready-made checkpoint, results/METHOD-SCHEME-ARITHMETIC, divergence.json where a text
/// is compared, and compare.json and results.json once everything is finished.
class CompareLayout {
 public:
  /// `options` must outlive it; its given models have labels, unlike one another, and arithmetics. Throws
  /// UsageError for a scheme that integers cannot run where they are asked for.
  CompareLayout(const CompareOptions& options, const model::ModelConfig& base, std::string base_label = {});

  const std::vector<MadeModel>& made() const { return made_; }
  /// Of the ready-made checkpoints, in their order.
  const std::vector<ComparisonEntry>& given() const { return given_; }
  ComparisonEntry base() const;
  ComparisonEntry entry(const MadeModel& made, const std::string& arithmetic) const;
  /// The entries of a made model that are wanted in any case.
  std::vector<ComparisonEntry> entries(const MadeModel& made) const;

  std::filesystem::path results(const ComparisonEntry& entry) const;
  std::filesystem::path checkpoint(const MadeModel& made) const;
  /// The checkpoint that an entry evaluates.
  std::filesystem::path model(const ComparisonEntry& entry) const;
  quant::QuantizeRun quantize_run(const MadeModel& made) const;

  bool is_evaluated(const ComparisonEntry& entry) const;
  /// Throws Error where another model lies in its place.
  bool is_quantized(const MadeModel& made) const;
  /// The share of the model's learning that is still to be done, on a base of `layers` blocks.
  double learning_left(const MadeModel& made, const quant::LearnSettings& settings, int64_t layers) const;

  /// Throws Error where the output folder holds something else than a comparison of these settings
  /// (fingerprint()). Only looks, and makes nothing.
  void check_folder(const Fingerprint& settings) const;
  /// matrix.json, where it is missing.
  void record(const Fingerprint& settings) const;

 private:
  void add_given(const GivenModel& model);

  const CompareOptions& options_;
  std::string base_label_;
  std::vector<MadeModel> made_;
  std::vector<ComparisonEntry> given_;
};

/// The settings that decide a comparison's results, however they were typed. `weights`: the base's hash;
/// `evaluation`: what decides the base's scores.
/// `given`: what decides those of the given models, and "text" that of the text, where there are any.
Fingerprint compare_fingerprint(const CompareOptions& options, const std::string& weights,
                                const Fingerprint& evaluation, const Fingerprint& given = {});

}  // namespace qeval::eval
