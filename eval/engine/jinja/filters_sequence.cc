#include <algorithm>
#include <numeric>

#include "base/unicode.h"
#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"

namespace qeval::jinja {
namespace {

bool flag(Runtime& runtime, const Value& value) {
  return !value.is_missing() && truth(runtime, value);
}

/// reversed(x): nullopt where Python raises a TypeError.
std::optional<std::vector<Value>> reversed(Runtime& runtime, const Value& value) {
  const bool has_order = value.is_undefined() || value.is_string() || value.is_sequence() ||
                         value.is_dict() || value.as<Range>() != nullptr || value.as<DictView>() != nullptr;
  if (!has_order) return std::nullopt;
  std::vector<Value> items = items_of(runtime, value);
  std::ranges::reverse(items);
  return items;
}

Value first(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("sync_do_first *environment seq", value, call);
  Value out;
  if (iterate(runtime, value)->next(runtime, out)) return out;
  return runtime.undefined("No first item, sequence was empty.");
}

Value last(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_last *environment seq", value, call);
  if (value.is_sequence() && !value.list().items.empty()) return value.list().items.back();
  const auto items = reversed(runtime, value);
  if (!items) raise("'{}' object is not reversible", type_name(value));
  return items->empty() ? runtime.undefined("No last item, sequence was empty.") : items->front();
}

Value list(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("sync_do_list value", value, call);
  return runtime.list(items_of(runtime, value));
}

Value items(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_items value", value, call);
  const auto view = value.is_dict() ? runtime.make<DictView>(value, DictView::What::items) : nullptr;
  const bool nothing = value.is_undefined();
  return runtime.make<Generator>(
      [view, nothing, index = size_t{0}](Runtime& r) mutable -> std::optional<Value> {
        if (nothing) return std::nullopt;
        if (view == nullptr) raise("Can only get item pairs from a mapping.");
        if (index >= view->dict.dict().items().size()) return std::nullopt;
        return view->at(r, index++);
      },
      depth_of(value));
}

Value reverse(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_reverse value", value, call);
  if (value.is_string()) return get_slice(runtime, value, Value(), Value(), int64_t{-1});
  auto reversed_items = reversed(runtime, value);
  if (!reversed_items) {
    if (!is_iterable(value)) raise("argument must be iterable");
    std::vector<Value> all = items_of(runtime, value);
    std::ranges::reverse(all);
    return runtime.list(std::move(all));
  }
  const Value list = runtime.list(std::move(*reversed_items));
  return runtime.make<Generator>(
      [list, index = size_t{0}](Runtime&) mutable -> std::optional<Value> {
        if (index >= list.list().items.size()) return std::nullopt;
        return list.list().items[index++];
      },
      depth_of(list), "list_reverseiterator");
}

Value join(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("sync_do_join *eval_ctx value d? attribute?", value, call);
  const std::string separator = arguments[1].is_missing() ? "" : to_string(runtime, arguments[1]);
  const AttributeGetter getter(runtime, arguments[2]);
  Builder out(runtime);
  bool first_item = true;
  const auto iterator = iterate(runtime, value);
  for (Value item; iterator->next(runtime, item); first_item = false) {
    if (!first_item) out.add(separator);
    out.add(to_string(runtime, getter(runtime, item)));
  }
  return runtime.text(out.take());
}

Value batch(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_batch value linecount fill_with?", value, call);
  const Value count = arguments[1], fill = arguments[2];
  auto source = std::make_shared<std::shared_ptr<Iterator>>();
  auto pending = std::make_shared<Value>();
  return runtime.make<Generator>(
      [value, count, fill, source, pending](Runtime& r) mutable -> std::optional<Value> {
        if (*source == nullptr) *source = iterate(r, value);
        std::vector<Value> row;
        if (!pending->is_missing()) row.push_back(std::exchange(*pending, Value()));
        for (Value item; (*source)->next(r, item);) {
          if (equal(r, Value(static_cast<int64_t>(row.size())), count)) {
            *pending = item;
            return r.list(std::move(row));
          }
          row.push_back(std::move(item));
        }
        if (row.empty()) return std::nullopt;
        if (!fill.is_missing() && !fill.is_none()) {
          const int64_t missing = require_integer(count) - std::ssize(row);
          r.bytes_of(missing, sizeof(Value));
          for (int64_t i = 0; i < missing; ++i) row.push_back(fill);
        }
        return r.list(std::move(row));
      },
      std::max(depth_of(value), depth_of(fill)));
}

Value slice(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("sync_do_slice value slices fill_with?", value, call);
  const Value count = arguments[1], fill = arguments[2];
  return runtime.make<Generator>(
      [value, count, fill, all = Value(), number = int64_t{0},
       offset = int64_t{0}](Runtime& r) mutable -> std::optional<Value> {
        if (all.is_missing()) all = r.list(items_of(r, value));
        const auto& items = all.list().items;
        const int64_t slices = require_integer(count);
        if (slices == 0) raise("integer division or modulo by zero");
        if (number >= slices) return std::nullopt;
        const int64_t each = std::ssize(items) / slices, longer = std::ssize(items) % slices;
        const int64_t begin = offset + number * each;
        if (number < longer) ++offset;
        const int64_t end = offset + (number + 1) * each;
        std::vector<Value> row(items.begin() + begin, items.begin() + end);
        if (!fill.is_missing() && !fill.is_none() && number >= longer) row.push_back(fill);
        ++number;
        return r.list(std::move(row));
      },
      std::max(depth_of(value), depth_of(fill)));
}

Value sort(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments =
      bind_arguments("do_sort *environment value reverse? case_sensitive? attribute?", value, call);
  const bool ignore_case = !flag(runtime, arguments[2]);
  std::vector<AttributeGetter> getters;
  if (arguments[3].is_string()) {
    std::string_view names = arguments[3].string();
    while (true) {
      const size_t end = std::min(names.find(','), names.size());
      getters.emplace_back(runtime, runtime.text(std::string(names.substr(0, end))), Value(), ignore_case);
      if (end == names.size()) break;
      names.remove_prefix(end + 1);
    }
  } else {
    getters.emplace_back(runtime, arguments[3], Value(), ignore_case);
  }
  const std::vector<Value> items = items_of(runtime, value);
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const AttributeGetter& getter : getters) key.push_back(getter(runtime, item));
    keys.push_back(runtime.list(std::move(key)));
  }
  return runtime.list(sorted(runtime, items, keys, flag(runtime, arguments[1])));
}

