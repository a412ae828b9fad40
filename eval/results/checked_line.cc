#include "eval/results/checked_line.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "base/strict_json.h"

namespace qeval::eval {
namespace {

constexpr std::string_view checksum_key = R"(,"checksum":")";
constexpr size_t checksum_digits = 16;

std::string checksum(std::string_view text) {
  return sha256_hex(text).substr(0, checksum_digits);
}

}  // namespace

std::string checked_line(const nlohmann::ordered_json& object, std::string_view where) {
  std::string text = dump_json(object, where);
  text.pop_back();  // the closing brace, which follows the checksum
  const std::string digits = checksum(text);
  return text.append(checksum_key).append(digits).append("\"}");
}

nlohmann::ordered_json parse_checked_line(std::string_view line, std::string_view where) {
  const size_t tail = checksum_key.size() + checksum_digits + 2;
  const size_t body = line.size() < tail ? 0 : line.size() - tail;
  if (line.substr(body, checksum_key.size()) != checksum_key)
    fail("{}: the line does not end in its checksum", where);
  if (line.substr(body + checksum_key.size()) != checksum(line.substr(0, body)) + "\"}") {
    fail("{}: the line does not match its checksum: it was damaged or edited", where);
  }
  return parse_ordered_json(line, where);
}

}  // namespace qeval::eval
