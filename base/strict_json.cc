#include "base/strict_json.h"

#include <limits>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"

namespace qeval {
namespace {

constexpr size_t kLongestPath = 4096;  // bytes of `where` in a message

/// nlohmann's message without its own prefix: "[json.exception.parse_error.101] parse error at …: syntax
/// error …".
std::string reason_of(const nlohmann::json::exception& error) {
  std::string_view text = error.what();
  if (const size_t bracket = text.find("] "); bracket != std::string_view::npos)
    text.remove_prefix(bracket + 2);
  if (const size_t syntax = text.find("syntax error"); syntax != std::string_view::npos)
    text.remove_prefix(syntax);
  return printable(text, 200);
}

/// Builds the value from the parser's events: the library's own builder lets the last of equal keys win.
template <typename Json>
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view where, size_t most_nested, size_t most_keys)
      : where_(where), most_nested_(most_nested), most_keys_(most_keys) {}

  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(typename Json::number_integer_t value) override { return put(value); }
  bool number_unsigned(typename Json::number_unsigned_t value) override { return put(value); }
  bool number_float(typename Json::number_float_t value, const typename Json::string_t& /*text*/) override {
    return put(value);
  }
  bool string(typename Json::string_t& value) override { return put(std::move(value)); }
  bool binary(typename Json::binary_t& value) override { return put(std::move(value)); }

  bool start_object(size_t /*elements*/) override { return open(Json::object()); }
  bool start_array(size_t /*elements*/) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(typename Json::string_t& name) override {
    auto& members = open_.back().value->template get_ref<typename Json::object_t&>();
    if (members.size() == most_keys_) fail_here("an object of more than {} keys", most_keys_);
    member_ = add(members, open_.back().keys, name);
    if (member_ == nullptr) fail_here("key \"{}\" occurs twice in one object", printable(name));
    return true;
  }

  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::json::exception& error) override {
    fail_here("not JSON: {}", reason_of(error));
    return false;
  }

 private:
  /// An object or array whose end was not read yet.
  struct Open {
    Json* value;
    std::unordered_set<std::string>
        keys;  ///< of a large ordered object, which is searched from its beginning
  };

  /// The place of a new member, or null where its key is there.
  static Json* add(typename Json::object_t& members, std::unordered_set<std::string>& keys,
                   const std::string& name) {
    constexpr bool ordered = std::is_same_v<Json, nlohmann::ordered_json>;
    constexpr size_t kSmall = 32;
    if (!ordered || members.size() < kSmall) {
      const auto [member, is_new] = members.emplace(name, nullptr);
      return is_new ? &member->second : nullptr;
    }
    if constexpr (ordered) {
      if (keys.empty()) {
        for (const auto& member : members) keys.insert(member.first);
      }
      if (!keys.insert(name).second) return nullptr;
      members.push_back({name, nullptr});
      return &members.back().second;
    }
    return nullptr;
  }

  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: {}", printable(where_, kLongestPath), fmt::format(format, std::forward<Args>(args)...));
  }

  /// The place for the next value: the only one, behind the last element, or under the last key. A container
  /// does not grow while one inside it is open, so the places of the open ones stay.
  Json& place() {
    if (open_.empty()) return root_;
    if (open_.back().value->is_object()) return *member_;
    auto& elements = open_.back().value->template get_ref<typename Json::array_t&>();
    return elements.emplace_back();
  }

  template <typename Value>
  bool put(Value&& value) {
    place() = std::forward<Value>(value);
    return true;
  }
  bool open(Json&& container) {
    if (open_.size() == most_nested_) fail_here("nested deeper than {} levels", most_nested_);
    Json& opened = place();
    opened = std::move(container);
    open_.push_back({&opened, {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view where_;
  size_t most_nested_, most_keys_;
  Json root_;
  std::vector<Open> open_;  // from the outermost to the innermost
  Json* member_ = nullptr;  // the value of the last key
};

template <typename Json>
Json parse(std::string_view text, std::string_view where, size_t most_nested, size_t most_keys) {
  Builder<Json> builder(where, most_nested, most_keys);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace

nlohmann::json parse_strict_json(std::string_view text, std::string_view where, size_t most_nested) {
  return parse<nlohmann::json>(text, where, most_nested, std::numeric_limits<size_t>::max());
}

nlohmann::ordered_json parse_ordered_json(std::string_view text, std::string_view where, size_t most_nested) {
  constexpr size_t kMostKeys = 100'000;
  return parse<nlohmann::ordered_json>(text, where, most_nested, kMostKeys);
}

}  // namespace qeval
