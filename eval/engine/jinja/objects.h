#pragma once

#include <functional>

#include "eval/engine/jinja/runtime.h"
#include "eval/engine/jinja/syntax.h"

namespace qeval::jinja {

/// range(start, stop, step).
class Range : public Object {
 public:
  Range(int64_t from, int64_t to, int64_t by) : start(from), stop(to), step(by) {}
  std::string_view type_name() const override { return "range"; }
  std::string repr(Runtime&) const override;
  bool truth(Runtime&) const override { return count() > 0; }
  std::optional<int64_t> length(Runtime&) override { return count(); }
  bool has_items() const override { return true; }
  std::optional<Value> item(Runtime& runtime, const Value& key) override;
  std::optional<Value> attribute(Runtime&, std::string_view name) override;
  std::shared_ptr<Iterator> iterate(Runtime& runtime) override;
  std::optional<bool> contains(Runtime&, const Value& value) override;
  bool equals(Runtime&, const Object& other) const override;
  int64_t count() const;
  int64_t at(int64_t index) const { return start + index * step; }

  int64_t start, stop, step;
};

/// What a dict's keys(), values() or items() is.
class DictView : public Object {
 public:
  enum class What : uint8_t { keys, values, items };
  DictView(Value of, What which) : dict(std::move(of)), what(which) {
    depth = Runtime::deeper(depth_of(dict));
  }
  std::string_view type_name() const override;
  std::string repr(Runtime& runtime) const override;
  bool truth(Runtime&) const override { return !dict.dict().items().empty(); }
  std::optional<int64_t> length(Runtime&) override { return std::ssize(dict.dict().items()); }
  std::shared_ptr<Iterator> iterate(Runtime& runtime) override;
  bool hashable() const override { return what == What::values; }
  Value at(Runtime& runtime, size_t index) const;

  const Value dict;
  const What what;
};

/// A generator: yields what a function gives until it gives nothing.
class Generator : public Iterator {
 public:
  using Next = std::function<std::optional<Value>(Runtime&)>;
  Generator(Next next, uint16_t holds, std::string_view name = "generator")
      : next_(std::move(next)), name_(name) {
    depth = Runtime::deeper(holds);
  }
  bool next(Runtime& runtime, Value& out) override;
  std::string_view type_name() const override { return name_; }

 private:
  Next next_;
  std::string_view name_;
  bool ended_ = false;
};

class NamespaceObject : public Object {
 public:
  std::string_view type_name() const override { return "TemplateNamespace"; }
  std::string described() const override {
    return "transformers.utils.chat_template_utils.TemplateNamespace object";
  }
  std::string repr(Runtime& runtime) const override;
  std::optional<Value> attribute(Runtime&, std::string_view name) override;
  static void check_name(std::string_view name);

  Dict attributes;
};

/// `loop`: what a loop says of itself, and the iterator that it runs on.
class LoopObject : public Object {
 public:
  using Recurse = std::function<Value(Runtime&, const Value& over, int64_t depth)>;
  LoopObject(Runtime& runtime, const Value& over, std::shared_ptr<Iterator> iterator, Recurse recurse,
             int64_t depth0);
  bool next(Runtime& runtime, Value& out);

  std::string_view type_name() const override { return "LoopContext"; }
  std::string described() const override { return "jinja2.runtime.LoopContext object"; }
  std::string repr(Runtime& runtime) const override;
  std::optional<int64_t> length(Runtime& runtime) override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::shared_ptr<Iterator> iterate(Runtime& runtime) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Call& call) override;
  Value cycle(const Call& call) const;
  Value changed(Runtime& runtime, const Call& call);

 private:
  bool peek(Runtime& runtime);

  Value over_;  ///< what is gone through, where it has a length; else missing
  std::shared_ptr<Iterator> iterator_;
  Recurse recurse_;
  int64_t depth0_;
  int64_t index0_ = -1;
  std::optional<int64_t> length_;
  Value after_, current_, before_;  ///< missing where there is none
  std::optional<Value> last_changed_;
};

/// A macro, or the `caller` of a call block.
class Macro : public Object {
 public:
  using Run = std::function<Value(Runtime&, const Function&, Activation*, std::vector<Value> parameters,
                                  Value caller, Value named, Value rest)>;
  Macro(const Function& of, Activation* defined_in, Run run)
      : function_(of), defined_in_(defined_in), run_(std::move(run)) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string described() const override { return "jinja2.runtime.Macro object"; }
  std::string repr(Runtime&) const override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Call& call) override;

 private:
  const Function& function_;
  Activation* defined_in_;
  Run run_;
};

/// A function that the template is given, or a method bound to its object.
class Builtin : public Object {
 public:
  using Body = std::function<Value(Runtime&, const Call&)>;
  Builtin(std::string name, Body body, uint16_t holds = 0, std::string_view type = "function")
      : name_(std::move(name)), body_(std::move(body)), type_(type) {
    depth = Runtime::deeper(holds);
  }
  std::string_view type_name() const override { return type_; }
  std::string repr(Runtime&) const override { return fmt::format("<{} {}>", type_, name_); }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Call& call) override { return body_(runtime, call); }

 private:
  std::string name_;
  Body body_;
  std::string_view type_;
};

class Cycler : public Object {
 public:
  explicit Cycler(std::vector<Value> items);
  std::string_view type_name() const override { return "Cycler"; }
  std::string described() const override { return "jinja2.utils.Cycler object"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;

 private:
  std::vector<Value> items_;
  size_t at_ = 0;
};

class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {
    depth = Runtime::deeper(depth_of(separator_));
  }
  std::string_view type_name() const override { return "Joiner"; }
  std::string described() const override { return "jinja2.utils.Joiner object"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Call& call) override;

 private:
  Value separator_;
  bool used_ = false;
};

/// The arguments of a call by the parameters of a Python function, described as
/// "name *context value separator? limit=": `*` marks what jinja2 passes itself, `?` what may be missing.
/// Raises Python's TypeErrors. Missing parameters are missing values.
std::vector<Value> bind_arguments(std::string_view signature, const Call& call);
/// The same for a filter or test, whose value comes first.
std::vector<Value> bind_arguments(std::string_view signature, const Value& first, const Call& call);

/// An index, count or width; raises "'str' object cannot be interpreted as an integer".
int64_t require_integer(const Value& value);

/// The names that every template knows: range, dict, namespace, cycler, joiner, raise_exception,
/// strftime_now.
std::map<std::string, Value, std::less<>> globals(Runtime& runtime);

}  // namespace qeval::jinja
