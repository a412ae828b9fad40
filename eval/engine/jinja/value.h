#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

/// What a template computes with: Python's values, since templates are written for jinja2 and see its types.
/// Values are immutable and shared; only namespaces, loops and iterators change, and those are Objects.
namespace qeval::jinja {

class Runtime;
class Value;
class Object;
class Dict;
struct List;

/// A str; `markup` is one that counts as escaped HTML (markupsafe's Markup). Well-formed UTF-8.
struct Text {
  std::string bytes;
  bool markup = false;
};

/// An undefined value: it prints as nothing, is false and empty, and any other use raises its message.
struct Undefined {
  std::string message;
};

enum class Kind : uint8_t {
  missing,  ///< no value at all: a name that was not set; never leaves the evaluator's slots
  none,
  boolean,
  integer,
  real,
  undefined,
  string,
  list,
  tuple,
  dict,
  object
};

class Value {
 public:
  Value() = default;  ///< missing
  static Value none() { return Value(None{}); }
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::shared_ptr<const Undefined> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const Text> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const List> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}
  template <std::derived_from<Object> T>
  Value(std::shared_ptr<T> value) : data_(std::shared_ptr<Object>(std::move(value))) {}
  Value(const void*) = delete;  // would be a bool

  Kind kind() const;
  bool is_missing() const { return data_.index() == 0; }
  bool is_none() const { return data_.index() == 1; }
  bool is_undefined() const { return std::holds_alternative<std::shared_ptr<const Undefined>>(data_); }
  bool is_string() const { return std::holds_alternative<std::shared_ptr<const Text>>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_real() const { return std::holds_alternative<double>(data_); }
  bool is_boolean() const { return std::holds_alternative<bool>(data_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<const Dict>>(data_); }
  bool is_sequence() const { return std::holds_alternative<std::shared_ptr<const List>>(data_); }
  bool is_markup() const { return is_string() && text().markup; }

  // Each only of a value of that kind.
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return std::get<int64_t>(data_); }
  double real() const { return std::get<double>(data_); }
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  std::string_view string() const { return text().bytes; }
  const Undefined& undefined() const { return *std::get<std::shared_ptr<const Undefined>>(data_); }
  const List& list() const { return *std::get<std::shared_ptr<const List>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Object& object() const { return *std::get<std::shared_ptr<Object>>(data_); }

  /// The object as a `T`, or nullptr where it is none.
  template <typename T>
  T* as() const {
    const auto* pointer = std::get_if<std::shared_ptr<Object>>(&data_);
    return pointer == nullptr ? nullptr : dynamic_cast<T*>(pointer->get());
  }

  /// Whether both are the same object (Python's `is`); small values are those that are equal and of a kind.
  bool same(const Value& other) const;

 private:
  struct None {
    bool operator==(const None&) const = default;
  };
  explicit Value(None none) : data_(none) {}
  std::variant<std::monostate, None, bool, int64_t, double, std::shared_ptr<const Undefined>,
               std::shared_ptr<const Text>, std::shared_ptr<const List>, std::shared_ptr<const Dict>,
               std::shared_ptr<Object>>
      data_;
};

/// A list or a tuple.
struct List {
  enum class Type : uint8_t { list, tuple, group };  ///< group: a tuple of groupby's, with .grouper and .list
  std::vector<Value> items;
  Type type = Type::list;
  uint16_t depth = 0;  ///< how deep containers nest in it
};

/// A dict in the order of insertion. A key is what Python calls hashable: 1, 1.0 and True are one key.
class Dict {
 public:
  using Item = std::pair<Value, Value>;
  const std::vector<Item>& items() const { return items_; }
  /// The value of a key, or nullptr. `runtime` is charged for the search.
  const Value* find(Runtime& runtime, const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Sets or replaces; the key keeps its place. Raises where the key is not hashable.
  void set(Runtime& runtime, const Value& key, Value value);
  uint16_t depth() const { return depth_; }

 private:
  std::vector<Item> items_;
  std::unordered_map<std::string_view, size_t>
      strings_;  ///< where a string key stands; views of items_' keys
  uint16_t depth_ = 0;
};

/// Arguments of a call.
struct Call {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Iterator;

/// Whatever is neither a number nor text nor a plain container. The defaults are those of a Python object
/// that has nothing: no attributes, no items, no length, not callable, true.
class Object : public std::enable_shared_from_this<Object> {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  /// type(x).__name__, and how jinja2 calls it where something is missing in it.
  virtual std::string_view type_name() const = 0;
  virtual std::string described() const { return std::string(type_name()) + " object"; }
  virtual std::string repr(Runtime& runtime) const;
  virtual bool truth(Runtime&) const { return true; }
  virtual std::optional<int64_t> length(Runtime&) { return std::nullopt; }
  virtual std::optional<Value> attribute(Runtime&, std::string_view) { return std::nullopt; }
  virtual bool has_items() const { return false; }
  virtual std::optional<Value> item(Runtime&, const Value&) { return std::nullopt; }
  virtual std::shared_ptr<Iterator> iterate(Runtime&) { return nullptr; }
  virtual std::optional<bool> contains(Runtime&, const Value&) { return std::nullopt; }
  virtual bool equals(Runtime&, const Object& other) const { return this == &other; }
  virtual bool hashable() const { return true; }
  virtual bool callable() const { return false; }
  virtual Value call(Runtime& runtime, const Call& call);

  uint16_t depth = 0;  ///< as List::depth
};

/// Something that yields values once. Objects of it are what Python calls generators and iterators.
class Iterator : public Object {
 public:
  /// The next value; false at the end.
  virtual bool next(Runtime& runtime, Value& out) = 0;
  std::string_view type_name() const override { return "generator"; }
  std::shared_ptr<Iterator> iterate(Runtime&) override {
    return std::static_pointer_cast<Iterator>(shared_from_this());
  }
};

/// type(x).__name__ ("NoneType", "str", …).
std::string_view type_name(const Value& value);
/// How messages about something missing call the owner: "dict object", "None".
std::string describe_owner(const Value& value);

uint16_t depth_of(const Value& value);
bool truth(Runtime& runtime, const Value& value);
bool equal(Runtime& runtime, const Value& a, const Value& b);
enum class Order : uint8_t { less, less_equal, greater, greater_equal };
/// a < b and its kin, as Python: raises where the two have no order.
bool ordered(Runtime& runtime, Order order, const Value& a, const Value& b);
/// Raises "unhashable type: 'list'".
void require_hashable(const Value& value);

/// bool, int or float as a number: nullopt for everything else.
std::optional<double> number_of(const Value& value);
/// bool or int.
std::optional<int64_t> integer_of(const Value& value);

/// Python's str(x) and repr(x).
std::string to_string(Runtime& runtime, const Value& value);
std::string to_repr(Runtime& runtime, const Value& value);
std::string repr_of_string(std::string_view text, bool ascii = false);
/// repr(float): the shortest text that reads back as the same number.
std::string repr_of_real(double value);

}  // namespace qeval::jinja
