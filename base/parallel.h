#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace qeval {

namespace detail {

/// A loop's body without its type: oneTBB is used in one place only, parallel.cc.
using RangeBody = void (*)(const void* body, int64_t first, int64_t last);

void run_ranges(int64_t count, int64_t grain, RangeBody call, const void* body);
void run_tasks(int64_t count, RangeBody call, const void* body);

}  // namespace detail

/// Calls body(first, last) on disjoint sub-ranges that cover [0, count), in parallel. The partition is not
/// fixed: a body must compute every element in a way that does not depend on the sub-range it fell into.
/// What a body throws is thrown again, once; other sub-ranges may not have been called then. A thread that
/// waits for a loop inside of a body does nothing of the outer loop meanwhile, so that what the body keeps in
/// thread_local scratch stays its own.
template <typename Body>
void parallel_ranges(int64_t count, int64_t grain, const Body& body) {
  detail::run_ranges(
      count, grain,
      [](const void* typed, int64_t first, int64_t last) { (*static_cast<const Body*>(typed))(first, last); },
      &body);
}

/// Rows per task of row-wise operations on floats: enough to outweigh its start.
inline constexpr int64_t kRowGrain = 16;

/// Calls body(row) for every row in [0, rows), in parallel, `grain` of them per task. Otherwise as above.
template <typename Body>
void for_each_row(int64_t rows, const Body& body, int64_t grain = kRowGrain) {
  parallel_ranges(rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) body(r);
  });
}

/// Calls body(i) for every i in [0, count), in parallel, one task each. Otherwise as above.
template <typename Body>
void parallel_tasks(int64_t count, const Body& body) {
  detail::run_tasks(
      count,
      [](const void* typed, int64_t first, int64_t last) {
        for (int64_t i = first; i != last; ++i) (*static_cast<const Body*>(typed))(i);
      },
      &body);
}

/// Uninitialised memory for `size()` bytes at 64-byte alignment. Growing discards the content. Empty after it
/// was moved from, and where memory for a larger size was refused (std::bad_alloc).
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) { resize(size); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    return *this;
  }

  void resize(size_t size) {
    if (size > capacity_) {
      data_.reset();  // release before asking again: the two never coexist
      size_ = capacity_ = 0;
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
