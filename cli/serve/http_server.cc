#include "cli/serve/http_server.h"

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/serve/connection.h"
#include "model/finite.h"

namespace qeval::cli::serve {
namespace {

constexpr size_t kHeaderBytes = 65536;  // of a request, all lines together
constexpr size_t kLongestPath = 128;
constexpr int kBacklog = 256;

std::string error_body(int status, const std::string& message) {
  const char* type = status < 500 ? "invalid_request_error" : "server_error";
  return nlohmann::json{{"error", {{"message", message}, {"type", type}, {"code", status}}}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpResponse guarded(const HttpServer::Handler& handler, const HttpRequest& request,
                     const std::function<bool()>& cancelled) {
  try {
    return handler(request, cancelled);
  } catch (const model::NotFinite& error) {  // the model's fault, not the client's
    return {500, error_body(500, error.what())};
  } catch (const Error& error) {
    return {400, error_body(400, error.what())};
  } catch (const std::bad_alloc&) {
    return {503, error_body(503, "out of memory")};
  } catch (const std::exception& error) {
    return {500, error_body(500, error.what())};
  }
}

void set(httplib::Response& response, const HttpResponse& answer) {
  response.status = answer.status;
  response.set_content(answer.body, "application/json");
}

/// httplib's parser and writer for the one request of a connection.
class Exchange : public httplib::Server {
 public:
  Exchange(Connection& connection, const HttpLimits& limits, const HttpServer::Lookup& lookup,
           const HttpServer::Handler& handler, const std::function<bool()>& cancelled)
      : connection_(connection), limits_(limits) {
    set_payload_max_length(limits.body_bytes);
    set_pre_routing_handler([&](const httplib::Request& request, httplib::Response& response) {
      const int status = request.path.size() > kLongestPath ? 404 : lookup(request.method, request.path);
      if (status != 200) {
        set(response, {status, error_body(status, status == 404 ? "no such path" : "no such method here")});
      } else if (request.is_multipart_form_data()) {
        set(response, {415, error_body(415, "a form; accepted: a JSON body")});
      } else if (request.get_header_value<uint64_t>("Content-Length") > limits_.body_bytes) {
        set_too_long(response);
      } else if (request.method == "POST") {
        connection_.allow(2 * limits_.body_bytes);  // a body in chunks has more bytes than it says
        return HandlerResponse::Unhandled;          // it comes next
      } else {
        set(response, guarded(handler, {request.method, request.path, {}}, cancelled));
      }
      return HandlerResponse::Handled;
    });
    Post(".*", [&](const httplib::Request& request, httplib::Response& response,
                   const httplib::ContentReader& read) {
      HttpRequest whole{request.method, request.path, {}};
      bool too_long = false;
      const bool complete = read([&](const char* data, size_t size) {
        too_long = size > limits_.body_bytes - whole.body.size();
        if (!too_long) whole.body.append(data, size);
        return !too_long;
      });
      if (too_long || response.status == 413) {
        set_too_long(response);
      } else if (!complete) {
        set(response, {400, error_body(400, "the body did not arrive as announced")});
      } else {
        set(response, guarded(handler, whole, cancelled));
      }
    });
  }

  void run() {
    bool closed = false;
    process_request(connection_, true, closed, [](httplib::Request& request) {
      request.ranges.clear();                    // a part of an answer, many times over
      request.headers.erase("Accept-Encoding");  // compressing costs more than the loopback
    });
  }

 private:
  void set_too_long(httplib::Response& response) const {
    set(response, {413, error_body(413, fmt::format("a body of more than {} bytes", limits_.body_bytes))});
  }

  Connection& connection_;
  const HttpLimits& limits_;
};

std::string describe_address(const sockaddr* address, socklen_t length, bool& loopback) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
  ::getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  if (address->sa_family == AF_INET6) {
    const auto* six = reinterpret_cast<const sockaddr_in6*>(address);
    loopback = IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) != 0;
    return fmt::format("[{}]:{}", host, port);
  }
  const auto* four = reinterpret_cast<const sockaddr_in*>(address);
  loopback = (ntohl(four->sin_addr.s_addr) >> 24) == 127;
  return fmt::format("{}:{}", host, port);
}

}  // namespace

struct HttpServer::State {
  HttpLimits limits;
  Lookup lookup;
  Handler handler;
  int listener = -1;
  int stop = -1;  ///< a pipe's end; readable from stop() on
  int stopper = -1;
  std::string address;
  bool loopback = false;
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable all_gone;
  int64_t open = 0;

