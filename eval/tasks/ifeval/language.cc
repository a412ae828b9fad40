#include "eval/tasks/ifeval/language.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

#include "base/characters.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/tasks/python_pattern.h"
#include "eval/tasks/python_random.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestText = 10000, kMostLetters = 3;

std::u32string code_points(std::string_view text) {
  std::u32string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    out += point.value;
    at += point.length;
  }
  return out;
}

/// Python's "unicode_escape" of a value in which only \uXXXX occurs.
std::u32string unescaped(std::string_view text, const std::string& where) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '\\') {
      out += static_cast<unsigned char>(text[i++]);
      continue;
    }
    const std::string_view digits = text.substr(std::min(text.size(), i + 2), 4);
    uint32_t value = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    const bool all_read = digits.size() == 4 && read.ec == std::errc() && read.ptr == digits.data() + 4;
    if (!text.substr(i).starts_with("\\u") || !all_read)
      fail("{}: \\u and four hexadecimal digits are expected", where);
    out += static_cast<char32_t>(value);
    i += 6;
  }
  return out;
}

bool in(char32_t c, char32_t first, char32_t last) {
  return c >= first && c <= last;
}

}  // namespace

LanguageDetector::LanguageDetector(const fs::path& folder) {
  read_properties(folder / "messages.properties");
  std::error_code code;
  std::vector<fs::path> files;
  fs::directory_iterator entries(folder / "profiles", code);
  for (; !code && entries != fs::directory_iterator(); entries.increment(code)) {
    if (!entries->path().filename().string().starts_with('.')) files.push_back(entries->path());
  }
  if (code) fail("{}: cannot list the folder: {}", (folder / "profiles").string(), code.message());
  if (files.size() < 2)
    fail("{}: profiles of two languages or more are expected", (folder / "profiles").string());
  std::ranges::sort(files);
  languages_.resize(files.size());
  for (size_t i = 0; i < files.size(); ++i) read_profile(files[i], i);
}

void LanguageDetector::read_properties(const fs::path& path) {
  std::map<std::string, std::u32string, std::less<>> values;
  const std::string text = read_file(path);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const size_t equals = line.find('=');
    if (equals != std::string_view::npos)
      values[std::string(line.substr(0, equals))] = unescaped(line.substr(equals + 1), path.string());
    begin = end + 1;
  }
  const auto value = [&](const std::string& key) -> const std::u32string& {
    const auto found = values.find(key);
    if (found == values.end()) fail("{}: has no {}", path.string(), key);
    return found->second;
  };
  excluded_ = value("NGram.LATIN1_EXCLUDE");
  for (const auto& [key, letters] : values) {
    if (!key.starts_with("NGram.KANJI_") || letters.empty()) continue;
    for (const char32_t letter : letters) ideographs_[letter] = letters.front();
  }
  const std::u32string &letters = value("TO_NORMALIZE_VI_CHARS"), &marks = value("DMARK_CLASS");
  for (const char32_t mark : marks) {
    const std::u32string& composed =
        value(fmt::format("NORMALIZED_VI_CHARS_{:04X}", static_cast<uint32_t>(mark)));
    if (composed.size() != letters.size())
      fail("{}: lists of Vietnamese letters of unequal length", path.string());
    for (size_t i = 0; i < letters.size(); ++i) vietnamese_[uint64_t{letters[i]} << 21U | mark] = composed[i];
  }
}

void LanguageDetector::read_profile(const fs::path& path, size_t language) {
  const nlohmann::ordered_json json = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject profile(json, path.string());
  languages_[language] = profile.string("name");
  const std::vector<int64_t> totals = profile.counts("n_words");
  if (totals.size() != kMostLetters) profile.refuse("n_words", "three counts");
  for (const auto& [gram, count] : profile.object("freq").value().items()) {
    const std::u32string letters = code_points(gram);
    if (letters.empty() || letters.size() > kMostLetters) continue;
    if (!count.is_number_unsigned()) profile.refuse("freq", "counts of n-grams");
    const Gram key = std::accumulate(letters.begin(), letters.end(), Gram{0},
                                     [](Gram sum, char32_t c) { return sum << 21U | c; });
    const auto [found, is_new] = index_.try_emplace(key, static_cast<uint32_t>(index_.size()));
    if (is_new) probabilities_.resize(index_.size() * languages_.size());
    probabilities_[found->second * languages_.size() + language] =
        count.get<double>() / static_cast<double>(totals[letters.size() - 1]);
  }
}

