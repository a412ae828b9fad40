#include "eval/engine/jinja/objects.h"

#include <algorithm>

namespace qeval::jinja {
namespace {

/// A method of an object that lives as long as what holds it.
Value method(Runtime& runtime, std::string_view name, Builtin::Body body, uint16_t depth) {
  return runtime.make<Builtin>(std::string(name), std::move(body), depth, "method");
}

}  // namespace

std::string Range::repr(Runtime&) const {
  return step == 1 ? fmt::format("range({}, {})", start, stop)
                   : fmt::format("range({}, {}, {})", start, stop, step);
}

int64_t Range::count() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  const auto from = static_cast<uint64_t>(step > 0 ? start : stop),
             to = static_cast<uint64_t>(step > 0 ? stop : start);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  const uint64_t rounds = (to - from - 1) / stride + 1;
  return rounds > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX : static_cast<int64_t>(rounds);
}

std::optional<Value> Range::item(Runtime&, const Value& key) {
  const auto index = integer_of(key);
  if (!index) return std::nullopt;
  const int64_t from_start = *index < 0 ? *index + count() : *index;
  if (from_start < 0 || from_start >= count()) return std::nullopt;
  return Value(at(from_start));
}

std::optional<Value> Range::attribute(Runtime&, std::string_view name) {
  if (name == "start") return Value(start);
  if (name == "stop") return Value(stop);
  if (name == "step") return Value(step);
  return std::nullopt;
}

std::shared_ptr<Iterator> Range::iterate(Runtime& runtime) {
  return runtime.make<Generator>(
      [next = start, left = count(), by = step](Runtime&) mutable -> std::optional<Value> {
        if (left-- <= 0) return std::nullopt;
        const int64_t value = next;
        next += by;
        return Value(value);
      },
      0, "range_iterator");
}

std::optional<bool> Range::contains(Runtime&, const Value& value) {
  const auto number = number_of(value);
  if (!number || *number != static_cast<double>(static_cast<int64_t>(*number))) return false;
  const auto wanted = static_cast<int64_t>(*number);
  return (wanted - start) % step == 0 && (wanted - start) / step >= 0 && (wanted - start) / step < count();
}

bool Range::equals(Runtime&, const Object& other) const {
  const auto* range = dynamic_cast<const Range*>(&other);
  if (range == nullptr || range->count() != count()) return false;
  return count() == 0 || (range->start == start && (count() == 1 || range->step == step));
}

std::string_view DictView::type_name() const {
  constexpr std::string_view kNames[] = {"dict_keys", "dict_values", "dict_items"};
  return kNames[static_cast<size_t>(what)];
}

Value DictView::at(Runtime& runtime, size_t index) const {
  const auto& [key, value] = dict.dict().items()[index];
  if (what == What::keys) return key;
  return what == What::values ? value : runtime.tuple({key, value});
}

std::string DictView::repr(Runtime& runtime) const {
  std::vector<Value> items;
  for (size_t i = 0; i < dict.dict().items().size(); ++i) items.push_back(at(runtime, i));
  return fmt::format("{}({})", type_name(), to_repr(runtime, runtime.list(std::move(items))));
}

std::shared_ptr<Iterator> DictView::iterate(Runtime& runtime) {
  constexpr std::string_view kNames[] = {"dict_keyiterator", "dict_valueiterator", "dict_itemiterator"};
  auto view = runtime.make<DictView>(dict, what);
  return runtime.make<Generator>(
      [view, index = size_t{0}](Runtime& charged) mutable -> std::optional<Value> {
        if (index >= view->dict.dict().items().size()) return std::nullopt;
        return view->at(charged, index++);
      },
      view->depth, kNames[static_cast<size_t>(what)]);
}

bool Generator::next(Runtime& runtime, Value& out) {
  runtime.step();
  const Nested nested(runtime);
  if (ended_) return false;
  std::optional<Value> value = next_(runtime);
  ended_ = !value.has_value();
  if (value) out = std::move(*value);
  return !ended_;
}

std::string NamespaceObject::repr(Runtime& runtime) const {
  if (std::ranges::find(runtime.printing, this) != runtime.printing.end()) return "<Namespace {...}>";
  runtime.printing.push_back(this);
  const std::string inside = to_repr(runtime, runtime.dict(attributes));
  runtime.printing.pop_back();
  return fmt::format("<Namespace {}>", inside);
}

