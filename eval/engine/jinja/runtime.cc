#include "eval/engine/jinja/runtime.h"

#include <algorithm>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {

Value Context::find(std::string_view name) const {
  if (const auto found = set.find(name); found != set.end()) return found->second;
  if (const auto found = given->find(name); found != given->end()) return found->second;
  return {};
}

Runtime::~Runtime() {
  // Namespaces may hold one another, in rings or in long chains: none is destroyed before all are empty.
  for (const auto& object : namespaces_) object->attributes = {};
}

void Runtime::out_of_steps() {
  raise("the template takes too long or too much memory: more than {} steps", kMostSteps);
}

Value Runtime::text(std::string bytes, bool markup) {
  this->bytes(bytes.size() + sizeof(Text));
  return std::make_shared<const Text>(Text{std::move(bytes), markup});
}

uint16_t Runtime::deeper(uint16_t inner) {
  if (inner + 1 > kMostNesting)
    raise("values nested more than {} times, which is not supported", kMostNesting);
  return static_cast<uint16_t>(inner + 1);
}

Value Runtime::list(std::vector<Value> items, List::Type type) {
  bytes(items.size() * sizeof(Value) + sizeof(List));
  auto out = std::make_shared<List>();
  uint16_t inner = 0;
  for (const Value& item : items) inner = std::max(inner, depth_of(item));
  out->items = std::move(items);
  out->type = type;
  out->depth = deeper(inner);
  return std::shared_ptr<const List>(std::move(out));
}

Value Runtime::dict(Dict dict) {
  bytes(dict.items().size() * sizeof(Dict::Item) + sizeof(Dict));
  return std::make_shared<const Dict>(std::move(dict));
}

Value Runtime::undefined(std::string message) {
  bytes(message.size());
  return std::make_shared<const Undefined>(Undefined{std::move(message)});
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::dict:
    case Kind::undefined:
      return true;
    case Kind::object:
      return value.as<Iterator>() != nullptr || value.as<Range>() != nullptr ||
             value.as<DictView>() != nullptr || value.as<LoopObject>() != nullptr;
    default:
      return false;
  }
}

std::shared_ptr<Iterator> iterate(Runtime& runtime, const Value& value) {
  using Next = std::optional<Value>;
  switch (value.kind()) {
    case Kind::undefined:
      return runtime.make<Generator>([](Runtime&) -> Next { return std::nullopt; }, uint16_t{0});
    case Kind::list:
    case Kind::tuple:
      return runtime.make<Generator>(
          [value, index = size_t{0}](Runtime&) mutable -> Next {
            const auto& items = value.list().items;
            if (index >= items.size()) return std::nullopt;
            return items[index++];
          },
          value.list().depth, value.kind() == Kind::list ? "list_iterator" : "tuple_iterator");
    case Kind::dict:
      return runtime.make<Generator>(
          [value, index = size_t{0}](Runtime&) mutable -> Next {
            const auto& items = value.dict().items();
            if (index >= items.size()) return std::nullopt;
            return items[index++].first;
          },
          value.dict().depth(), "dict_keyiterator");
    case Kind::string:
      return runtime.make<Generator>(
          [value, at = size_t{0}](Runtime& charged) mutable -> Next {
            const std::string_view text = value.string();
            if (at >= text.size()) return std::nullopt;
            const size_t length = code_point_at(text, at).length;
            at += length;
            return charged.text(std::string(text.substr(at - length, length)), value.is_markup());
          },
          uint16_t{0}, "str_iterator");
    case Kind::object:
      if (auto iterator = value.object().iterate(runtime)) return iterator;
      break;
    default:
      break;
  }
  raise("'{}' object is not iterable", type_name(value));
}

std::vector<Value> items_of(Runtime& runtime, const Value& value) {
  if (value.is_sequence()) {
    runtime.bytes(value.list().items.size() * sizeof(Value));
    return value.list().items;
  }
  std::vector<Value> out;
  const auto iterator = iterate(runtime, value);
  for (Value item; iterator->next(runtime, item);) out.push_back(std::move(item));
  return out;
}

std::optional<int64_t> find_length(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      runtime.bytes(value.string().size() / 8);
      return static_cast<int64_t>(count_code_points(value.string()));
    case Kind::list:
    case Kind::tuple:
      return std::ssize(value.list().items);
    case Kind::dict:
      return std::ssize(value.dict().items());
    case Kind::object:
      return value.object().length(runtime);
    default:
      return std::nullopt;
  }
}

int64_t length_of(Runtime& runtime, const Value& value) {
  const auto length = find_length(runtime, value);
  if (!length) raise("object of type '{}' has no len()", type_name(value));
  return *length;
}

}  // namespace qeval::jinja