char32_t LanguageDetector::normalized(char32_t c) const {
  if (c < 0x80) return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ? c : U' ';
  if (in(c, 0x80, 0xFF)) return excluded_.find(c) != std::u32string::npos ? U' ' : c;
  if (c == 0x219) return 0x15F;  // Romanian, with comma below
  if (c == 0x21B) return 0x163;
  if (in(c, 0x2000, 0x206F)) return U' ';
  if (c == 0x6CC) return 0x64A;  // Farsi yeh
  if (in(c, 0x1EA0, 0x1EFF)) return 0x1EC3;
  if (in(c, 0x3040, 0x309F)) return 0x3042;
  if (in(c, 0x30A0, 0x30FF)) return 0x30A2;
  if (in(c, 0x3100, 0x312F) || in(c, 0x31A0, 0x31BF)) return 0x3105;
  if (in(c, 0xAC00, 0xD7AF)) return 0xAC00;
  if (!in(c, 0x4E00, 0x9FFF)) return c;
  const auto found = ideographs_.find(c);
  return found == ideographs_.end() ? c : found->second;
}

/// Without addresses and double spaces, Vietnamese marks composed, cut to a length; without Latin letters
/// where most are others.
std::u32string LanguageDetector::prepared(std::string_view text) const {
  static const PythonPattern address("https?://[-_.?&~;+=/#0-9A-Za-z]{1,2076}");
  static const PythonPattern mail("[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}");
  const std::u32string plain = code_points(mail.replace_all(address.replace_all(text, " "), " "));
  std::u32string composed;
  for (size_t i = 0; i < plain.size(); ++i) {
    const auto found =
        i + 1 < plain.size() ? vietnamese_.find(uint64_t{plain[i]} << 21U | plain[i + 1]) : vietnamese_.end();
    if (found == vietnamese_.end()) {
      composed += plain[i];
    } else {
      composed += found->second;
      ++i;
    }
  }
  std::u32string out;
  char32_t before = 0;
  for (size_t i = 0; i < std::min(composed.size(), kLongestText); ++i) {
    if (composed[i] != U' ' || before != U' ') out += composed[i];
    before = composed[i];
  }
  const auto is_latin = [](char32_t c) { return c >= U'A' && c <= U'z'; };
  const auto latin = std::ranges::count_if(out, is_latin);
  const auto others = std::ranges::count_if(out, [](char32_t c) { return c >= 0x300; });
  if (latin * 2 < others) std::erase_if(out, is_latin);
  return out;
}

/// The indices of the known n-grams, in the order in which they end; none inside a word in capitals.
std::vector<uint32_t> LanguageDetector::grams_of(const std::u32string& text) const {
  std::vector<uint32_t> out;
  std::u32string window(1, U' ');
  bool capitals = false;
  const auto add = [&](char32_t c) {
    const char32_t last = window.back();
    if (last == U' ') {
      window.resize(1);
      window[0] = U' ';
      capitals = false;
      if (c == U' ') return;
    } else if (window.size() >= kMostLetters) {
      window.erase(0, 1);
    }
    window += c;
    capitals = is_upper(c) && (capitals || is_upper(last));
  };
  for (const char32_t c : text) {
    add(normalized(c));
    if (capitals) continue;
    Gram gram = 0;
    for (size_t n = 1; n <= std::min(kMostLetters, window.size()); ++n) {
      gram |= Gram{window[window.size() - n]} << (21U * (n - 1));
      if (gram == U' ') continue;
      const auto found = index_.find(gram);
      if (found != index_.end()) out.push_back(found->second);
    }
  }
  return out;
}

std::optional<std::string> LanguageDetector::detect(std::string_view text) const {
  constexpr double kAlpha = 0.5, kAlphaWidth = 0.05, kConverged = 0.99999, kLeast = 0.1,
                   kBaseFrequency = 10000;
  constexpr int kTrials = 7, kMostSteps = 1000, kStepsBetween = 5;
  const std::vector<uint32_t> grams = grams_of(prepared(text));
  if (grams.empty()) return {};
  const size_t count = languages_.size();
  std::vector<double> mean(count);
  PythonRandom random(0);
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> likely(count, 1.0 / static_cast<double>(count));
    const double weight = (kAlpha + random.gauss() * kAlphaWidth) / kBaseFrequency;
    for (int step = 0;; ++step) {
      const double* of_gram = &probabilities_[size_t{grams[random.below(grams.size())]} * count];
      for (size_t i = 0; i < count; ++i) likely[i] *= weight + of_gram[i];
      if (step % kStepsBetween != 0) continue;
      const double sum = std::accumulate(likely.begin(), likely.end(), 0.0);
      double largest = 0;
      for (double& value : likely) {
        value /= sum;
        largest = std::max(largest, value);
      }
      if (largest > kConverged || step >= kMostSteps) break;
    }
    for (size_t i = 0; i < count; ++i) mean[i] += likely[i] / kTrials;
  }
  const auto best = std::ranges::max_element(mean);
  if (*best <= kLeast) return "unknown";
  return languages_[static_cast<size_t>(best - mean.begin())];
}

}  // namespace qeval::eval
