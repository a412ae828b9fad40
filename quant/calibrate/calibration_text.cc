#include "quant/calibrate/calibration_text.h"

#include <algorithm>
#include <map>
#include <random>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/setting.h"
#include "base/strict_json.h"
#include "base/unicode.h"

namespace qeval::quant {
namespace {

using nlohmann::json;

/// Calls body(number, line) for every line that is not blank.
template <typename Body>
void for_each_line(std::string_view text, const Body& body) {
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) body(number, line);
  }
}

/// The documents of a text file, decoded when they are drawn.
class Documents {
 public:
  Documents(const std::filesystem::path& path, const model::Tokenizer& tokenizer)
      : file_(path), tokenizer_(tokenizer) {
    const std::string_view text = without_byte_order_mark(file_.text());
    if (path.extension() == ".txt") {
      documents_.push_back({0, text});
    } else if (path.extension() == ".jsonl") {
      for_each_line(text, [&](int64_t number, std::string_view line) {
        documents_.push_back({number, line});
      });
    } else {
      fail("{}: accepted as calibration text: a .txt file, or a .jsonl file with \"text\" on each line",
           path.string());
    }
    if (documents_.empty()) fail("{}: no text in it", path.string());
  }

  size_t count() const { return documents_.size(); }

  const std::vector<int32_t>& ids(size_t index) {
    const auto known = ids_.find(index);
    return known != ids_.end() ? known->second : ids_[index] = encode(index);
  }

  /// How many windows of `length` tokens have room side by side; no more than `most` are counted.
  int64_t room(int64_t length, int64_t most) {
    int64_t windows = 0;
    for (size_t i = 0; i < documents_.size() && windows < most; ++i) {
      const auto known = ids_.find(i);
      windows += (known != ids_.end() ? std::ssize(known->second) : std::ssize(encode(i))) / length;
    }
    return std::min(windows, most);
  }

 private:
  std::vector<int32_t> encode(size_t index) {
    const auto& [line, content] = documents_[index];
    const std::string where =
        line == 0 ? file_.path().string() : fmt::format("{}:{}", file_.path().string(), line);
    try {
      // A string of JSON keeps what it escapes, as in task data.
      return tokenizer_.encode(line == 0 ? with_unix_line_ends(content) : text_of(content));
    } catch (const Error& error) {
      fail("{}: {}", where, error.what());
    }
  }

  static std::string text_of(std::string_view line) {
    const json document = parse_strict_json(line, "the line");
    if (!document.is_object() || !document.contains("text") || !document["text"].is_string()) {
      fail("accepted: a JSON object with a string \"text\"");
    }
    return document["text"].get<std::string>();
  }

  MappedFile file_;
  const model::Tokenizer& tokenizer_;
  std::vector<std::pair<int64_t, std::string_view>> documents_;  ///< line number and content
  std::map<size_t, std::vector<int32_t>> ids_;
};

/// A draw from 0 … count − 1 (the library's distributions differ between machines).
size_t draw(std::mt19937_64& random, size_t count) {
  return static_cast<size_t>(random() % count);
}

std::vector<int32_t> read_sample(const json& value, int64_t vocab_size,
                                 std::optional<int64_t> sequence_length, const std::string& where) {
  std::vector<int32_t> ids;
  for (const json& id : value) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size) {
      fail("{}: {} is no token id of this model; accepted: 0 to {}", where,
           printable(id.dump(-1, ' ', false, json::error_handler_t::replace)), vocab_size - 1);
    }
    ids.push_back(id.get<int32_t>());
  }
  if (ids.empty()) fail("{}: an empty sample", where);
  if (sequence_length) {
    if (std::ssize(ids) < *sequence_length) {
      fail("{}: a sample of {} ids; accepted with {} {}: at least as many", where, ids.size(),
           setting("sequence-length"), *sequence_length);
    }
    ids.resize(static_cast<size_t>(*sequence_length));
  }
  return ids;
}

/// FNV-1a over the ids, then a mixing step so that all bits of the hash are even.
uint64_t hash_ngram(std::span<const int32_t> ids) {
  uint64_t hash = 14695981039346656037ULL;
  for (const int32_t id : ids) hash = (hash ^ static_cast<uint32_t>(id)) * 1099511628211ULL;
  hash ^= hash >> 32;
  hash *= 0xd6e8feb86659fd93ULL;
  return hash ^ (hash >> 32);
}

}  // namespace

