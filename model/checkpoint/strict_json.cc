#include "model/checkpoint/strict_json.h"

#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace qeval::model {

nlohmann::json parse_strict_json(std::string_view text, const std::string& where) {
  constexpr int kMaxDepth = 32;
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::unordered_set<std::string>> keys;
  const auto check = [&](int depth, Event event, nlohmann::json& parsed) {
    if (depth > kMaxDepth) fail("{}: nested deeper than {} levels", where, kMaxDepth);
    if (event == Event::object_start) {
      keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) fail("{}: key \"{}\" occurs twice", where, printable(key));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not valid JSON: {}", where, printable(error.what(), 200));
  }
}

}  // namespace qeval::model
