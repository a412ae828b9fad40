#pragma once

#include <string_view>

namespace qeval::reports {

/// reports/paper_tables.json as it was when the program was built.
std::string_view paper_tables_json();

}  // namespace qeval::reports
