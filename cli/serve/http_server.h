#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace qeval::cli::serve {

struct HttpRequest {
  std::string method, path;
  std::string body;
};
struct HttpResponse {
  int status = 200;
  std::string body;  ///< JSON
};

/// Bounds on what a client can take up.
struct HttpLimits {
  size_t body_bytes = size_t{4} << 20;  ///< of a request's body, decompressed
  int64_t client_seconds = 30;          ///< to send a whole request, and again to take the answer
  int64_t connections = 256;            ///< at once; further ones are answered 503
};

/// An HTTP/1.1 server for JSON: one request per connection, a thread for each. HTTP itself is cpp-httplib's;
/// the sockets are this class's own, since it bounds the time and the bytes of a whole request, not of single
/// reads.
class HttpServer {
 public:
  /// Called from many threads at once. `cancelled` says that the client has gone or the server is ending.
  /// Exceptions become answers: Error 400, bad_alloc 503, others 500.
  using Handler = std::function<HttpResponse(const HttpRequest&, const std::function<bool()>& cancelled)>;
  /// Whether there is such a path, and with this method: 200, 404 or 405. Asked before a body is read.
  using Lookup = std::function<int(const std::string& method, const std::string& path)>;

  /// Binds and listens; port 0 takes a free one. Throws Error naming host, port and the system's reason.
  HttpServer(const std::string& host, int port, const HttpLimits& limits, Lookup lookup, Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// "127.0.0.1:8000", or "[::1]:8000".
  const std::string& address() const;
  bool is_loopback() const;

  /// Accepts connections until stop(), then waits for those that are open: the ones that send are dropped,
  /// the others get their answer.
  void run();
  /// From any thread.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qeval::cli::serve