Value dictsort(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_dictsort value case_sensitive? by? reverse?", value, call);
  bool by_value = false;
  if (!arguments[2].is_missing()) {
    const bool text = arguments[2].is_string();
    by_value = text && arguments[2].string() == "value";
    if (!by_value && !(text && arguments[2].string() == "key")) {
      raise("You can only sort by either \"key\" or \"value\"");
    }
  }
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (!value.is_dict()) raise("'{}' object has no attribute 'items'", type_name(value));
  std::vector<Value> pairs, keys;
  for (const auto& [key, item] : value.dict().items()) {
    pairs.push_back(runtime.tuple({key, item}));
    const Value& by = by_value ? item : key;
    keys.push_back(flag(runtime, arguments[1]) ? by : without_case(runtime, by));
  }
  return runtime.list(sorted(runtime, pairs, keys, flag(runtime, arguments[3])));
}

Value group_by(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments =
      bind_arguments("sync_do_groupby *environment value attribute default? case_sensitive?", value, call);
  const bool ignore_case = !flag(runtime, arguments[3]);
  const AttributeGetter key_of(runtime, arguments[1], arguments[2], ignore_case);
  const AttributeGetter shown(runtime, arguments[1], arguments[2]);
  const std::vector<Value> all = items_of(runtime, value);
  std::vector<Value> keys;
  for (const Value& item : all) keys.push_back(key_of(runtime, item));
  const std::vector<Value> in_order = sorted(runtime, all, keys, false);
  std::vector<Value> out, group;
  Value key;
  const auto close = [&] {
    if (group.empty()) return;
    Value name = ignore_case ? shown(runtime, group.front()) : key;
    out.push_back(runtime.list({std::move(name), runtime.list(std::move(group))}, List::Type::group));
    group.clear();
  };
  for (const Value& item : in_order) {
    Value next = key_of(runtime, item);
    if (!group.empty() && !equal(runtime, next, key)) close();
    key = std::move(next);
    group.push_back(item);
  }
  close();
  return runtime.list(std::move(out));
}

