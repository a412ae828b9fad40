#include <algorithm>

#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

constexpr int64_t kMostRange = 100'000;  ///< jinja2.sandbox.MAX_RANGE

Value make_range(Runtime& runtime, const Call& call) {
  if (!call.named.empty()) raise("range() takes no keyword arguments");
  if (call.positional.empty()) raise("range expected at least 1 argument, got 0");
  if (call.positional.size() > 3) raise("range expected at most 3 arguments, got {}", call.positional.size());
  std::vector<int64_t> numbers;
  for (const Value& value : call.positional) numbers.push_back(require_integer(value));
  if (numbers.size() == 1) numbers.insert(numbers.begin(), 0);
  if (numbers.size() == 2) numbers.push_back(1);
  if (numbers[2] == 0) raise("range() arg 3 must not be zero");
  auto range = runtime.make<Range>(numbers[0], numbers[1], numbers[2]);
  if (range->count() > kMostRange) {
    raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMostRange);
  }
  return range;
}

/// dict(mapping or pairs, key=value, …).
Dict make_dict(Runtime& runtime, const Call& call) {
  if (call.positional.size() > 1) {
    raise("dict expected at most 1 argument, got {}", call.positional.size());
  }
  Dict out;
  if (!call.positional.empty() && call.positional[0].is_dict()) {
    out = call.positional[0].dict();
    runtime.bytes(out.items().size() * sizeof(Dict::Item));
  } else if (!call.positional.empty()) {
    const std::vector<Value> pairs = items_of(runtime, call.positional[0]);
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (!is_iterable(pairs[i]))
        raise("cannot convert dictionary update sequence element #{} to a sequence", i);
      const std::vector<Value> pair = items_of(runtime, pairs[i]);
      if (pair.size() != 2) {
        raise("dictionary update sequence element #{} has length {}; 2 is required", i, pair.size());
      }
      out.set(runtime, pair[0], pair[1]);
    }
  }
  for (const auto& [name, value] : call.named) out.set(runtime, runtime.text(name), value);
  return out;
}

/// `dict`, which also has `fromkeys`.
class DictFunction : public Object {
 public:
  std::string_view type_name() const override { return "TemplateDict"; }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Call& call) override { return runtime.dict(make_dict(runtime, call)); }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override {
    if (name != "fromkeys") return std::nullopt;
    return runtime.make<Builtin>("fromkeys", [](Runtime& r, const Call& call) {
      const auto arguments = bind_arguments("fromkeys iterable value?", call);
      Dict out;
      for (const Value& key : items_of(r, arguments[0])) {
        out.set(r, key, arguments[1].is_missing() ? Value::none() : arguments[1]);
      }
      return r.dict(std::move(out));
    });
  }
};

Value make_namespace(Runtime& runtime, const Call& call) {
  auto out = runtime.make<NamespaceObject>();
  out->attributes = make_dict(runtime, call);
  runtime.keep(out);
  for (const auto& [name, value] : out->attributes.items()) {
    if (name.is_string()) NamespaceObject::check_name(name.string());
  }
  return out;
}

/// Python's strftime of a time without a zone: %Z and %z are empty, %f is microseconds.
std::string strftime(const std::tm& time, std::string_view format) {
  std::string expanded;
  for (size_t at = 0; at < format.size(); ++at) {
    if (format[at] != '%' || at + 1 >= format.size()) {
      expanded += format[at];
      continue;
    }
    const char letter = format[++at];
    if (letter == 'f') {
      expanded += "000000";
    } else if (letter != 'z' && letter != 'Z') {
      expanded += '%';
      expanded += letter;
    }
  }
  if (expanded.empty()) return "";
  // One byte more, since a result may be empty (%p in some locales).
  expanded += ' ';
  std::string out(256 + expanded.size() * 32, '\0');
  out.resize(std::strftime(out.data(), out.size(), expanded.c_str(), &time));
  if (!out.empty()) out.pop_back();
  return out;
}

Value strftime_now(Runtime& runtime, const Call& call) {
  const auto arguments = bind_arguments("_cached_compile_jinja_template.<locals>.strftime_now format", call);
  if (!arguments[0].is_string()) {
    raise("strftime() argument 1 must be str, not {}", type_name(arguments[0]));
  }
  runtime.bytes_of(static_cast<int64_t>(arguments[0].string().size()), 64);
  return runtime.text(strftime(runtime.now, arguments[0].string()));
}

Value raise_exception(Runtime& runtime, const Call& call) {
  const auto arguments =
      bind_arguments("_cached_compile_jinja_template.<locals>.raise_exception message", call);
  throw TemplateError(arguments[0].is_none() ? "None" : to_string(runtime, arguments[0]));
}

}  // namespace

std::map<std::string, Value, std::less<>> globals(Runtime& runtime) {
  std::map<std::string, Value, std::less<>> out;
  const auto add = [&](const char* name, Builtin::Body body) {
    out[name] = runtime.make<Builtin>(name, std::move(body));
  };
  add("range", make_range);
  add("namespace", make_namespace);
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
  add("cycler", [](Runtime& r, const Call& call) -> Value { return r.make<Cycler>(call.positional); });
  add("joiner", [](Runtime& r, const Call& call) -> Value {
    const auto arguments = bind_arguments("Joiner.__init__ *self sep?", call);
    return r.make<Joiner>(arguments[0].is_missing() ? r.text(", ") : arguments[0]);
  });
  add("lipsum",
      [](Runtime&, const Call&) -> Value { raise("lipsum() is not supported: it is random text"); });
  out["dict"] = runtime.make<DictFunction>();
  return out;
}

}  // namespace qeval::jinja
