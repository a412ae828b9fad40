#pragma once

#include <string>
#include <string_view>

namespace qeval {

/// `word` as a shell would read it back: as it stands where it is plain, else between single quotes.
std::string shell_quoted(std::string_view word);

}  // namespace qeval
