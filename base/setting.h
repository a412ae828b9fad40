#pragma once

#include <string>
#include <string_view>

namespace qeval {

/// How messages spell a setting, such as "max-length": as the front end does. Without one it is a plain name,
/// "max_length"; the command line makes it an option, "--max-length".
std::string setting(std::string_view name);

/// The command line's spelling from here on. To be called before other threads start.
void spell_settings_as_options();

}  // namespace qeval