Value unique(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments =
      bind_arguments("sync_do_unique *environment value case_sensitive? attribute?", value, call);
  const AttributeGetter getter(runtime, arguments[2], Value(), !flag(runtime, arguments[1]));
  auto seen = std::make_shared<Dict>();
  return runtime.make<Generator>(
      [value, getter, seen,
       source = std::shared_ptr<Iterator>()](Runtime& r) mutable -> std::optional<Value> {
        if (source == nullptr) source = iterate(r, value);
        for (Value item; source->next(r, item);) {
          const Value key = getter(r, item);
          if (seen->find(r, key) != nullptr) continue;
          seen->set(r, key, true);
          return item;
        }
        return std::nullopt;
      },
      depth_of(value));
}

Value extreme(Runtime& runtime, const std::vector<Value>& arguments, Order order) {
  const AttributeGetter getter(runtime, arguments[2], Value(), !flag(runtime, arguments[1]));
  const auto iterator = iterate(runtime, arguments[0]);
  Value best;
  if (!iterator->next(runtime, best)) return runtime.undefined("No aggregated item, sequence was empty.");
  Value best_key = getter(runtime, best);
  for (Value item; iterator->next(runtime, item);) {
    Value key = getter(runtime, item);
    if (ordered(runtime, order, key, best_key)) {
      best = item;
      best_key = std::move(key);
    }
  }
  return best;
}
Value minimum(Runtime& runtime, const Value& value, const Call& call) {
  return extreme(runtime, bind_arguments("do_min *environment value case_sensitive? attribute?", value, call),
                 Order::less);
}
Value maximum(Runtime& runtime, const Value& value, const Call& call) {
  return extreme(runtime, bind_arguments("do_max *environment value case_sensitive? attribute?", value, call),
                 Order::greater);
}

Value sum(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("sync_do_sum *environment iterable attribute? start?", value, call);
  const AttributeGetter getter(runtime, arguments[1]);
  Value out = arguments[2].is_missing() ? Value(int64_t{0}) : arguments[2];
  if (out.is_string()) raise("sum() can't sum strings [use ''.join(seq) instead]");
  const auto iterator = iterate(runtime, value);
  for (Value item; iterator->next(runtime, item);) {
    out = binary(runtime, Binary::add, out, getter(runtime, item));
  }
  return out;
}

}  // namespace

AttributeGetter::AttributeGetter(Runtime& runtime, const Value& attribute, Value fallback, bool ignore_case)
    : fallback_(std::move(fallback)), ignore_case_(ignore_case) {
  if (attribute.is_missing() || attribute.is_none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  std::string_view path = attribute.string();
  while (true) {
    const size_t end = std::min(path.find('.'), path.size());
    const std::string_view part = path.substr(0, end);
    const bool digits =
        !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string_view::npos;
    parts_.push_back(digits ? Value(int64_t{std::stoll(std::string(part))})
                            : runtime.text(std::string(part)));
    if (end == path.size()) break;
    path.remove_prefix(end + 1);
  }
}

Value AttributeGetter::operator()(Runtime& runtime, const Value& item) const {
  Value out = item;
  for (const Value& part : parts_) {
    out = get_item(runtime, out, part);
    if (out.is_undefined() && !fallback_.is_missing() && !fallback_.is_none()) out = fallback_;
  }
  return ignore_case_ ? without_case(runtime, out) : out;
}

Value without_case(Runtime& runtime, const Value& value) {
  return value.is_string() ? runtime.text(lower(value.string()), value.is_markup()) : value;
}

std::vector<Value> sorted(Runtime& runtime, const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (reverse) std::ranges::reverse(order);  // so that equals keep their order below
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return ordered(runtime, Order::less, keys[a], keys[b]); });
  if (reverse) std::ranges::reverse(order);
  std::vector<Value> out;
  for (const size_t index : order) out.push_back(items[index]);
  return out;
}

std::span<const Filter> sequence_filters() {
  static constexpr Filter kFilters[] = {
      {"first", first},      {"last", last},     {"list", list},   {"items", items}, {"reverse", reverse},
      {"join", join},        {"batch", batch},   {"slice", slice}, {"sort", sort},   {"dictsort", dictsort},
      {"groupby", group_by}, {"unique", unique}, {"min", minimum}, {"max", maximum}, {"sum", sum},
  };
  return kFilters;
}

}  // namespace qeval::jinja
