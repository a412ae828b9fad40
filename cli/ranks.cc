#include "cli/ranks.h"

#include <cstdio>
#include <iostream>
#include <memory>
#include <streambuf>

#include <fmt/format.h>
#include <tbb/info.h>

#include "cli/interrupt.h"
#include "eval/distributed/mpi/mpi_job.h"

namespace qeval::cli {
namespace {

/// Takes everything and keeps nothing.
class Silence : public std::streambuf {
 protected:
  int overflow(int character) override { return character == EOF ? 0 : character; }
  std::streamsize xsputn(const char*, std::streamsize count) override { return count; }
};

/// The streams print nothing as long as it lives. They are flushed once more after every static object is
/// gone, so it must give them their buffers back.
class SilentStreams {
 public:
  SilentStreams() : output_(std::cout.rdbuf(&silence_)), error_(std::cerr.rdbuf(&silence_)) {}
  ~SilentStreams() {
    std::cout.rdbuf(output_);
    std::cerr.rdbuf(error_);
  }
  SilentStreams(const SilentStreams&) = delete;
  SilentStreams& operator=(const SilentStreams&) = delete;

 private:
  Silence silence_;
  std::streambuf* output_;
  std::streambuf* error_;
};

std::unique_ptr<eval::MpiJob>& job() {
  static std::unique_ptr<eval::MpiJob> joined;
  return joined;
}

}  // namespace

const Peers& peers() {
  static const Peers alone;
  return job() ? job()->peers() : alone;
}

void join_ranks() {
  if (!eval::MpiJob::was_started()) return;
  job() = std::make_unique<eval::MpiJob>();
  if (peers().is_first()) return;
  static const SilentStreams silent;
}

int64_t default_threads() {
  return job() ? job()->threads() : tbb::info::default_concurrency();
}

int leave_ranks(int status, bool together) {
  if (!together && !peers().alone()) job()->abort(status);
  job().reset();
  return status;
}

void complain(std::string_view message) {
  const Peers& ranks = peers();
  // The ranks that are told to end because another one has failed would only say that they were.
  if (interrupted() && !ranks.is_first()) return;
  const std::string who = ranks.alone() ? "" : fmt::format("rank {} of {}: ", ranks.rank, ranks.size);
  std::fputs(fmt::format("qeval: {}{}\n", who, message).c_str(), stderr);
}

}  // namespace qeval::cli
