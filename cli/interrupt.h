#pragma once

namespace qeval::cli {

/// From here on, Ctrl-C and SIGTERM only set a flag, so that work ends between two documents.
void catch_interrupts();
bool interrupted();

}  // namespace qeval::cli
