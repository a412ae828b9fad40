#include "eval/engine/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

constexpr size_t kIndexedFrom = 8;  ///< keys from which a dict keeps an index

/// -1, 0, 1, or 2 where one is NaN. long double holds every int64 and every double.
int compare_numbers(const Value& a, const Value& b) {
  const auto number = [](const Value& value) -> long double {
    return value.is_real() ? static_cast<long double>(value.real())
                           : static_cast<long double>(*integer_of(value));
  };
  const long double x = number(a), y = number(b);
  if (std::isnan(x) || std::isnan(y)) return 2;
  return x < y ? -1 : x > y ? 1 : 0;
}

bool is_number(const Value& value) {
  return value.is_boolean() || value.is_integer() || value.is_real();
}

bool equal_lists(Runtime& runtime, const List& a, const List& b) {
  if ((a.type == List::Type::list) != (b.type == List::Type::list) || a.items.size() != b.items.size()) {
    return false;
  }
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(runtime, a.items[i], b.items[i])) return false;
  }
  return true;
}

bool equal_dicts(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.items().size() != b.items().size()) return false;
  for (const auto& [key, value] : a.items()) {
    const Value* other = b.find(runtime, key);
    if (other == nullptr || !equal(runtime, value, *other)) return false;
  }
  return true;
}

bool holds(Order order, int comparison) {
  switch (order) {
    case Order::less:
      return comparison == -1;
    case Order::less_equal:
      return comparison == -1 || comparison == 0;
    case Order::greater:
      return comparison == 1;
    case Order::greater_equal:
      return comparison == 1 || comparison == 0;
  }
  return false;
}

std::string_view order_sign(Order order) {
  constexpr std::string_view kSigns[] = {"<", "<=", ">", ">="};
  return kSigns[static_cast<size_t>(order)];
}

}  // namespace

Kind Value::kind() const {
  switch (data_.index()) {
    case 0:
      return Kind::missing;
    case 1:
      return Kind::none;
    case 2:
      return Kind::boolean;
    case 3:
      return Kind::integer;
    case 4:
      return Kind::real;
    case 5:
      return Kind::undefined;
    case 6:
      return Kind::string;
    case 7:
      return list().type == List::Type::list ? Kind::list : Kind::tuple;
    case 8:
      return Kind::dict;
    default:
      return Kind::object;
  }
}

bool Value::same(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_string()) return string() == other.string() && is_markup() == other.is_markup();
  return data_ == other.data_;
}

const Value* Dict::find(std::string_view key) const {
  if (!strings_.empty()) {
    const auto found = strings_.find(key);
    return found == strings_.end() ? nullptr : &items_[found->second].second;
  }
  for (const auto& [name, value] : items_) {
    if (name.is_string() && name.string() == key) return &value;
  }
  return nullptr;
}

const Value* Dict::find(Runtime& runtime, const Value& key) const {
  if (key.is_string()) return find(key.string());
  require_hashable(key);
  runtime.step(static_cast<int64_t>(items_.size()) / 4);
  for (const auto& [name, value] : items_) {
    if (!name.is_string() && equal(runtime, name, key)) return &value;
  }
  return nullptr;
}

void Dict::set(Runtime& runtime, const Value& key, Value value) {
  require_hashable(key);
  depth_ = std::max({depth_, Runtime::deeper(depth_of(value)), Runtime::deeper(depth_of(key))});
  if (const Value* old = find(runtime, key)) {
    const_cast<Value&>(*old) = std::move(value);  // an item of ours
    return;
  }
  runtime.step(8);
  items_.emplace_back(key, std::move(value));
  if (items_.size() == kIndexedFrom) {
    for (size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].first.is_string()) strings_.emplace(items_[i].first.string(), i);
    }
  } else if (items_.size() > kIndexedFrom && key.is_string()) {
    strings_.emplace(items_.back().first.string(), items_.size() - 1);
  }
}

