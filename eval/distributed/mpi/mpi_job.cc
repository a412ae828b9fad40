#include "eval/distributed/mpi/mpi_job.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include <sched.h>
#include <unistd.h>

#include "base/error.h"
#ifdef QEVAL_WITH_MPI
#include <chrono>
#include <climits>
#include <thread>

#include <mpi.h>
#endif

namespace qeval::eval {
namespace {

/// The machine's name and the cores that this process may use, a character each.
std::string machine_and_cores() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  std::string cores;
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) cores += CPU_ISSET(core, &allowed) ? '1' : '0';
  }
#endif
  return std::string(host) + '\n' + cores;
}

/// Ranks bound to cores of their own keep them; those with the same cores divide them, the first get what is
/// left over.
int64_t divide_cores(const Peers& peers) {
  const std::string mine = machine_and_cores();
  int64_t sharing = 1, before = 0;  // with this rank itself
  const std::vector<std::string> all = gather(peers, mine);
  for (int64_t rank = 0; rank < std::ssize(all); ++rank) {
    if (rank == peers.rank || all[static_cast<size_t>(rank)] != mine) continue;
    ++sharing;
    before += rank < peers.rank ? 1 : 0;
  }
  const int64_t cores = std::ranges::count(mine.substr(mine.find('\n')), '1');
  return std::max<int64_t>(1, cores / sharing + (before < cores % sharing));
}

}  // namespace

bool MpiJob::was_started() {
  // Open MPI's mpirun, and the interfaces by which srun and other launchers introduce themselves.
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMIX_RANK") != nullptr ||
         std::getenv("PMI_RANK") != nullptr;
}

#ifdef QEVAL_WITH_MPI
namespace {

/// MPI's own waiting keeps a core busy that another rank may need.
void wait(MPI_Request request) {
  constexpr std::chrono::microseconds kFirst{10}, kMost{1000};
  std::chrono::microseconds pause = kFirst;
  while (true) {
    int done = 0;
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done != 0) return;
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kMost);
  }
}

std::vector<std::string> gather_by_mpi(int64_t ranks, std::string_view mine) {
  const auto count = static_cast<size_t>(ranks);
  const auto size = static_cast<int64_t>(mine.size());
  std::vector<int64_t> sizes(count);
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgather(&size, 1, MPI_INT64_T, sizes.data(), 1, MPI_INT64_T, MPI_COMM_WORLD, &request);
  wait(request);
  std::vector<std::string> all(count);
  // MPI counts in int, over all ranks: what is longer goes in several turns.
  const int64_t turn = INT_MAX / ranks;
  const int64_t longest = std::ranges::max(sizes);
  for (int64_t begin = 0; begin < longest; begin += turn) {
    std::vector<int> counts, places;
    int64_t total = 0;
    for (const int64_t theirs : sizes) {
      const int64_t part = std::clamp<int64_t>(theirs - begin, 0, turn);
      places.push_back(static_cast<int>(total));
      counts.push_back(static_cast<int>(part));
      total += part;
    }
    std::string received(static_cast<size_t>(total), '\0');
    const auto own = static_cast<int>(std::clamp<int64_t>(size - begin, 0, turn));
    MPI_Iallgatherv(mine.data() + std::min(begin, size), own, MPI_BYTE, received.data(), counts.data(),
                    places.data(), MPI_BYTE, MPI_COMM_WORLD, &request);
    wait(request);
    for (size_t rank = 0; rank < count; ++rank)
      all[rank].append(received, static_cast<size_t>(places[rank]), static_cast<size_t>(counts[rank]));
  }
  return all;
}

}  // namespace

MpiJob::MpiJob() {
  int provided = 0, rank = 0, size = 1;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (provided < MPI_THREAD_FUNNELED) fail("MPI: this library does not allow threads");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  peers_ = {rank, size, [size](std::string_view mine) { return gather_by_mpi(size, mine); }};
  threads_ = divide_cores(peers_);
}

MpiJob::~MpiJob() {
  MPI_Finalize();
}

void MpiJob::abort(int status) {
  MPI_Abort(MPI_COMM_WORLD, status);
  std::abort();
}
#else
MpiJob::MpiJob() {
  const char* const ranks = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (ranks != nullptr && std::string(ranks) != "1") {
    fail(
        "started as one of {} ranks, but this qeval was built without MPI; accepted: one process, or a build "
        "with -DQEVAL_WITH_MPI=ON",
        printable(ranks));
  }
  threads_ = divide_cores(peers_);
}

MpiJob::~MpiJob() = default;

void MpiJob::abort(int status) {
  std::exit(status);
}
#endif

}  // namespace qeval::eval
