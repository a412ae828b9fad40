#pragma once

#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "eval/engine/jinja/template.h"
#include "eval/engine/jinja/value.h"

namespace qeval::jinja {

/// Raises a TemplateError; the evaluator adds the line.
template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError(fmt::format(format, std::forward<Args>(args)...));
}

/// What a rendering may take. Templates come from strangers: these bound time, memory and the stack.
/// A step is an expression or statement evaluated, or 8 bytes written.
inline constexpr int64_t kMostSteps = int64_t{1} << 25;
inline constexpr size_t kMostOutput = size_t{16} << 20;
inline constexpr int kMostDepth = 800;    ///< nested evaluations
inline constexpr int kMostNesting = 100;  ///< containers in containers
inline constexpr size_t kMostSource = size_t{4} << 20;

/// The local variables of a call.
struct Activation {
  Activation* parent = nullptr;  ///< where the function was defined
  std::vector<Value> slots;
  bool captured = false;  ///< a macro refers to it: it stays until the rendering ends
};

/// Where names are looked up that no scope has.
struct Context {
  const std::map<std::string, Value, std::less<>>* given = nullptr;  ///< the template's arguments and globals
  std::map<std::string, Value, std::less<>> set;                     ///< set at the top level
  Value find(std::string_view name) const;                           ///< missing where there is none
};

class NamespaceObject;

/// One rendering: its budget, its names and what it must keep alive.
class Runtime {
 public:
  explicit Runtime(std::tm time) : now(time) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Counts work; raises when the budget is spent.
  void step(int64_t count = 1) {
    steps_ += count;
    if (steps_ > kMostSteps) out_of_steps();
  }
  /// Counts bytes that are about to be written.
  void bytes(size_t count) { step(1 + static_cast<int64_t>(count / 8)); }
  /// Before a size that was computed is allocated.
  void bytes_of(int64_t count, int64_t each) {
    if (count > 0 && each > 0 && count > kMostSteps * 8 / each) out_of_steps();
    if (count > 0 && each > 0) bytes(static_cast<size_t>(count) * static_cast<size_t>(each));
  }

  Value text(std::string bytes, bool markup = false);
  Value list(std::vector<Value> items, List::Type type = List::Type::list);
  Value tuple(std::vector<Value> items) { return list(std::move(items), List::Type::tuple); }
  Value dict(Dict dict);
  Value undefined(std::string message);
  template <typename T, typename... Args>
  std::shared_ptr<T> make(Args&&... args) {
    step(8);
    return std::make_shared<T>(std::forward<Args>(args)...);
  }
  /// The depth of something that holds `inner`; raises where it is too deep.
  static uint16_t deeper(uint16_t inner);

  void keep(std::shared_ptr<NamespaceObject> object) { namespaces_.push_back(std::move(object)); }
  void keep(std::unique_ptr<Activation> activation) { activations_.push_back(std::move(activation)); }

  std::tm now;
  Context* context = nullptr;
  int line = 0;                       ///< of what is evaluated
  int depth = 0;                      ///< of nested evaluations; see Nested
  std::vector<const void*> printing;  ///< containers whose repr is under way

 private:
  [[noreturn]] static void out_of_steps();
  int64_t steps_ = 0;
  std::vector<std::unique_ptr<Activation>> activations_;
  std::vector<std::shared_ptr<NamespaceObject>> namespaces_;
};

/// One level of nested evaluation, while it lives.
class Nested {
 public:
  explicit Nested(Runtime& runtime) : runtime_(runtime) {
    if (++runtime_.depth > kMostDepth) {
      --runtime_.depth;
      raise("maximum recursion depth exceeded: more than {} nested evaluations", kMostDepth);
    }
  }
  ~Nested() { --runtime_.depth; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  Runtime& runtime_;
};

/// A call's variables, while it runs; longer where a macro was defined in it.
class Frame {
 public:
  Frame(Runtime& runtime, Activation* parent, size_t slots)
      : runtime_(runtime), activation_(std::make_unique<Activation>()) {
    runtime.bytes(slots * sizeof(Value) + sizeof(Activation));
    activation_->parent = parent;
    activation_->slots.resize(slots);
  }
  ~Frame() {
    if (activation_->captured) runtime_.keep(std::move(activation_));
  }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  Activation* get() { return activation_.get(); }

 private:
  Runtime& runtime_;
  std::unique_ptr<Activation> activation_;
};

/// Text that grows; counts its bytes before it takes them.
class Builder {
 public:
  explicit Builder(Runtime& runtime, size_t most = SIZE_MAX) : runtime_(runtime), most_(most) {}
  void add(std::string_view text) {
    runtime_.bytes(text.size());
    if (text.size() > most_ - out_.size()) raise("more than {} bytes of output", most_);
    out_ += text;
  }
  void add(size_t count, std::string_view text) {
    runtime_.bytes_of(static_cast<int64_t>(count), static_cast<int64_t>(text.size()));
    for (size_t i = 0; i < count; ++i) out_ += text;
  }
  std::string take() { return std::move(out_); }
  const std::string& str() const { return out_; }

 private:
  Runtime& runtime_;
  size_t most_;
  std::string out_;
};

/// An iterator over a value; raises "'int' object is not iterable".
std::shared_ptr<Iterator> iterate(Runtime& runtime, const Value& value);
bool is_iterable(const Value& value);
/// list(x).
std::vector<Value> items_of(Runtime& runtime, const Value& value);
/// len(x); raises "object of type 'int' has no len()".
int64_t length_of(Runtime& runtime, const Value& value);
std::optional<int64_t> find_length(Runtime& runtime, const Value& value);

/// x.name and x[key] by jinja2's rules (attribute, then item, or the other way round); undefined where there
/// is neither, or where the sandbox denies it.
Value get_attribute(Runtime& runtime, const Value& value, std::string_view name);
Value get_item(Runtime& runtime, const Value& value, const Value& key);
/// x[from:to:step]; missing bounds are none.
Value get_slice(Runtime& runtime, const Value& value, const Value& from, const Value& to, const Value& step);
/// Python's getattr: nullopt where there is no such attribute. Whether the sandbox allows it is not asked.
std::optional<Value> find_attribute(Runtime& runtime, const Value& value, std::string_view name);
bool is_unsafe(const Value& value, std::string_view name);
/// x(...).
Value call_value(Runtime& runtime, const Value& callee, const Call& call);

}  // namespace qeval::jinja
