#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qeval::eval {

/// The language of a text as the Python library langdetect 1.0.9 tells it (Nakatani Shuyo's naive Bayes over
/// character n-grams), drawing as that library does with `DetectorFactory.seed = 0`. The harness leaves the
/// seed to chance, so that of texts in no clear language its own verdicts vary from run to run.
class LanguageDetector {
 public:
  /// `profiles/LANGUAGE` and `messages.properties`, as the library's package has them. Throws Error naming
  /// the file that is missing or malformed.
  explicit LanguageDetector(const std::filesystem::path& folder);

  /// "en", "zh-cn", … or "unknown"; nothing where the text has no feature to tell by. The text is well-formed
  /// UTF-8.
  std::optional<std::string> detect(std::string_view text) const;

 private:
  using Gram = uint64_t;  ///< up to three code points, 21 bits each

  void read_properties(const std::filesystem::path& path);
  void read_profile(const std::filesystem::path& path, size_t language);
  char32_t normalized(char32_t c) const;
  std::u32string prepared(std::string_view text) const;
  std::vector<uint32_t> grams_of(const std::u32string& text) const;

  std::vector<std::string> languages_;
  std::unordered_map<Gram, uint32_t> index_;  ///< of the n-grams known
  std::vector<double> probabilities_;         ///< [n-gram][language]
  std::u32string excluded_;                   ///< of Latin-1
  std::unordered_map<char32_t, char32_t> ideographs_;
  std::unordered_map<uint64_t, char32_t> vietnamese_;  ///< letter and mark, 21 bits each
};

}  // namespace qeval::eval
