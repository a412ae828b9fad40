#pragma once

#include <string>
#include <string_view>

namespace qeval {

/// `word` as a shell would read it back: as it stands where it is plain, else between single quotes; bytes
/// that are not UTF-8 (names of files may have such) as $'\xNN', which bash and zsh read.
std::string shell_quoted(std::string_view word);

}  // namespace qeval
