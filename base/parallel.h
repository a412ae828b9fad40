#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

namespace qeval {

/// Calls body(first, last) on disjoint sub-ranges that cover [0, count), in parallel. The partition is not
/// fixed: a body must compute every element in a way that does not depend on the sub-range it fell into.
template <typename Body>
void parallel_ranges(int64_t count, int64_t grain, const Body& body) {
  tbb::parallel_for(tbb::blocked_range<int64_t>(0, count, grain),
                    [&](const tbb::blocked_range<int64_t>& range) { body(range.begin(), range.end()); });
}

/// Calls body(i) for every i in [0, count), in parallel, one task each.
template <typename Body>
void parallel_tasks(int64_t count, const Body& body) {
  tbb::parallel_for(
      tbb::blocked_range<int64_t>(0, count, 1),
      [&](const tbb::blocked_range<int64_t>& range) {
        for (int64_t i = range.begin(); i != range.end(); ++i) body(i);
      },
      tbb::simple_partitioner());
}

/// Uninitialised memory for `size()` bytes at 64-byte alignment. Growing discards the content.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) { resize(size); }

  void resize(size_t size) {
    if (size > capacity_) {
      data_.reset();  // release before asking again: the two never coexist
      data_.reset(static_cast<std::byte*>(::operator new(size, alignment)));
      capacity_ = size;
    }
    size_ = size;
  }
  size_t size() const { return size_; }
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_.get());
  }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace qeval
