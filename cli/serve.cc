#include <csignal>
#include <iostream>
#include <thread>

#include <nlohmann/json.hpp>
#include <pthread.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "cli/serve/completions.h"
#include "cli/serve/http_server.h"

namespace qeval::cli {
namespace {

using serve::HttpRequest;
using serve::HttpResponse;

po::options_description serve_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_arithmetic_options(options);
  auto add = options.add_options();
  add("host", po::value<std::string>()->value_name("HOST")->default_value("127.0.0.1"),
      "address to listen on; with another than the loopback address, anyone who can reach it can use the "
      "server: there is no authentication");
  add("port", po::value<int>()->value_name("N")->default_value(8000), "port to listen on; 0: any free port");
  add("name", po::value<std::string>()->value_name("NAME"),
      "what the model is called in requests (default: the last part of its path)");
  add("max-length", po::value<int64_t>()->value_name("N"),
      "longest text in tokens, prompt and answer (default: 2048, or the model's context if shorter)");
  add("batch-tokens", po::value<int64_t>()->value_name("N")->default_value(512),
      "tokens computed at once, between two checks that the client is still connected; never changes a "
      "result");
  add("client-seconds", po::value<int64_t>()->value_name("N")->default_value(30),
      "time that a client has to send a request, and to receive the answer");
  return options;
}

struct Route {
  std::string_view method, path;
  HttpResponse (*answer)(serve::Completions&, const HttpRequest&, const std::function<bool()>& cancelled);
};

HttpResponse complete(serve::Completions& completions, const HttpRequest& request,
                      const std::function<bool()>& cancelled) {
  try {
    return {200, completions.answer(completions.parse(request.body), cancelled)};
  } catch (const serve::Cancelled&) {
    return {503, R"({"error":{"message":"the server is ending","type":"server_error","code":503}})"};
  }
}

HttpResponse chat(serve::Completions& completions, const HttpRequest& request,
                  const std::function<bool()>& cancelled) {
  try {
    return {200, completions.answer(completions.parse_chat(request.body), cancelled)};
  } catch (const serve::Cancelled&) {
    return {503, R"({"error":{"message":"the server is ending","type":"server_error","code":503}})"};
  }
}

constexpr Route kRoutes[] = {
    {"POST", "/v1/completions", complete},
    {"POST", "/v1/chat/completions", chat},
    {"GET", "/v1/models",
     [](auto& c, auto&, auto&) {
       return HttpResponse{200, c.models()};
     }},
    {"GET", "/health",
     [](auto&, auto&, auto&) {
       return HttpResponse{200, R"({"status":"ok"})"};
     }},
    {"POST", "/tokenize",
     [](auto& c, auto& r, auto&) {
       return HttpResponse{200, c.tokenize(r.body)};
     }},
    {"POST", "/detokenize",
     [](auto& c, auto& r, auto&) {
       return HttpResponse{200, c.detokenize(r.body)};
     }},
    {"GET", "/tokenizer_info",
     [](auto& c, auto&, auto&) {
       return HttpResponse{200, c.tokenizer_info()};
     }},
};

int look_up(const std::string& method, const std::string& path) {
  int status = 404;
  for (const Route& route : kRoutes) {
    if (route.path != path) continue;
    if (route.method == method) return 200;
    status = 405;
  }
  return status;
}

/// SIGINT and SIGTERM wait until somebody asks for them, in this thread and those that it starts.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

int run_serve(const po::variables_map& arguments) {
  const int port = in_range("port", arguments["port"].as<int>(), 0, 65535);
  const auto seconds =
      in_range<int64_t>("client-seconds", arguments["client-seconds"].as<int64_t>(), 1, 86400);
  const int64_t batch = batch_tokens(arguments);
  refuse_measured_precision(arguments);
  const eval::SessionOptions settings = session_options(arguments);

  const sigset_t signals = block_signals();
  const ThreadLimit limit(arguments);
  eval::Session session(settings);
  print_warnings(session);
  print_warnings(session.tokenizer());
  serve::Completions completions(
      session, optional<std::string>(arguments, "name").value_or(session.model().name), batch);
  serve::HttpServer server(arguments["host"].as<std::string>(), port, {.client_seconds = seconds}, look_up,
                           [&](const HttpRequest& request, const std::function<bool()>& cancelled) {
                             for (const Route& route : kRoutes) {
                               if (route.path == request.path)
                                 return route.answer(completions, request, cancelled);
                             }
                             fail("no such path");
                           });
  if (!server.is_loopback()) {
    std::cerr << fmt::format(
        "qeval: {} is not the loopback address: anyone who can reach it can use the server\n",
        server.address());
  }
  std::cout << fmt::format("{} in {} arithmetic at http://{}/v1/completions\n", completions.name(),
                           session.arithmetic().name(), server.address())
            << std::flush;
  std::thread accepting([&] { server.run(); });
  int received = 0;
  sigwait(&signals, &received);
  server.stop();
  accepting.join();
  return 0;
}

}  // namespace

const Command serve_command{
    .name = "serve",
    .summary = "Answer requests of the completions API over HTTP, for lm-evaluation-harness and others",
    .usage = "-m MODEL [--port N] [options]",
    .example = "qeval serve -m smoothed --port 8000",
    .options = serve_options,
    .run = run_serve,
};

}  // namespace qeval::cli
