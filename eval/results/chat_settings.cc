#include "eval/results/chat_settings.h"

#include "base/hash.h"
#include "base/json_object.h"
#include "base/setting.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr const char *kInstruction = "system_instruction", *kTemplate = "chat_template",
                     *kArguments = "chat_template_args", *kMultiturn = "fewshot_as_multiturn";

void write_text(ordered_json& out, const char* key, const std::string& text) {
  out[key] = text;
  out[std::string(key) + "_sha"] = sha256_hex(text);
}

std::string read_text(const OrderedJsonObject& fields, const char* key) {
  if (!fields.has(key) || fields.at(key).is_null()) return "";
  std::string text = fields.string(key);
  const std::string hash = std::string(key) + "_sha";
  if (fields.string(hash) != sha256_hex(text))
    fields.refuse(hash, "the SHA-256 of the text that it belongs to");
  return text;
}

}  // namespace

std::map<std::string, std::string> ChatSettings::by_name() const {
  std::map<std::string, std::string> out;
  if (!system_instruction.empty()) out[kInstruction] = sha256_hex(system_instruction);
  if (chat_template.empty()) return out;
  out[kTemplate] = sha256_hex(chat_template);
  out[kMultiturn] = fewshot_as_multiturn ? "true" : "false";
  // In an order of their own: the order on the command line decides nothing.
  if (!arguments.empty()) out[kArguments] = nlohmann::json(arguments).dump();
  return out;
}

void ChatSettings::write(ordered_json& results) const {
  if (!system_instruction.empty()) write_text(results, kInstruction, system_instruction);
  if (chat_template.empty()) return;
  results[kMultiturn] = fewshot_as_multiturn;
  write_text(results, kTemplate, chat_template);
  if (!arguments.empty()) results[kArguments] = arguments;
}

ChatSettings ChatSettings::read(const ordered_json& results, const std::string& where) {
  const OrderedJsonObject fields(results, where);
  ChatSettings out;
  out.system_instruction = read_text(fields, kInstruction);
  out.chat_template = read_text(fields, kTemplate);
  if (out.chat_template.empty()) return out;
  if (!fields.at(kMultiturn).is_boolean()) fields.refuse(kMultiturn, "true or false");
  out.fewshot_as_multiturn = fields.at(kMultiturn).get<bool>();
  if (fields.has(kArguments)) out.arguments = fields.object(kArguments).value();
  return out;
}

}  // namespace qeval::eval
