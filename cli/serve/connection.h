#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include <httplib.h>
#include <sys/socket.h>

namespace qeval::cli::serve {

/// Flag of send(): a client that has gone is an error, no signal. Where the system has none, keep_to_itself()
/// says so of the socket.
#if defined(MSG_NOSIGNAL)
inline constexpr int kNoSignal = MSG_NOSIGNAL;
#else
inline constexpr int kNoSignal = 0;
#endif

/// The descriptor, now closed in programs that this one starts, and never waited for. Not by flags of the
/// calls that make it: not every system has those.
int keep_to_itself(int descriptor);

/// A client's socket as httplib reads and writes it, with one deadline and one byte limit for a whole
/// request, and one deadline for its answer: a client that sends a byte now and then does not live for ever.
/// Owns the socket.
class Connection final : public httplib::Stream {
 public:
  /// `stop` is a descriptor that becomes readable when the server ends: then reading fails at once. At most
  /// `most_bytes` are read, until allow() grants more.
  Connection(int socket, int stop, std::chrono::seconds patience, size_t most_bytes);
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

  void allow(size_t more_bytes) { left_ += more_bytes; }
  /// The client has closed its side.
  bool closed_by_client() const;
  /// Ends the answer: what the client still sends is read and thrown away for a moment (some
  /// seconds or megabytes), since closing a socket with unread bytes would destroy the answer on its way.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  bool wait(short events, Clock::time_point until, bool heed_stop) const;

  int socket_, stop_;
  std::chrono::seconds patience_;
  Clock::time_point read_until_;
  Clock::time_point write_until_{};  ///< set by the first write
  size_t left_;                      ///< bytes that may still be read
  std::string buffer_;
  size_t at_ = 0;
};

}  // namespace qeval::cli::serve
