#include "base/setting.h"

#include <algorithm>

namespace qeval {
namespace {

bool& as_options() {
  static bool value = false;
  return value;
}

}  // namespace

std::string setting(std::string_view name) {
  if (as_options()) return "--" + std::string(name);
  std::string plain(name);
  std::ranges::replace(plain, '-', '_');
  return plain;
}

void spell_settings_as_options() {
  as_options() = true;
}

}  // namespace qeval
