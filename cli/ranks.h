#pragma once

#include <cstdint>
#include <string_view>

#include "base/peers.h"

namespace qeval::cli {

/// The processes that mpirun or srun started together with this one; alone without.
const Peers& peers();

/// Joins them: at the beginning, once. Standard output and warnings are left to rank 0 from here on. Throws
/// Error where there are several but this program was built without MPI.
void join_ranks();

/// Threads that this process takes unless told: the CPU's cores, divided between the ranks that share them.
int64_t default_threads();

/// At the end: with `together`, waits for the others, who have come to their end too; else ends them all.
/// Returns `status`.
int leave_ranks(int status, bool together);

/// One line on standard error: "qeval: " with the rank, where there are several, and the message.
void complain(std::string_view message);

}  // namespace qeval::cli