  ~State() {
    if (listener >= 0) ::close(listener);
    if (stop >= 0) ::close(stop);
    if (stopper >= 0) ::close(stopper);
  }

  void serve(int socket) {
    Connection connection(socket, stop, std::chrono::seconds(limits.client_seconds), kHeaderBytes);
    const std::function<bool()> cancelled = [&] { return stopping || connection.closed_by_client(); };
    Exchange(connection, limits, lookup, handler, cancelled).run();
    connection.finish();
  }

  void turn_away(int socket) const {
    const std::string body =
        error_body(503, fmt::format("{} connections are open: the most", limits.connections));
    const std::string answer = fmt::format(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
        "Connection: close\r\n\r\n{}",
        body.size(), body);
    (void)::send(socket, answer.data(), answer.size(), kNoSignal | MSG_DONTWAIT);
    ::close(socket);
  }

  void accept_one() {
    const int socket = keep_to_itself(::accept(listener, nullptr, nullptr));
    if (socket < 0) {
      // Out of descriptors or memory: others will be given back. The rest are connections that have gone.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        pollfd polled{stop, POLLIN, 0};
        ::poll(&polled, 1, 10);
      }
      return;
    }
    {
      const std::scoped_lock lock(mutex);
      if (open >= limits.connections) {
        turn_away(socket);
        return;
      }
      ++open;
    }
    try {
      std::thread([this, socket] {
        try {
          serve(socket);
        } catch (...) {  // out of memory before there was an answer: the connection is closed
        }
        const std::scoped_lock lock(mutex);
        if (--open == 0) all_gone.notify_all();
      }).detach();
    } catch (const std::system_error&) {
      turn_away(socket);
      const std::scoped_lock lock(mutex);
      --open;
    }
  }
};

HttpServer::HttpServer(const std::string& host, int port, const HttpLimits& limits, Lookup lookup,
                       Handler handler)
    : state_(std::make_unique<State>()) {
  state_->limits = limits;
  state_->lookup = std::move(lookup);
  state_->handler = std::move(handler);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) fail("{}: {}", printable(host), ::gai_strerror(failure));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  std::string reason = "no address";
  for (const addrinfo* a = found; a != nullptr && state_->listener < 0; a = a->ai_next) {
    const int socket = keep_to_itself(::socket(a->ai_family, a->ai_socktype, a->ai_protocol));
    const int one = 1;
    if (socket >= 0 && ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        ::bind(socket, a->ai_addr, a->ai_addrlen) == 0 && ::listen(socket, kBacklog) == 0) {
      state_->listener = socket;
      break;
    }
    reason = std::strerror(errno);
    if (socket >= 0) ::close(socket);
  }
  if (state_->listener < 0) fail("{} port {}: cannot listen: {}", printable(host), port, reason);
  int ends[2];
  if (::pipe(ends) != 0) fail("cannot make a pipe: {}", std::strerror(errno));
  state_->stop = keep_to_itself(ends[0]);
  state_->stopper = keep_to_itself(ends[1]);
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  ::getsockname(state_->listener, reinterpret_cast<sockaddr*>(&bound), &length);
  state_->address = describe_address(reinterpret_cast<sockaddr*>(&bound), length, state_->loopback);
}

HttpServer::~HttpServer() = default;

const std::string& HttpServer::address() const {
  return state_->address;
}

bool HttpServer::is_loopback() const {
  return state_->loopback;
}

void HttpServer::run() {
  while (!state_->stopping) {
    pollfd polled[2] = {{state_->listener, POLLIN, 0}, {state_->stop, POLLIN, 0}};
    if (::poll(polled, 2, -1) < 0 && errno != EINTR) break;
    if (polled[1].revents != 0) break;
    if (polled[0].revents != 0) state_->accept_one();
  }
  ::close(std::exchange(state_->listener, -1));
  std::unique_lock lock(state_->mutex);
  state_->all_gone.wait(lock, [&] { return state_->open == 0; });
}

void HttpServer::stop() {
  state_->stopping = true;
  // A full pipe is readable, too.
  [[maybe_unused]] const ssize_t written = ::write(state_->stopper, "", 1);
}

}  // namespace qeval::cli::serve
