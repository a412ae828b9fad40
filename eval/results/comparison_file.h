#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/results/results.h"

namespace qeval::eval {

/// One run of a comparison: a row of its tables.
struct ComparisonEntry {
  std::string name;        ///< unique in the comparison: "fp", "mobilequant w8a8", "mobilequant w8a8 integer"
  std::string method;      ///< "fp" for the base and for what nobody quantized here, else the method's name
  std::string variant;     ///< of the smoothing, "modified" or "original"; empty where the method has none
  std::string scheme;      ///< "w8a8"; empty for the base
  std::string arithmetic;  ///< "float", "fake", "integer"
  std::string results;     ///< result folder, relative to compare.json's
  std::string checkpoint;  ///< folder of the quantized model, likewise; empty for the base
  std::vector<std::string> commands;  ///< what reproduces this entry alone, in order
  /// What tables call it: the format of its weights, or as the user said. Empty: made of the above.
  std::string label{};
  std::string model{};  ///< path of a ready-made checkpoint, as given; empty for one that was made
};

/// What the results of a run say of its model, as an entry has it: method, variant, scheme and arithmetic;
/// the other fields are empty. Throws Error opening with `where` for details that are malformed.
ComparisonEntry describe_entry(const ModelInfo& model, const std::string& where);

/// The runs of one comparison, in the order of its tables: OUT/compare.json.
struct ComparisonFile {
  std::string base;  ///< name of the entry that the others are compared with
  std::vector<ComparisonEntry> entries;

  const ComparisonEntry& base_entry() const;
};

inline constexpr const char* comparison_file = "compare.json";

/// DIRECTORY/compare.json, replaced atomically.
void write_comparison_file(const std::filesystem::path& directory, const ComparisonFile& comparison);

/// Throws Error naming file and field for what is malformed: no entries, a name used twice, a base that is no
/// entry, a folder that is absolute or leads out of DIRECTORY.
ComparisonFile read_comparison_file(const std::filesystem::path& directory);

}  // namespace qeval::eval
