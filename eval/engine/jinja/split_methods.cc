#include "eval/engine/jinja/methods.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"
#include "eval/engine/jinja/text_search.h"

namespace qeval::jinja {
namespace {

Value texts(Runtime& runtime, const std::vector<std::string_view>& parts, bool markup) {
  std::vector<Value> out;
  for (const std::string_view part : parts) out.push_back(runtime.text(std::string(part), markup));
  return runtime.list(std::move(out));
}

Value split_method(Runtime& runtime, const Value& text, std::string_view name, const Call& call) {
  const auto arguments =
      bind_arguments(name == "split" ? "split sep? maxsplit?" : "rsplit sep? maxsplit?", call);
  std::optional<std::string_view> separator;
  if (!arguments[0].is_missing() && !arguments[0].is_none()) {
    if (!arguments[0].is_string()) raise("must be str or None, not {}", type_name(arguments[0]));
    separator = arguments[0].string();
    if (separator->empty()) raise("empty separator");
  }
  const int64_t most = arguments[1].is_missing() ? -1 : require_integer(arguments[1]);
  return texts(runtime,
               name == "split" ? split(runtime, text.string(), separator, most)
                               : split_right(runtime, text.string(), separator, most),
               text.is_markup());
}

Value partition(Runtime& runtime, const Value& text, std::string_view name, const Call& call) {
  if (call.positional.size() != 1 || !call.named.empty()) {
    raise("str.{}() takes exactly one argument ({} given)", name, call.positional.size() + call.named.size());
  }
  if (!call.positional[0].is_string()) raise("must be str, not {}", type_name(call.positional[0]));
  const std::string_view all = text.string(), separator = call.positional[0].string();
  if (separator.empty()) raise("empty separator");
  const bool right = name == "rpartition";
  const size_t at = right ? all.rfind(separator) : all.find(separator);
  const auto part = [&](std::string_view piece) {
    return runtime.text(std::string(piece), text.is_markup());
  };
  if (at == std::string_view::npos) {
    return runtime.tuple({part(right ? "" : all), part(""), part(right ? all : "")});
  }
  return runtime.tuple({part(all.substr(0, at)), part(separator), part(all.substr(at + separator.size()))});
}

Value join_method(Runtime& runtime, const Value& text, const Call& call) {
  if (call.positional.size() != 1 || !call.named.empty()) {
    raise("str.join() takes exactly one argument ({} given)", call.positional.size() + call.named.size());
  }
  if (!is_iterable(call.positional[0])) raise("can only join an iterable");
  Builder out(runtime);
  int64_t index = 0;
  const auto iterator = iterate(runtime, call.positional[0]);
  for (Value item; iterator->next(runtime, item); ++index) {
    if (index > 0) out.add(text.string());
    if (text.is_markup()) {
      out.add(escape(runtime, item));
      continue;
    }
    if (!item.is_string()) raise("sequence item {}: expected str instance, {} found", index, type_name(item));
    out.add(item.string());
  }
  return runtime.text(out.take(), text.is_markup());
}

}  // namespace

std::optional<Value> call_split_method(Runtime& runtime, const Value& text, std::string_view name,
                                       const Call& call) {
  if (name == "split" || name == "rsplit") return split_method(runtime, text, name, call);
  if (name == "partition" || name == "rpartition") return partition(runtime, text, name, call);
  if (name == "join") return join_method(runtime, text, call);
  if (name == "splitlines") {
    const auto arguments = bind_arguments("splitlines keepends?", call);
    const bool keep = !arguments[0].is_missing() && truth(runtime, arguments[0]);
    return texts(runtime, split_lines(runtime, text.string(), keep), text.is_markup());
  }
  return std::nullopt;
}

}  // namespace qeval::jinja
