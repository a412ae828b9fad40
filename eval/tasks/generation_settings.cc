#include "eval/tasks/generation_settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "base/strict_json.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

template <typename Number>
bool read_number(std::string_view text, Number& value) {
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  return read.ec == std::errc() && read.ptr == text.data() + text.size();
}

ordered_json value_of(const std::string& text) {
  const std::string small = lower(text);
  if (small == "true" || small == "false") return small == "true";
  int64_t whole = 0;
  if (read_number(text, whole)) return whole;
  double number = 0;
  if (read_number(text, number) && std::isfinite(number)) return number;
  return text;
}

[[noreturn]] void refuse(const std::string& name, const ordered_json& value, const std::string& accepted) {
  fail("{}: {} is {}; accepted: {}", setting("gen-kwargs"), printable(name, 40), printable(value.dump(), 60),
       accepted);
}

int64_t whole(const std::string& name, const ordered_json& value, int64_t least, const std::string& accepted,
              int64_t most = int64_t{1} << 30) {
  if (!value.is_number_integer() || value.get<double>() < static_cast<double>(least) ||
      value.get<double>() > static_cast<double>(most))
    refuse(name, value, accepted);
  return value.get<int64_t>();
}

double number(const std::string& name, const ordered_json& value, double least, double most,
              const std::string& accepted) {
  const double out = value.is_number() ? value.get<double>() : NAN;
  if (!(out >= least && out <= most)) refuse(name, value, accepted);
  return out;
}

std::vector<std::string> stops(const ordered_json& value) {
  std::vector<std::string> out;
  const ordered_json list = value.is_array() ? value : ordered_json::array({value});
  for (const ordered_json& stop : list) {
    if (!stop.is_string() || stop.get_ref<const std::string&>().empty())
      refuse("until", value, "a text, or a list of texts");
    out.push_back(stop.get<std::string>());
  }
  return out;
}

/// In the order in which they are recorded.
constexpr std::array kNames = {"until", "max_gen_toks", "do_sample", "temperature",
                               "top_k", "top_p",        "seed",      "repeats"};

/// The settings in the order of kNames, max_new_tokens by its other name.
ordered_json in_order(const ordered_json& given) {
  ordered_json out = ordered_json::object(), named = ordered_json::object();
  for (const auto& [name, value] : given.items()) {
    const std::string known = name == "max_new_tokens" ? "max_gen_toks" : name;
    if (std::ranges::none_of(kNames, [&](const char* one) { return known == one; })) {
      fail("{}: {} is unknown; accepted: {}", setting("gen-kwargs"), printable(name, 40),
           fmt::join(kNames, ", "));
    }
    if (named.contains(known)) fail("{}: {} is given twice", setting("gen-kwargs"), known);
    named[known] = value;
  }
  for (const char* name : kNames) {
    if (named.contains(name)) out[name] = named[name];
  }
  return out;
}

ordered_json parse_pairs(const std::string& text, const std::string& option) {
  ordered_json out = ordered_json::object();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item(strip(std::string_view(text).substr(begin, end - begin)));
    begin = end + 1;
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0)
      fail("{}: \"{}\": NAME=VALUE,… or a JSON object is expected", option, printable(item, 60));
    const std::string name = item.substr(0, equals);
    if (out.contains(name)) fail("{}: {} is given twice", option, printable(name, 40));
    out[name] = value_of(item.substr(equals + 1));
  }
  return out;
}

/// Whether and how tokens are drawn, as the harness's normalize_gen_kwargs has it.
void settle_sampling(Generation& out, const ordered_json& settings, std::vector<std::string>& warnings) {
  const std::string option = setting("gen-kwargs");
  const auto said = out.arguments.find("do_sample");
  const bool is_said = said != out.arguments.end() && said->is_boolean();
  const bool has_temperature = settings.contains("temperature");
  if (is_said && !said->get<bool>()) {
    if (has_temperature && out.temperature > 0) {
      warnings.push_back(fmt::format(
          "{}: temperature={} has no effect where do_sample is false{}: the likeliest token is taken; add "
          "do_sample=true to draw",
          option, settings["temperature"].dump(),
          settings.contains("do_sample") ? "" : ", as the task says"));
      out.arguments["temperature"] = 0.0;
    }
    out.temperature = 0;
  } else if (is_said) {
    if (has_temperature && out.temperature == 0) {
      warnings.push_back(fmt::format(
          "{}: do_sample=true with temperature=0: the likeliest token is taken; a temperature above 0 draws",
          option));
    } else if (out.temperature == 0) {
      out.temperature = 1;
      if (out.arguments.contains("temperature")) out.arguments["temperature"] = 1.0;
    }
  }
  std::vector<std::string> idle;
  for (const char* name : {"top_k", "top_p", "seed"}) {
    if (settings.contains(name)) idle.emplace_back(name);
  }
  if (out.temperature > 0) return;
  if (!idle.empty())
    warnings.push_back(fmt::format("{}: {} without drawing: no effect", option, fmt::join(idle, ", ")));
  if (out.repeats > 1)
    warnings.push_back(
        fmt::format("repeats={} without drawing: the texts of a document are all the same", out.repeats));
}

}  // namespace

ordered_json parse_generation_settings(const std::string& text) {
  const std::string option = setting("gen-kwargs");
  const std::string stripped(strip(text));
  const bool is_json = stripped.starts_with('{');
  const ordered_json given = is_json ? parse_ordered_json(stripped, option) : parse_pairs(stripped, option);
  if (!given.is_object()) fail("{}: a JSON object is expected", option);
  if (given.empty())
    fail("{}: \"{}\" has no setting; NAME=VALUE,… or a JSON object is expected", option, printable(text, 60));
  return in_order(given);
}

std::shared_ptr<const Generation> with_settings(const Generation& generation, const ordered_json& settings,
                                                std::vector<std::string>& warnings) {
  auto out = std::make_shared<Generation>(generation);
  const ordered_json ordered = in_order(settings);
  for (const auto& [name, value] : ordered.items()) {
    if (name == "until") {
      out->until = stops(value);
    } else if (name == "max_gen_toks") {
      out->max_tokens = whole(name, value, 1, "a number of tokens, from 1");
    } else if (name == "do_sample") {
      if (!value.is_boolean()) refuse(name, value, "true, false");
    } else if (name == "temperature") {
      out->temperature = number(name, value, 0, 1000, "a number from 0");
    } else if (name == "top_p") {
      out->top_p = number(name, value, 1e-9, 1, "a number above 0, up to 1");
    } else if (name == "top_k") {
      out->top_k = whole(name, value, 0, "a number of tokens; 0: all");
    } else if (name == "seed") {
      out->seed = static_cast<uint64_t>(whole(name, value, 0, "a whole number from 0"));
    } else {
      out->repeats = whole(
          name, value, 1, fmt::format("a number of texts per document, 1 to {}", kMostRepeats), kMostRepeats);
    }
    out->arguments[name] = value;
  }
  settle_sampling(*out, settings, warnings);
  out->check_filters();
  return out;
}

}  // namespace qeval::eval
