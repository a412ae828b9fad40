#pragma once

#include <cstdint>

#include "base/peers.h"

namespace qeval::eval {

/// This process as a rank of an MPI job. One per process, made and used by one thread.
class MpiJob {
 public:
  /// Whether mpirun or srun started this process as one of an MPI job.
  static bool was_started();

  /// Joins the job. Throws Error where it has several ranks and the program was built without QEVAL_WITH_MPI.
  MpiJob();
  /// Waits for the others.
  ~MpiJob();
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  /// `gather` waits without keeping a core busy.
  const Peers& peers() const { return peers_; }
  /// The cores that this process may use, divided between the ranks of the same machine that may use the same
  /// ones; at least 1.
  int64_t threads() const { return threads_; }
  /// Ends all ranks, wherever they are.
  [[noreturn]] void abort(int status);

 private:
  Peers peers_;
  int64_t threads_ = 1;
};

}  // namespace qeval::eval
