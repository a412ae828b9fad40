#pragma once

#include <csignal>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "cli_fixture.h"

namespace qeval::test {

using nlohmann::json;

/// A connection to the server.
class Client {
 public:
  explicit Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      fail("cannot connect");
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// Sends as much as the server takes; false once it has hung up.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }
  /// All that comes until the server hangs up.
  std::string receive() const {
    std::string all;
    char buffer[4096];
    ssize_t count = 0;
    while ((count = ::recv(socket_, buffer, sizeof buffer, 0)) > 0)
      all.append(buffer, static_cast<size_t>(count));
    return all;
  }

 private:
  int socket_;
};

struct Reply {
  int status = 0;
  json body;
};

inline Reply parse_reply(const std::string& text) {
  Reply reply;
  if (text.size() > 12 && text.starts_with("HTTP/1.1 ")) reply.status = std::stoi(text.substr(9, 3));
  const size_t blank = text.find("\r\n\r\n");
  if (blank != std::string::npos) reply.body = json::parse(text.substr(blank + 4), nullptr, false);
  return reply;
}

inline std::string post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers +
         "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

/// A `qeval serve` on a free port of the loopback.
class Server {
 public:
  Server(const std::string& model, const std::vector<std::string>& more, const std::string& errors) {
    std::vector<std::string> words{QEVAL_BINARY, "serve", "-m", model, "--port", "0"};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) fail("no pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    posix_spawnattr_t attributes;  // whatever this process was started with, the server hears its signals
    posix_spawnattr_init(&attributes);
    sigset_t heard;
    sigemptyset(&heard);
    sigaddset(&heard, SIGINT);
    sigaddset(&heard, SIGTERM);
    posix_spawnattr_setsigdefault(&attributes, &heard);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    const int failure = posix_spawn(&process_, QEVAL_BINARY, &actions, &attributes, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    ::close(pipe[1]);
    if (failure != 0) fail("{}: cannot be started", QEVAL_BINARY);
    char c = 0;
    while (::read(pipe[0], &c, 1) == 1 && c != '\n') line_ += c;
    ::close(pipe[0]);
    const size_t colon = line_.find_last_of(':');
    if (colon == std::string::npos) fail("the server did not start: {}", line_);
    port_ = std::stoi(line_.substr(colon + 1));
  }
  ~Server() {
    if (process_ != 0) end(SIGKILL);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const std::string& line() const { return line_; }
  int port() const { return port_; }
  Reply ask(const std::string& request) const {
    const Client client(port_);
    client.send(request);
    return parse_reply(client.receive());
  }
  Reply complete(const json& request) const { return ask(post("/v1/completions", request.dump())); }
  bool healthy() const { return ask("GET /health HTTP/1.1\r\n\r\n").status == 200; }
  /// Exit status, or 128 + the signal that ended it.
  int end(int signal) {
    ::kill(process_, signal);
    int state = 0;
    ::waitpid(std::exchange(process_, 0), &state, 0);
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  }

 private:
  std::string line_;
  int port_ = 0;
  pid_t process_ = 0;
};

class ServeCli : public Cli {
 protected:
  std::unique_ptr<Server> serve(const std::vector<std::string>& more = {},
                                const std::string& model = "model") const {
    return std::make_unique<Server>(path(model), more, path("serve.stderr"));
  }
};

inline json hello(int64_t max_tokens = 1) {
  return {{"prompt", "Hello"}, {"max_tokens", max_tokens},
          {"temperature", 0},  {"ignore_eos", true},
          {"echo", true},      {"logprobs", 1}};
}

}  // namespace qeval::test
