#include "base/parallel.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#ifdef QEVAL_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace qeval::detail {
namespace {

using Range = tbb::blocked_range<int64_t>;

/// Tells ThreadSanitizer the order that a loop gives: what was before it happens before every piece, every
/// piece before what comes after. It says nothing of pieces among each other. Needed because oneTBB is not
/// built with the sanitizer, which therefore sees none of its synchronisation; this file is compiled without
/// it too (CMakeLists.txt), or oneTBB's templates would be taken for racing with its library.
#ifdef QEVAL_THREAD_SANITIZER
class LoopOrder {
 public:
  class Piece {
   public:
    explicit Piece(LoopOrder& loop) : loop_(loop) { __tsan_acquire(&loop_.begin_); }
    ~Piece() { __tsan_release(&loop_.end_); }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;

   private:
    LoopOrder& loop_;
  };

  LoopOrder() { __tsan_release(&begin_); }
  ~LoopOrder() { __tsan_acquire(&end_); }
  LoopOrder(const LoopOrder&) = delete;
  LoopOrder& operator=(const LoopOrder&) = delete;

 private:
  char begin_ = 0, end_ = 0;  // only their addresses matter
};
#else
struct LoopOrder {
  struct Piece {
    explicit Piece(LoopOrder& /*loop*/) {}
  };
};
#endif

template <typename Partitioner>
void run(const Range& all, RangeBody call, const void* body, const Partitioner& partitioner) {
  LoopOrder order;
  tbb::this_task_arena::isolate([&] {
    tbb::parallel_for(
        all,
        [&](const Range& range) {
          [[maybe_unused]] const LoopOrder::Piece piece(order);
          call(body, range.begin(), range.end());
        },
        partitioner);
  });
}

}  // namespace

void run_ranges(int64_t count, int64_t grain, RangeBody call, const void* body) {
  if (count <= grain) {  // one piece: a task would cost more than many a row
    if (count > 0) call(body, 0, count);
    return;
  }
  run(Range(0, count, static_cast<size_t>(grain)), call, body, tbb::auto_partitioner());
}

void run_tasks(int64_t count, RangeBody call, const void* body) {
  run(Range(0, count, 1), call, body, tbb::simple_partitioner());
}

}  // namespace qeval::detail