Samples sample_text(const std::filesystem::path& file, const model::Tokenizer& tokenizer, int64_t samples,
                    int64_t sequence_length, uint64_t seed,
                    const std::function<void(const std::string&)>& warn, int64_t fold) {
  Documents documents(file, tokenizer);
  const std::optional<int32_t> prefix = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
  const int64_t text_length = prefix && sequence_length > 1 ? sequence_length - 1 : sequence_length;
  std::mt19937_64 random(seed);
  Samples result;
  int64_t too_short = 0;
  while (std::ssize(result) < samples) {
    const std::vector<int32_t>& ids = documents.ids(draw(random, documents.count()));
    if (std::ssize(ids) < text_length) {
      constexpr int64_t kPatience = 1000;
      if (++too_short > kPatience * samples || documents.count() == 1) {
        fail("{}: no text of {} tokens found; accepted: longer texts or a smaller {}", file.string(),
             text_length, setting("sequence-length"));
      }
      continue;
    }
    const size_t places = ids.size() - static_cast<size_t>(text_length) + 1;
    const auto first = ids.begin() + static_cast<std::ptrdiff_t>(draw(random, places));
    std::vector<int32_t>& sample = result.emplace_back();
    if (text_length < sequence_length) sample.push_back(*prefix);
    sample.insert(sample.end(), first, first + text_length);
  }
  if (const int64_t room = warn ? documents.room(text_length, samples) : samples; fold * room < samples) {
    warn(
        fmt::format("{}: {} samples of {} tokens are drawn from a text that has room for {} side by side, so "
                    "that they overlap; take a longer text or fewer {}",
                    file.string(), samples, sequence_length, room, setting("samples")));
  }
  return result;
}

Samples read_ids(const std::filesystem::path& file, int64_t vocab_size, std::optional<int64_t> samples,
                 std::optional<int64_t> sequence_length) {
  const MappedFile mapped(file);
  Samples result;
  const auto wanted = [&] { return !samples || std::ssize(result) < *samples; };
  for_each_line(without_byte_order_mark(mapped.text()), [&](int64_t number, std::string_view line) {
    if (!wanted()) return;
    const std::string where = fmt::format("{}:{}", file.string(), number);
    const json value = parse_strict_json(line, where);
    if (!value.is_array()) fail("{}: accepted: a JSON array of token ids per line", where);
    const bool nested = !value.empty() && value.front().is_array();
    if (!nested) {
      result.push_back(read_sample(value, vocab_size, sequence_length, where));
      return;
    }
    for (const json& sample : value) {
      if (!wanted()) return;
      if (!sample.is_array()) fail("{}: accepted: arrays of token ids", where);
      result.push_back(read_sample(sample, vocab_size, sequence_length, where));
    }
  });
  if (result.empty()) fail("{}: no samples in it", file.string());
  if (samples && std::ssize(result) < *samples) {
    fail("{}: {} samples; accepted with {} {}: at least as many", file.string(), result.size(),
         setting("samples"), *samples);
  }
  return result;
}

std::string samples_hash(const Samples& samples) {
  Sha256 sha;
  for (const auto& sample : samples) {
    sha.update(fmt::format("{}\n", sample.size()));
    sha.update(std::as_bytes(std::span(sample)));
  }
  return sha.hex();
}

NgramSketch::NgramSketch(const Samples& samples) {
  for (const auto& sample : samples) {
    for (size_t i = 0; i + kLength <= sample.size(); ++i) {
      hashes_.push_back(hash_ngram(std::span(sample).subspan(i, kLength)));
    }
  }
  std::sort(hashes_.begin(), hashes_.end());
  hashes_.erase(std::unique(hashes_.begin(), hashes_.end()), hashes_.end());
  threshold_ = UINT64_MAX;
  if (hashes_.size() > kSketchSize) {
    hashes_.resize(kSketchSize);
    threshold_ = hashes_.back();
  }
}

void NgramSketch::look_up(std::span<const int32_t> ids, Overlap& overlap) const {
  for (size_t i = 0; i + kLength <= ids.size(); ++i) {
    const uint64_t hash = hash_ngram(ids.subspan(i, kLength));
    if (hash > threshold_) continue;
    ++overlap.looked_up;
    overlap.found += std::binary_search(hashes_.begin(), hashes_.end(), hash) ? 1 : 0;
  }
}

nlohmann::ordered_json NgramSketch::to_json() const {
  return {{"length", kLength}, {"threshold", threshold_}, {"hashes", hashes_}};
}

NgramSketch NgramSketch::from_json(const json& json, const std::string& where) {
  const auto refuse = [&] {
    fail("{}: the n-gram sketch is malformed; accepted: length {}, threshold, ascending hashes", where,
         kLength);
  };
  NgramSketch sketch;
  if (!json.is_object() || json.value("length", nlohmann::json()) != kLength || !json.contains("threshold") ||
      !json["threshold"].is_number_unsigned() || !json.contains("hashes") || !json["hashes"].is_array() ||
      json["hashes"].size() > kSketchSize) {
    refuse();
  }
  sketch.threshold_ = json["threshold"].get<uint64_t>();
  for (const auto& hash : json["hashes"]) {
    if (!hash.is_number_unsigned()) refuse();
    sketch.hashes_.push_back(hash.get<uint64_t>());
  }
  if (!std::is_sorted(sketch.hashes_.begin(), sketch.hashes_.end())) refuse();
  return sketch;
}

}  // namespace qeval::quant
