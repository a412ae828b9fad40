#include "eval/engine/chat_template.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "model/checkpoint/gguf.h"
#include "model/tokenizer/special_tokens.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

/// A model's templates by name; the name of a single one is empty.
struct Found {
  struct Entry {
    std::string where, source;
  };
  std::map<std::string, Entry> templates;
  std::map<std::string, std::string> special_tokens;
};

void add_files(const fs::path& folder, Found& out) {
  const fs::path file = folder / "chat_template.jinja", others = folder / "additional_chat_templates";
  if (fs::exists(file)) out.templates[""] = {file.string(), read_file(file)};
  if (!fs::is_directory(others)) return;
  for (const auto& entry : fs::directory_iterator(others)) {
    if (entry.path().extension() != ".jinja") continue;
    out.templates[entry.path().stem().string()] = {entry.path().string(), read_file(entry.path())};
  }
  if (out.templates.size() < 2 || !out.templates.contains("")) return;
  out.templates["default"] = std::move(out.templates[""]);  // one of several
  out.templates.erase("");
}

void add_configuration(const fs::path& folder, Found& out) {
  const fs::path file = folder / "tokenizer_config.json";
  const nlohmann::json json = parse_strict_json(read_file(file), file.string());
  const JsonObject config(json, file.string());
  const nlohmann::json* stored = config.find("chat_template");
  if (stored == nullptr) return;
  if (stored->is_string()) {
    out.templates[""] = {file.string() + ": chat_template", stored->get<std::string>()};
    return;
  }
  if (!stored->is_array()) config.refuse("chat_template", "a template, or a list of named ones");
  for (const nlohmann::json& entry : *stored) {
    const JsonObject one(entry, file.string() + ": chat_template");
    const std::string name = one.string("name");
    out.templates[name] = {file.string() + ": chat_template " + printable(name), one.string("template")};
  }
}

void add_special_tokens(const fs::path& folder, Found& out) {
  const model::TokenizerConfig config = model::read_tokenizer_config(folder);
  for (const std::string_view role : model::kSpecialTokenRoles) {
    if (const auto content = config.content_of(role)) out.special_tokens.emplace(role, *content);
  }
}

bool is_gguf(const fs::path& file) {
  return file.extension() == ".gguf";
}

void add_gguf(const fs::path& path, Found& out) {
  const model::GgufFile gguf(path);
  const std::string key = "tokenizer.chat_template";
  if (gguf.find_value(key) != nullptr) out.templates[""] = {path.string() + ": " + key, gguf.string(key)};
  if (const auto* names = gguf.find_strings("tokenizer.chat_templates")) {
    for (const std::string& name : *names) {
      out.templates[name] = {path.string() + ": " + key + "." + printable(name),
                             gguf.string(key + "." + name)};
    }
    if (const auto single = out.templates.find(""); single != out.templates.end() && !names->empty()) {
      out.templates.try_emplace("default", std::move(single->second));
      out.templates.erase("");
    }
  }
  const auto* tokens = gguf.find_strings("tokenizer.ggml.tokens");
  if (tokens == nullptr) return;
  constexpr std::pair<const char*, const char*> kRoles[] = {
      {"bos_token", "bos"}, {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}};
  for (const auto& [role, stored] : kRoles) {
    const int64_t id = gguf.integer_or(std::string("tokenizer.ggml.") + stored + "_token_id", -1);
    if (id >= 0 && id < std::ssize(*tokens)) out.special_tokens[role] = (*tokens)[static_cast<size_t>(id)];
  }
}

Found find_templates(const fs::path& path) {
  Found out;
  if (!fs::is_directory(path)) {
    if (!is_gguf(path)) {
      fail("{}: no chat template is read from it; accepted: a model folder, FILE.gguf or FILE.jinja",
           path.string());
    }
    add_gguf(path, out);
    return out;
  }
  add_files(path, out);
  const bool configured = fs::exists(path / "tokenizer_config.json");
  if (configured && out.templates.empty()) add_configuration(path, out);
  add_special_tokens(path, out);
  if (fs::exists(path / "tokenizer.gguf")) {
    Found stored;
    add_gguf(path / "tokenizer.gguf", stored);
    if (out.templates.empty()) out.templates = std::move(stored.templates);
    out.special_tokens.merge(stored.special_tokens);
  }
  return out;
}

std::string names_of(const Found& found) {
  std::string out;
  for (const auto& [name, entry] : found.templates) out += (out.empty() ? "" : ", ") + printable(name);
  return out;
}

}  // namespace

