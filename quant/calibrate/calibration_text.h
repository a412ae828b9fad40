#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/tokenizer/tokenizer.h"
#include "quant/calibrate/calibration.h"

namespace qeval::quant {

/// Windows of `sequence_length` tokens at places drawn with `seed` (the same on every machine) from a text
/// file: the whole of a .txt, or the "text" of each line of a .jsonl, where each draw takes one document that
/// is long enough. A window begins with the token that evaluated windows begin with (BOS; EOS where there is
/// none), whose activations are unlike all others; it has no other special tokens. Errors name the file (and
/// line): another extension, a line without text, a text with no room for a window. Line ends and byte order
/// mark are read as everywhere (with_unix_line_ends); a string of a .jsonl keeps the line ends that it
/// escapes. `warn` is told where more than `fold` times as many samples are drawn as the text has room for
/// side by side.
Samples sample_text(const std::filesystem::path& file, const model::Tokenizer& tokenizer, int64_t samples,
                    int64_t sequence_length, uint64_t seed,
                    const std::function<void(const std::string& warning)>& warn = {}, int64_t fold = 1);

/// Token ids from a file: a JSON array of ids per line, or arrays of arrays. Takes the first `samples` of
/// them, all by default, and of each the first `sequence_length` ids, all by default. Errors name file and
/// line: anything that is not an id of the model, an empty sample, fewer or shorter samples than asked for.
Samples read_ids(const std::filesystem::path& file, int64_t vocab_size, std::optional<int64_t> samples,
                 std::optional<int64_t> sequence_length);

/// SHA-256 of the samples' ids.
std::string samples_hash(const Samples& samples);

/// A sketch of the n-grams of the calibration text, small enough to be kept with the checkpoint: the hashes
/// below a threshold, at most kSketchSize of them. An evaluated text's n-grams below the same threshold are
/// looked up in it: the share found estimates the share of its n-grams that calibration has seen.
class NgramSketch {
 public:
  static constexpr int64_t kLength = 13;  ///< tokens per n-gram, as in the GPT-3 paper's contamination check
  static constexpr size_t kSketchSize = 4096;

  NgramSketch() = default;
  explicit NgramSketch(const Samples& samples);

  /// Counts over token sequences of an evaluated text.
  struct Overlap {
    int64_t looked_up = 0, found = 0;
    double share() const {
      return looked_up == 0 ? 0.0 : static_cast<double>(found) / static_cast<double>(looked_up);
    }
  };
  void look_up(std::span<const int32_t> ids, Overlap& overlap) const;

  nlohmann::ordered_json to_json() const;
  /// Throws Error beginning with `where`.
  static NgramSketch from_json(const nlohmann::json& json, const std::string& where);

 private:
  uint64_t threshold_ = 0;        ///< hashes up to this one are kept
  std::vector<uint64_t> hashes_;  ///< ascending
};

}  // namespace qeval::quant
