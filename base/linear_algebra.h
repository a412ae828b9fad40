#pragma once

#include <Eigen/Dense>

namespace qeval {

/// Dense linear algebra in double (Cholesky, QR, triangular solves), with the same bits on every machine and
/// for any number of threads: Eigen's own threads are off, its instructions are those of the build (never of
/// the machine), and its products are cut into blocks as for the caches named here. By itself it asks the
/// processor for their sizes, and a sum would be grouped in another way on another machine.
///
/// Not for the translation units with instructions of their own (kernels_avx2.cc and the like): the linker
/// keeps one copy of a template, and it may be theirs.
inline const bool kEigenBlocks = [] {
  constexpr std::ptrdiff_t kKiB = 1024;
  Eigen::setCpuCacheSizes(32 * kKiB, 512 * kKiB, 4096 * kKiB);
  return true;
}();

/// Rows lie one behind the other, as everywhere here.
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace qeval