std::string Object::repr(Runtime&) const {
  return fmt::format("<{} object>", type_name());
}

Value Object::call(Runtime&, const Call&) {
  raise("'{}' object is not callable", type_name());
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::missing:
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::undefined:
      return "Undefined";
    case Kind::string:
      return value.is_markup() ? "Markup" : "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return value.list().type == List::Type::group ? "_GroupTuple" : "tuple";
    case Kind::dict:
      return "dict";
    case Kind::object:
      return value.object().type_name();
  }
  return "";
}

std::string describe_owner(const Value& value) {
  if (value.is_none()) return "None";
  if (value.kind() == Kind::object) return value.object().described();
  if (value.is_markup()) return "markupsafe.Markup object";
  if (value.is_undefined()) return "jinja2.runtime.Undefined object";
  return std::string(type_name(value)) + " object";
}

uint16_t depth_of(const Value& value) {
  if (value.is_sequence()) return value.list().depth;
  if (value.is_dict()) return value.dict().depth();
  if (value.kind() == Kind::object) return value.object().depth;
  return 0;
}

bool truth(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::missing:
    case Kind::none:
    case Kind::undefined:
      return false;
    case Kind::boolean:
      return value.boolean();
    case Kind::integer:
      return value.integer() != 0;
    case Kind::real:
      return value.real() != 0;
    case Kind::string:
      return !value.string().empty();
    case Kind::list:
    case Kind::tuple:
      return !value.list().items.empty();
    case Kind::dict:
      return !value.dict().items().empty();
    case Kind::object:
      return value.object().truth(runtime);
  }
  return false;
}

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (is_number(a) && is_number(b)) return compare_numbers(a, b) == 0;
  if (a.is_string() && b.is_string()) {
    runtime.bytes(std::min(a.string().size(), b.string().size()) / 8);
    return a.string() == b.string();
  }
  if (a.is_undefined() || a.is_none()) return a.kind() == b.kind();
  if (a.is_sequence() && b.is_sequence()) return equal_lists(runtime, a.list(), b.list());
  if (a.is_dict() && b.is_dict()) return equal_dicts(runtime, a.dict(), b.dict());
  if (a.kind() == Kind::object && b.kind() == Kind::object) return a.object().equals(runtime, b.object());
  return false;
}

bool ordered(Runtime& runtime, Order order, const Value& a, const Value& b) {
  runtime.step();
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) throw TemplateError(value->undefined().message);
  }
  if (is_number(a) && is_number(b)) return holds(order, compare_numbers(a, b));
  if (a.is_string() && b.is_string()) {  // UTF-8 orders as code points do
    const int comparison = a.string().compare(b.string());
    return holds(order, comparison < 0 ? -1 : comparison > 0 ? 1 : 0);
  }
  if (a.is_sequence() && b.is_sequence() &&
      (a.list().type == List::Type::list) == (b.list().type == List::Type::list)) {
    const auto &x = a.list().items, &y = b.list().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(runtime, x[i], y[i])) return ordered(runtime, order, x[i], y[i]);
    }
    return holds(order, x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0);
  }
  raise("'{}' not supported between instances of '{}' and '{}'", order_sign(order), type_name(a),
        type_name(b));
}

void require_hashable(const Value& value) {
  if (value.is_dict() || value.kind() == Kind::list ||
      (value.kind() == Kind::object && !value.object().hashable())) {
    raise("unhashable type: '{}'", type_name(value));
  }
  if (value.is_sequence()) {
    for (const Value& item : value.list().items) require_hashable(item);
  }
}

std::optional<int64_t> integer_of(const Value& value) {
  if (value.is_integer()) return value.integer();
  if (value.is_boolean()) return value.boolean() ? 1 : 0;
  return std::nullopt;
}

std::optional<double> number_of(const Value& value) {
  if (value.is_real()) return value.real();
  if (const auto integer = integer_of(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

}  // namespace qeval::jinja
