#include "cli/serve/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace qeval::cli::serve {
namespace {

constexpr size_t kBuffer = 16384;
constexpr auto kLinger = std::chrono::seconds(2);
constexpr ssize_t kLingerBytes = ssize_t{64} << 20;

}  // namespace

int keep_to_itself(int descriptor) {
  if (descriptor < 0) return descriptor;
  ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) | O_NONBLOCK);
#if defined(SO_NOSIGPIPE)
  const int one = 1;
  ::setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
  return descriptor;
}

Connection::Connection(int socket, int stop, std::chrono::seconds patience, size_t most_bytes)
    : socket_(socket),
      stop_(stop),
      patience_(patience),
      read_until_(Clock::now() + patience),
      left_(most_bytes) {}

Connection::~Connection() {
  ::close(socket_);
}

bool Connection::wait(short events, Clock::time_point until, bool heed_stop) const {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd polled[2] = {{socket_, events, 0}, {stop_, POLLIN, 0}};
    const int ready = ::poll(polled, heed_stop ? 2 : 1, static_cast<int>(std::min<int64_t>(left, 1 << 30)));
    if (ready < 0 && errno == EINTR) continue;
    return ready > 0 && !(heed_stop && polled[1].revents != 0);
  }
}

bool Connection::is_readable() const {
  return at_ < buffer_.size() || wait(POLLIN, read_until_, true);
}

bool Connection::is_writable() const {
  return wait(POLLOUT, Clock::now() + patience_, false);
}

ssize_t Connection::read(char* data, size_t size) {
  if (at_ == buffer_.size()) {
    buffer_.resize(std::min(kBuffer, left_));
    at_ = 0;
    ssize_t count = -1;
    while (!buffer_.empty() && wait(POLLIN, read_until_, true)) {
      count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
      if (count >= 0 || (errno != EINTR && errno != EAGAIN)) break;
    }
    buffer_.resize(count > 0 ? static_cast<size_t>(count) : 0);
    left_ -= buffer_.size();
    if (count <= 0) return count;
  }
  const size_t taken = std::min(size, buffer_.size() - at_);
  std::memcpy(data, buffer_.data() + at_, taken);
  at_ += taken;
  return static_cast<ssize_t>(taken);
}

ssize_t Connection::write(const char* data, size_t size) {
  if (write_until_ == Clock::time_point{}) write_until_ = Clock::now() + patience_;
  size_t sent = 0;
  while (sent < size) {
    if (!wait(POLLOUT, write_until_, false)) return -1;
    const ssize_t count = ::send(socket_, data + sent, size - sent, kNoSignal | MSG_DONTWAIT);
    if (count < 0 && errno != EINTR && errno != EAGAIN) return -1;
    if (count > 0) sent += static_cast<size_t>(count);
  }
  return static_cast<ssize_t>(size);
}

// Not asked for: no handler looks at addresses.
void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}
void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

bool Connection::closed_by_client() const {
  pollfd polled{socket_, POLLRDHUP, 0};
  return ::poll(&polled, 1, 0) > 0 && (polled.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void Connection::finish() {
  ::shutdown(socket_, SHUT_WR);
  const auto until = Clock::now() + std::min<std::chrono::seconds>(kLinger, patience_);
  char sink[kBuffer];
  ssize_t total = 0;
  while (total < kLingerBytes && wait(POLLIN, until, true)) {
    const ssize_t count = ::recv(socket_, sink, sizeof sink, MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) return;
    total += std::max<ssize_t>(count, 0);
  }
}

}  // namespace qeval::cli::serve