ChatTemplate load_chat_template(const fs::path& path, std::string_view name) {
  if (path.extension() == ".jinja" && !fs::is_directory(path)) {
    if (!name.empty())
      fail("{}: has no named templates, and {} was asked for", path.string(), printable(name));
    return {path.string(), read_file(path), {}, {}};
  }
  Found found = find_templates(path);
  if (found.templates.empty()) {
    fail(
        "{}: has no chat template: neither chat_template.jinja, nor chat_template in tokenizer_config.json, "
        "nor "
        "tokenizer.chat_template in GGUF metadata",
        path.string());
  }
  ChatTemplate out;
  out.special_tokens = std::move(found.special_tokens);
  if (const auto single = found.templates.find(""); single != found.templates.end()) {
    out.where = single->second.where;
    out.source = std::move(single->second.source);
    if (!name.empty()) {
      out.warnings.push_back(fmt::format("{}: the only chat template, which has no name, is used as {}",
                                         out.where, printable(name)));
    }
    return out;
  }
  const auto wanted = found.templates.find(std::string(name.empty() ? "default" : name));
  if (wanted == found.templates.end()) {
    fail("{}: {}; accepted: {}", path.string(),
         name.empty() ? "has several chat templates and no default: one must be named"
                      : "has no chat template " + printable(name),
         names_of(found));
  }
  out.where = wanted->second.where;
  out.source = std::move(wanted->second.source);
  return out;
}

bool is_reserved_variable(std::string_view name) {
  constexpr std::string_view kOfARequest[] = {"messages", "tools", "documents", "add_generation_prompt",
                                              "continue_final_message"};
  return std::ranges::find(kOfARequest, name) != std::end(kOfARequest) ||
         std::ranges::find(model::kSpecialTokenRoles, name) != std::end(model::kSpecialTokenRoles);
}

std::string render_chat(const jinja::Template& parsed, const ChatTemplate& chat, const ChatRequest& request) {
  nlohmann::ordered_json variables = {{"messages", request.messages},
                                      {"tools", nullptr},
                                      {"documents", nullptr},
                                      {"add_generation_prompt", request.add_generation_prompt}};
  for (const auto& [role, token] : chat.special_tokens) variables[role] = token;
  for (const auto& [name, value] : request.arguments.items()) variables[name] = value;
  return parsed.render(variables, request.now);
}

namespace {

[[noreturn]] void refuse_template(const ChatTemplate& chat, const jinja::TemplateError& error) {
  fail("{}, line {}: {}", chat.where, error.line, printable(error.what(), 400));
}

jinja::Template parse(const ChatTemplate& chat) {
  try {
    return jinja::Template(chat.source);
  } catch (const jinja::TemplateError& error) {
    refuse_template(chat, error);
  }
}

}  // namespace

std::string chat_prompt(const ChatTemplate& chat, const ChatRequest& request) {
  try {
    return render_chat(parse(chat), chat, request);
  } catch (const jinja::TemplateError& error) {
    refuse_template(chat, error);
  }
}

ChatRenderer::ChatRenderer(ChatTemplate chat, nlohmann::ordered_json arguments)
    : chat_(std::move(chat)),
      arguments_(std::move(arguments)),
      now_(local_time_now()),
      parsed_(parse(chat_)) {}

std::string ChatRenderer::operator()(const nlohmann::ordered_json& messages, bool add_generation_prompt) {
  ChatRequest request{.messages = messages,
                      .add_generation_prompt = add_generation_prompt,
                      .arguments = arguments_,
                      .now = now_};
  try {
    return render_chat(parsed_, chat_, request);
  } catch (const jinja::TemplateError& error) {
    request.messages = nlohmann::ordered_json::array();
    std::ranges::copy_if(messages, std::back_inserter(request.messages),
                         [](const nlohmann::ordered_json& message) { return message["role"] != "system"; });
    if (request.messages.size() == messages.size()) refuse_template(chat_, error);
  }
  try {
    std::string prompt = render_chat(parsed_, chat_, request);
    dropped_system_ = true;
    return prompt;
  } catch (const jinja::TemplateError& error) {
    refuse_template(chat_, error);
  }
}

std::tm local_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm out{};
  localtime_r(&now, &out);
  return out;
}

std::vector<int32_t> answer_ends(const fs::path& model) {
  std::vector<int32_t> out;
  const auto add = [&](int64_t id) {
    if (id >= 0 && id <= INT32_MAX) out.push_back(static_cast<int32_t>(id));
  };
  if (!fs::is_directory(model)) {
    if (is_gguf(model)) {
      const model::GgufFile gguf(model);
      for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
        add(gguf.integer_or(key, -1));
      }
    }
    return out;
  }
  fs::path file = model / "generation_config.json";
  if (!fs::exists(file)) file = model / "config.json";  // from which transformers makes the other
  if (!fs::exists(file)) return out;
  const nlohmann::json json = parse_strict_json(read_file(file), file.string());
  const JsonObject config(json, file.string());
  const nlohmann::json* ends = config.find("eos_token_id");
  if (ends == nullptr) return out;
  const nlohmann::json list = ends->is_array() ? *ends : nlohmann::json::array({*ends});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer()) config.refuse("eos_token_id", "a token id or a list of them");
    add(id.get<int64_t>());
  }
  return out;
}

}  // namespace qeval::eval
