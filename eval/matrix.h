#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/evaluation.h"
#include "eval/results/comparison.h"
#include "eval/results/comparison_file.h"
#include "quant/quantize_run.h"

namespace qeval::eval {

/// Which quantized models run in integer-only arithmetic as well.
enum class IntegerRuns : uint8_t {
  none,
  best,  ///< the one nearest to the base in its fake-quantized run (Matrix::best)
  all
};

/// A comparison of quantization methods: a base in float and every method in every scheme.
struct MatrixOptions {
  SessionOptions session;        ///< the base: model and max_length; its arithmetic is float
  EvaluationOptions evaluation;  ///< what is scored; its output, base, command and resume are the matrix's
  std::filesystem::path output;
  std::vector<quant::Method> methods;
  std::vector<std::string> schemes;  ///< as parse_scheme takes them
  bool fake = true;                  ///< run the simulation of each
  IntegerRuns integer = IntegerRuns::none;
  /// What all quantizations share: options except method and scheme, samples, calibration, threads, version.
  quant::QuantizeRun quantize;
  std::map<quant::Method, quant::LearnSettings> learning;  ///< of the learned methods among `methods`
  /// The options behind "qeval eval -m MODEL" and "qeval quantize -m MODEL", quoted for a shell: for the
  /// commands that reproduce one entry.
  std::string evaluation_arguments, quantize_arguments;
  std::map<quant::Method, std::string> learn_arguments;  ///< likewise, of the learned methods
};

/// One step of the work and what it is expected to take.
struct MatrixStep {
  std::string name;    ///< "quantize mobilequant w8a8", "evaluate mobilequant w8a8"
  int64_t tokens = 0;  ///< computed forwards, or learned on
  double seconds = 0;  ///< estimated
  double left = 0;     ///< of the seconds, those of what an interrupted run has not done
  bool finished = false;
};

/// What the work tells while it runs. All may throw, which ends the run; what is finished stays.
struct MatrixObserver {
  /// What is being done, tokens done and in all.
  std::function<void(const std::string& what, int64_t done, int64_t total)> progress;
  /// A step of the plan was finished just now, and took so long.
  std::function<void(const std::string& step, double seconds)> finished;
  /// What to know before the results are believed (Evaluation::warnings).
  std::function<void(const std::string& warning)> warning;
};

/// Layout of the output folder: matrix.json (settings, from the start), checkpoints/METHOD-SCHEME,
/// results/fp, results/METHOD-SCHEME-ARITHMETIC, compare.json and results.json once everything is finished.
/// Doing the same matrix again in the same folder continues it; one with other settings is refused, naming
/// what differs. Killed at any point and continued, it gives the same files apart from times.
class Matrix {
 public:
  /// Loads the base and checks that everything named exists.
  explicit Matrix(MatrixOptions options);
  ~Matrix();

  const std::map<quant::Method, quant::LearnSettings>& learning() const { return options_.learning; }

  /// Throws Error where the output folder holds something else than this matrix. Only looks, and makes
  /// nothing.
  void check_folder() const;

  /// Creates and locks the output folder, and checks it as check_folder() does. Before run().
  ///
  /// With peers (options.evaluation.peers) every rank makes the same matrix and calls this and run() together
  /// with the others; the first one writes, reads and decides.
  void open_folder();

  /// The steps in order, with the time they take on `ranks` machines like this one. Times follow from forward
  /// passes that are measured here and now.
  std::vector<MatrixStep> plan(int64_t ranks = 1);
  /// Bytes that the work leaves in the folder, about: checkpoints, and the base's log-probabilities.
  int64_t disk_bytes() const;

  /// Does what is not finished and returns the comparison, which is also written (nothing on other ranks).
  Comparison run(const MatrixObserver& observer);

 private:
  struct Item;  ///< a quantized model

  const Peers& peers() const { return options_.evaluation.peers; }
  /// What the first rank finds.
  bool first_finds(const std::function<bool()>& check) const;
  Fingerprint fingerprint() const;
  std::filesystem::path results_folder(const ComparisonEntry& entry) const;
  bool is_evaluated(const ComparisonEntry& entry) const;
  bool is_quantized(const Item& item) const;
  /// The share of the item's learning that is still to be done.
  double learning_left(const Item& item, const quant::LearnSettings& settings) const;
  ComparisonEntry base_entry() const;
  ComparisonEntry entry(const Item& item, const std::string& arithmetic) const;
  quant::QuantizeRun quantize_run(const Item& item) const;
  void evaluate(const ComparisonEntry& entry, const MatrixObserver& observer);
  void quantize(const Item& item, const MatrixObserver& observer);
  ComparedRun read(const ComparisonEntry& entry) const;
  /// The item whose simulation loses least: the smallest mean over tasks of the increase in log-perplexity
  /// and the decrease in accuracy.
  const Item& best(const std::vector<ComparisonEntry>& entries) const;

  MatrixOptions options_;
  std::unique_ptr<Session> base_session_;
  std::unique_ptr<const Evaluation> planned_;  ///< of the base, until the work starts
  std::vector<Item> items_;
  std::unique_ptr<DirectoryLock> lock_;
  quant::Observations observations_;
  int64_t evaluation_tokens_ = 0, scored_tokens_ = 0;
  Fingerprint evaluation_;  ///< what decides the base's scores
};

/// Seconds that parts of the session's forward pass take, fitted to a short pass and a longer one.
TokenCosts measure_costs(Session& session);

}  // namespace qeval::eval