std::optional<Value> NamespaceObject::attribute(Runtime&, std::string_view name) {
  const Value* found = attributes.find(name);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

void NamespaceObject::check_name(std::string_view name) {
  if (name.starts_with('_')) {
    raise(
        "Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}. Please "
        "rename the "
        "attribute.",
        repr_of_string(name));
  }
}

LoopObject::LoopObject(Runtime& runtime, const Value& over, std::shared_ptr<Iterator> iterator,
                       Recurse recurse, int64_t depth0)
    : iterator_(std::move(iterator)), recurse_(std::move(recurse)), depth0_(depth0) {
  if (!over.is_missing() && find_length(runtime, over)) over_ = over;
  depth = Runtime::deeper(std::max(depth_of(over), iterator_->depth));
}

bool LoopObject::peek(Runtime& runtime) {
  return !after_.is_missing() || iterator_->next(runtime, after_);
}

bool LoopObject::next(Runtime& runtime, Value& out) {
  Value value;
  if (!after_.is_missing()) {
    value = std::move(after_);
    after_ = Value();
  } else if (!iterator_->next(runtime, value)) {
    return false;
  }
  ++index0_;
  before_ = std::move(current_);
  current_ = value;
  out = std::move(value);
  return true;
}

std::optional<int64_t> LoopObject::length(Runtime& runtime) {
  if (length_) return length_;
  if (!over_.is_missing()) {
    length_ = length_of(runtime, over_);
    return length_;
  }
  std::vector<Value> left;
  for (Value value; iterator_->next(runtime, value);) left.push_back(std::move(value));
  length_ = std::ssize(left) + index0_ + 1 + (after_.is_missing() ? 0 : 1);
  iterator_ = jinja::iterate(runtime, runtime.list(std::move(left)));
  return length_;
}

std::string LoopObject::repr(Runtime& runtime) const {
  return fmt::format("<LoopContext {}/{}>", index0_ + 1, *const_cast<LoopObject*>(this)->length(runtime));
}

std::optional<Value> LoopObject::attribute(Runtime& runtime, std::string_view name) {
  if (name == "index") return Value(index0_ + 1);
  if (name == "index0") return Value(index0_);
  if (name == "first") return Value(index0_ == 0);
  if (name == "last") return Value(!peek(runtime));
  if (name == "length") return Value(*length(runtime));
  if (name == "revindex") return Value(*length(runtime) - index0_);
  if (name == "revindex0") return Value(*length(runtime) - index0_ - 1);
  if (name == "depth") return Value(depth0_ + 1);
  if (name == "depth0") return Value(depth0_);
  if (name == "previtem") {
    return index0_ == 0 ? runtime.undefined("there is no previous item") : before_;
  }
  if (name == "nextitem") return peek(runtime) ? after_ : runtime.undefined("there is no next item");
  const auto self = std::static_pointer_cast<LoopObject>(shared_from_this());
  if (name == "cycle") {
    return method(
        runtime, name, [self](Runtime&, const Call& call) { return self->cycle(call); }, depth);
  }
  if (name == "changed") {
    return method(
        runtime, name, [self](Runtime& r, const Call& call) { return self->changed(r, call); }, depth);
  }
  return std::nullopt;
}

std::shared_ptr<Iterator> LoopObject::iterate(Runtime& runtime) {
  const auto self = std::static_pointer_cast<LoopObject>(shared_from_this());
  return runtime.make<Generator>(
      [self](Runtime& charged) -> std::optional<Value> {
        Value value;
        if (!self->next(charged, value)) return std::nullopt;
        return charged.tuple({value, Value(self)});
      },
      depth, "LoopContext");
}

Value LoopObject::call(Runtime& runtime, const Call& call) {
  const std::vector<Value> arguments = bind_arguments("LoopContext.__call__ *self iterable", call);
  if (!recurse_) raise("The loop must have the 'recursive' marker to be called recursively.");
  return recurse_(runtime, arguments[0], depth0_ + 1);
}

Value LoopObject::cycle(const Call& call) const {
  if (call.positional.empty()) raise("no items for cycling given");
  return call.positional[static_cast<size_t>(index0_) % call.positional.size()];
}

Value LoopObject::changed(Runtime& runtime, const Call& call) {
  Value value = runtime.tuple(call.positional);
  if (last_changed_ && equal(runtime, *last_changed_, value)) return false;
  // The depth of a loop is that of what it goes through: something deeper is not kept.
  if (depth_of(value) >= depth + 2)
    raise("loop.changed of something that nests deeper than the loop's items");
  last_changed_ = std::move(value);
  return true;
}

std::string Macro::repr(Runtime&) const {
  return fmt::format("<Macro {}>", function_.name.empty() ? "anonymous" : repr_of_string(function_.name));
}

std::optional<Value> Macro::attribute(Runtime& runtime, std::string_view name) {
  if (name == "name") return function_.name.empty() ? Value::none() : runtime.text(function_.name);
  if (name == "catch_kwargs") return Value(function_.takes_named);
  if (name == "catch_varargs") return Value(function_.takes_rest);
  if (name == "caller") return Value(function_.takes_caller);
  if (name == "explicit_caller") return Value(function_.explicit_caller);
  if (name != "arguments") return std::nullopt;
  std::vector<Value> names;
  for (const auto& parameter : function_.parameters) names.push_back(runtime.text(parameter->name));
  return runtime.tuple(std::move(names));
}

Value Macro::call(Runtime& runtime, const Call& call) {
  const size_t count = function_.parameters.size();
  std::vector<Value> parameters(
      call.positional.begin(),
      call.positional.begin() + static_cast<ptrdiff_t>(std::min(count, call.positional.size())));
  auto named = call.named;
  const auto take = [&named](std::string_view name) {
    const auto found =
        std::ranges::find(named, name, [](const auto& entry) -> std::string_view { return entry.first; });
    if (found == named.end()) return Value();
    Value value = std::move(found->second);
    named.erase(found);
    return value;
  };
  bool found_caller = parameters.size() == count && function_.explicit_caller;
  for (size_t i = parameters.size(); i < count; ++i) {
    const std::string& name = function_.parameters[i]->name;
    parameters.push_back(take(name));
    found_caller = found_caller || name == "caller";
  }
  Value caller;
  if (function_.takes_caller && !found_caller) {
    caller = take("caller");
    if (caller.is_missing() || caller.is_none()) caller = runtime.undefined("No caller defined");
  }
  const std::string name = function_.name.empty() ? "None" : repr_of_string(function_.name);
  Value rest_named;
  if (function_.takes_named) {
    Dict rest;
    for (auto& [key, value] : named) rest.set(runtime, runtime.text(key), std::move(value));
    rest_named = runtime.dict(std::move(rest));
  } else if (!named.empty()) {
    for (const auto& [key, value] : named) {
      if (key == "caller") {
        raise(
            "macro {} was invoked with two values for the special caller argument. This is most likely a "
            "bug.",
            name);
      }
    }
    raise("macro {} takes no keyword argument {}", name, repr_of_string(named.front().first));
  }
  Value rest;
  if (function_.takes_rest) {
    rest = runtime.tuple(
        {call.positional.begin() + static_cast<ptrdiff_t>(std::min(count, call.positional.size())),
         call.positional.end()});
  } else if (call.positional.size() > count) {
    raise("macro {} takes not more than {} argument(s)", name, count);
  }
  return run_(runtime, function_, defined_in_, std::move(parameters), std::move(caller),
              std::move(rest_named), std::move(rest));
}

Cycler::Cycler(std::vector<Value> items) : items_(std::move(items)) {
  if (items_.empty()) raise("at least one item has to be provided");
  for (const Value& item : items_) depth = std::max(depth, Runtime::deeper(depth_of(item)));
}

std::optional<Value> Cycler::attribute(Runtime& runtime, std::string_view name) {
  if (name == "current") return items_[at_];
  if (name == "pos") return Value(static_cast<int64_t>(at_));
  if (name == "items") return runtime.tuple(items_);
  const auto self = std::static_pointer_cast<Cycler>(shared_from_this());
  if (name == "next") {
    return method(
        runtime, name,
        [self](Runtime&, const Call&) {
          Value value = self->items_[self->at_];
          self->at_ = (self->at_ + 1) % self->items_.size();
          return value;
        },
        depth);
  }
  if (name == "reset") {
    return method(
        runtime, name,
        [self](Runtime&, const Call&) {
          self->at_ = 0;
          return Value::none();
        },
        depth);
  }
  return std::nullopt;
}

std::optional<Value> Joiner::attribute(Runtime&, std::string_view name) {
  if (name == "sep") return separator_;
  if (name == "used") return Value(used_);
  return std::nullopt;
}

Value Joiner::call(Runtime& runtime, const Call& call) {
  bind_arguments("Joiner.__call__ *self", call);
  if (used_) return separator_;
  used_ = true;
  return runtime.text("");
}

}  // namespace qeval::jinja
