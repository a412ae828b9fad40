// The server, as clients of every kind see it: well-behaved, wrong, slow, many, and gone.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve_fixture.h"

namespace qeval::test {
namespace {

using testing::HasSubstr;

/// What lm-evaluation-harness reads from an echo: the same numbers as `qeval score`.
TEST_F(ServeCli, EchoedLogProbabilitiesAreThoseOfScoring) {
  const auto server = serve();
  const Reply reply = server->complete(hello());
  ASSERT_EQ(reply.status, 200);
  const json& choice = reply.body["choices"][0];
  const json& logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["token_logprobs"].size(), 6U);  // five of the prompt, one new
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["tokens"][1], "e");
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 2, 3, 4, 5}));
  EXPECT_THAT(choice["text"].get<std::string>(), testing::StartsWith("Hello"));

  const json request{{"id", 1}, {"context_ids", {'H'}}, {"continuation_ids", {'e', 'l', 'l', 'o'}}};
  const json scored = json::parse(run({"score", "-m", path("model")}, request.dump() + "\n").output);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(logprobs["token_logprobs"][i + 1], scored["token_logprobs"][i]);
    // Arg-max or not, by comparing with the likeliest.
    double most = -1e30;
    for (const auto& [text, value] : logprobs["top_logprobs"][i + 1].items())
      most = std::max(most, value.get<double>());
    const bool greedy = most == logprobs["token_logprobs"][i + 1].get<double>();
    EXPECT_EQ(greedy, scored["top1"][i] == scored["tokens"][i]);
    EXPECT_GE(most, scored["token_logprobs"][i].get<double>());
  }
}

/// Places are characters of the text that is sent: a character's bytes are all at its own.
TEST_F(ServeCli, TextOffsetsCountCharactersOfTheText) {
  const auto server = serve();
  json request = hello(2);
  request["prompt"] = "aé\U0001F600b";
  const json echoed = server->complete(request).body["choices"][0]["logprobs"];
  ASSERT_EQ(echoed["tokens"].size(), 10U);
  EXPECT_EQ(echoed["tokens"][1], "bytes:\\xc3");
  json offsets = echoed["text_offset"];
  offsets.erase(offsets.begin() + 8, offsets.end());  // of what is new
  EXPECT_EQ(offsets, json({0, 1, 1, 2, 2, 2, 2, 3}));
  EXPECT_EQ(echoed["text_offset"][8], 4);
  request["echo"] = false;  // the prompt is not sent back
  EXPECT_EQ(server->complete(request).body["choices"][0]["logprobs"]["text_offset"][0], 0);
}

TEST_F(ServeCli, AModelThatComputesNaNIsAnErrorOfTheServer) {
  write_damaged_model("broken", "model.embed_tokens.weight", 'o' * model::fixtures::kTinyHidden, NAN);
  const auto server = serve({}, "broken");
  for (const json& request : {hello(), json{{"prompt", "Hello"}, {"max_tokens", 2}}}) {
    const Reply reply = server->complete(request);
    EXPECT_EQ(reply.status, 500) << reply.body;
    EXPECT_THAT(reply.body["error"]["message"].get<std::string>(),
                HasSubstr("the first value that is not finite is in the output of model.embed_tokens, at "
                          "token 4 of the input (id 111)"));
  }
  // Texts without the token that does it are answered all the same.
  EXPECT_EQ(server->complete({{"prompt", "Help"}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 1}}).status,
            200);
}

TEST_F(ServeCli, GenerationIsThatOfGenerate) {
  const auto server = serve();
  json request = hello(6);
  request["echo"] = false;
  const Reply reply = server->complete(request);
  ASSERT_EQ(reply.status, 200);
  const Outcome generated =
      run({"generate", "-m", path("model"), "-n", "6", "--ignore-eos", "-p", "Hello", "--ids"});
  const std::vector<int> ids = json::parse(generated.output);
  EXPECT_EQ(reply.body["usage"]["completion_tokens"], 6);
  EXPECT_EQ(reply.body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply.body["choices"][0]["logprobs"]["tokens"].size(), ids.size());
  // The next token after an echo is the first of the generated ones, with the same probability.
  const json echo = server->complete(hello(1)).body["choices"][0]["logprobs"];
  const json plain = reply.body["choices"][0]["logprobs"];
  EXPECT_EQ(echo["tokens"][5], plain["tokens"][0]);
  EXPECT_NEAR(echo["token_logprobs"][5].get<double>(), plain["token_logprobs"][0].get<double>(), 1e-5);
  // Byte tokens: a text ends before the stop that it holds.
  const std::string text = reply.body["choices"][0]["text"];
  if (ids[0] < 128) {
    request["stop"] = std::string(1, static_cast<char>(ids[0]));
    const Reply stopped = server->complete(request);
    EXPECT_EQ(stopped.body["choices"][0]["text"], "");
    EXPECT_EQ(stopped.body["choices"][0]["finish_reason"], "stop");
  }
}

TEST_F(ServeCli, PromptsComeAsTextsAndAsIds) {
  const auto server = serve();
  json request = hello();
  const json expected = server->complete(request).body["choices"][0]["logprobs"];
  for (const json& prompt : {json({"Hello"}), json({'H', 'e', 'l', 'l', 'o'}),
                             json::array({json({'H', 'e', 'l', 'l', 'o'})}), json({"Hello", "Help"})}) {
    request["prompt"] = prompt;
    const Reply reply = server->complete(request);
    ASSERT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(reply.body["choices"][0]["logprobs"], expected) << prompt;
    EXPECT_EQ(reply.body["choices"].size(), prompt == json({"Hello", "Help"}) ? 2U : 1U);
  }
  // One token, and nothing new.
  request["prompt"] = {7};
  request["max_tokens"] = 0;
  EXPECT_EQ(server->complete(request).body["choices"][0]["logprobs"]["token_logprobs"], json({nullptr}));
}

TEST_F(ServeCli, TheTokenizerCanBeAsked) {
  const auto server = serve({"--name", "tiny"});
  EXPECT_EQ(server->ask("GET /v1/models HTTP/1.1\r\n\r\n").body["data"][0]["id"], "tiny");
  EXPECT_TRUE(server->ask("GET /tokenizer_info HTTP/1.1\r\n\r\n").body.contains("eos_token"));
  EXPECT_EQ(server->ask(post("/tokenize", R"({"prompt": "Hi", "add_special_tokens": false})")).body["tokens"],
            json({'H', 'i'}));
  EXPECT_EQ(server->ask(post("/detokenize", R"({"tokens": [72, 105]})")).body["prompt"], "Hi");
  json request = hello();
  request["model"] = "tiny";
  EXPECT_EQ(server->complete(request).status, 200);
  request["model"] = "huge";
  EXPECT_THAT(server->complete(request).body["error"]["message"].get<std::string>(), HasSubstr("tiny"));
}

TEST_F(ServeCli, WrongRequestsAreToldWhatIsWrong) {
  const auto server = serve();
  const std::vector<std::pair<json, std::string>> cases{
      {{{"prompt", "x"}, {"n", 2}}, "\"n\""},
      {{{"prompt", "x"}, {"stream", true}}, "\"stream\""},
      {{{"prompt", "x"}, {"beams", 4}}, "\"beams\""},
      {{{"prompt", "x"}, {"max_tokens", -1}}, "\"max_tokens\""},
      {{{"prompt", "x"}, {"max_tokens", 1e300}}, "\"max_tokens\""},
      {{{"prompt", "x"}, {"temperature", "hot"}}, "\"temperature\""},
      {{{"prompt", "x"}, {"temperature", -1}}, "temperature"},
      {{{"prompt", "x"}, {"logprobs", 1000}}, "\"logprobs\""},
      {{{"prompt", "x"}, {"stop", {""}}}, "\"stop\""},
      {{{"prompt", {1, kTokens}}}, "257"},
      {{{"prompt", {1, -1}}}, "-1"},
      {{{"prompt", {1, "x"}}}, "\"prompt\""},
      {{{"prompt", json::array({json::array()})}}, "token"},
      {{{"prompt", json::array()}}, "\"prompt\""},
      {{{"prompt", ""}}, "token"},
      {{{"prompt", std::string(100000, 'x')}}, "in all"},
      {{{"max_tokens", 3}}, "missing"},
      {json::array({1}), "object"}};
  for (const auto& [request, part] : cases) {
    const Reply reply = server->complete(request);
    EXPECT_EQ(reply.status, 400) << request;
    EXPECT_THAT(reply.body["error"]["message"].get<std::string>(), HasSubstr(part));
  }
  for (const std::string& body :
       {std::string("{"), std::string("\xff\xfe"), std::string(1 << 20, '['), std::string()}) {
    EXPECT_EQ(server->ask(post("/v1/completions", body)).status, 400);
  }
  EXPECT_EQ(server->ask("GET /nothing HTTP/1.1\r\n\r\n").status, 404);
  EXPECT_EQ(server->ask("GET /" + std::string(7000, 'a') + " HTTP/1.1\r\n\r\n").status, 404);
  EXPECT_EQ(server->ask("GET /v1/completions HTTP/1.1\r\n\r\n").status, 405);
  EXPECT_EQ(server->ask(post("/health", "{}")).status, 405);
  EXPECT_EQ(
      server->ask("POST /v1/completions HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n")
          .status,
      415);
  EXPECT_TRUE(server->healthy());
}

/// What is not even HTTP: an answer of any kind or none, and the next client is served.
TEST_F(ServeCli, BytesThatAreNoRequestDoNoHarm) {
  const auto server = serve();
  std::string all_bytes;
  for (int i = 0; i < 256; ++i) all_bytes += static_cast<char>(i);
  for (const std::string& bytes :
       {std::string("\r\n\r\n"), std::string("GET\r\n\r\n"), std::string("GET / HTTP/9\r\n\r\n"), all_bytes,
        "GET /health HTTP/1.1\r\n" + std::string(60000, 'h') + "\r\n\r\n",
        "GET /" + std::string(60000, '/') + " HTTP/1.1\r\n\r\n",
        std::string("POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n{}"),
        std::string("POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n{}"),
        std::string("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        std::string(
            "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n"),
        "GET /health HTTP/1.1\r\nRange: bytes=" + std::string(8000, '0') + "-\r\n\r\n"}) {
    const Client client(server->port());
    client.send(bytes);
  }
  EXPECT_TRUE(server->healthy());
  EXPECT_EQ(server->complete(hello()).status, 200);
}

TEST_F(ServeCli, OversizedBodiesAreRefused) {
  const auto server = serve();
  // Announced: refused at once. Sent in chunks without an end: refused when it has become too much.
  EXPECT_EQ(server->ask("POST /v1/completions HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n{").status, 413);
  const Client endless(server->port());
  endless.send("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(0x10000, ' ') + "\r\n";
  int sent = 0;
  while (sent < 4096 && endless.send(chunk)) ++sent;
  EXPECT_LT(sent, 4096);  // 256 MiB
  EXPECT_TRUE(server->healthy());
  // So are headers without an end.
  const Client lines(server->port());
  lines.send("GET /health HTTP/1.1\r\n");
  sent = 0;
  while (sent < 100000 && lines.send("X-More: " + std::string(1000, 'x') + "\r\n")) ++sent;
  EXPECT_LT(sent, 100000);
  EXPECT_TRUE(server->healthy());
}

/// Clients that begin and never end hold nobody up, and are hung up on.
TEST_F(ServeCli, SlowClientsHoldNobodyUp) {
  const auto server = serve({"--client-seconds", "1"});
  std::vector<std::unique_ptr<Client>> slow;
  const std::string whole = post("/v1/completions", hello().dump());
  for (size_t i = 0; i < 100; ++i) {
    slow.push_back(std::make_unique<Client>(server->port()));
    slow.back()->send(whole.substr(0, i * whole.size() / 100));
  }
  EXPECT_EQ(server->complete(hello()).status, 200);
  for (const auto& client : slow) EXPECT_NE(parse_reply(client->receive()).status, 200);  // returns: hung up
  EXPECT_TRUE(server->healthy());
}

TEST_F(ServeCli, ManyClientsGetTheSameAnswers) {
  const auto server = serve();
  const json expected = server->complete(hello(4)).body["choices"];
  std::vector<json> answers(64);
  std::vector<std::thread> clients;
  for (json& answer : answers) {
    clients.emplace_back([&] { answer = server->complete(hello(4)).body["choices"]; });
  }
  for (std::thread& client : clients) client.join();
  for (const json& answer : answers) EXPECT_EQ(answer, expected);
}

/// Texts of many lengths, continued together: each is what it is alone, and a short one does not wait for a
/// long one that came before it.
TEST_F(ServeCli, TextsUnderWayAreContinuedTogether) {
  const auto server = serve();
  const auto ask = [&](int64_t tokens, const std::string& prompt) {
    json request = hello(tokens);
    request["prompt"] = prompt;
    request["echo"] = false;
    request["temperature"] = tokens % 2 == 0 ? 0.0 : 1.5;
    request["seed"] = tokens;
    return server->complete(request).body["choices"];
  };
  std::vector<json> alone, together(40);
  const auto prompt_of = [](size_t i) {
    return std::string(1 + i * 3 % 11, static_cast<char>('a' + i % 26));
  };
  for (size_t i = 0; i < together.size(); ++i)
    alone.push_back(ask(1 + static_cast<int64_t>(i % 9), prompt_of(i)));
  std::vector<std::thread> clients;
  for (size_t i = 0; i < together.size(); ++i)
    clients.emplace_back([&, i] { together[i] = ask(1 + static_cast<int64_t>(i % 9), prompt_of(i)); });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(together, alone);
  // All prompts of one request, too.
  json many = hello(5);
  const json single = server->complete(many).body["choices"][0]["text"];
  many["prompt"] = json(50, many["prompt"]);
  for (const json& answer : server->complete(many).body["choices"]) EXPECT_EQ(answer["text"], single);
}

TEST_F(ServeCli, ConversationsGoThroughTheChatTemplate) {
  const auto before = serve();
  const auto chat = [](const Server& server, const json& request) {
    return server.ask(post("/v1/chat/completions", request.dump()));
  };
  const json message{{"role", "user"}, {"content", "Hi"}};
  const json request{{"messages", {message}}, {"max_tokens", 6}, {"temperature", 0}, {"ignore_eos", true}};
  EXPECT_EQ(chat(*before, request).status, 400);  // the model has none
  write("model/chat_template.jinja",
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ mark }}{% endfor %}{% if "
        "add_generation_prompt %}"
        "[assistant]{% endif %}");
  const auto server = serve();
  json plain = request;
  plain.erase("messages");
  plain["prompt"] = "[user]Hi[assistant]";
  const Reply expected = server->complete(plain), reply = chat(*server, request);
  ASSERT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body["object"], "chat.completion");
  EXPECT_EQ(reply.body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(reply.body["choices"][0]["message"]["content"], expected.body["choices"][0]["text"]);
  EXPECT_EQ(reply.body["usage"], expected.body["usage"]);
  json other = request;
  other["chat_template_kwargs"] = {{"mark", "!"}};
  EXPECT_EQ(chat(*server, other).body["usage"]["prompt_tokens"],
            reply.body["usage"]["prompt_tokens"].get<int>() + 1);
  other["echo"] = true;
  EXPECT_EQ(chat(*server, other).status, 400);
  // Parts of a content are lines of it.
  const auto with_content = [&](const json& content) {
    json changed = request;
    changed["messages"][0]["content"] = content;
    return chat(*server, changed);
  };
  const auto part = [](const char* text) { return json{{"type", "text"}, {"text", text}}; };
  EXPECT_EQ(with_content(json::array({part("Hi")})).body["choices"], reply.body["choices"]);
  EXPECT_EQ(with_content(json::array({part("Hi"), part("there")})).body["choices"],
            with_content("Hi\nthere").body["choices"]);
  const auto refused = [](const Reply& answer, const char* what) {
    EXPECT_EQ(answer.status, 400);
    EXPECT_THAT(answer.body.dump(), HasSubstr(what));
  };
  refused(with_content(json::array({part("Hi"), {{"type", "image_url"}}})), "messages[0].content[1].type");
  refused(with_content(json::array({{{"type", "text"}}})), "messages[0].content[0].text");
  refused(with_content(nullptr), "messages[0].content");
  refused(with_content(7), "messages[0].content");
  json incomplete = request;
  incomplete["messages"].push_back({{"role", "user"}});
  refused(chat(*server, incomplete), "messages[1].content");
  incomplete["messages"][1] = {{"content", "Hi"}};
  refused(chat(*server, incomplete), "messages[1].role");
  incomplete["messages"][1] = "Hi";
  refused(chat(*server, incomplete), "messages[1]");
  for (const char* name : {"messages", "add_generation_prompt", "tools", "bos_token"}) {
    json replacing = request;
    replacing["chat_template_kwargs"] = {{name, json::array()}};
    refused(chat(*server, replacing), (std::string("chat_template_kwargs.") + name).c_str());
  }
}

/// Clients that leave while their answer is computed: the work is given up, others go on.
TEST_F(ServeCli, ClientsMayLeaveInTheMiddle) {
  const auto server = serve();
  const int64_t longest = server->ask("GET /v1/models HTTP/1.1\r\n\r\n").body["data"][0]["max_model_len"];
  json request = hello(longest - 5);
  request["prompt"] = json(200, "Hello");
  for (int i = 0; i < 20; ++i) {
    const Client client(server->port());
    client.send(post("/v1/completions", request.dump()));
  }
  EXPECT_EQ(server->complete(hello()).status, 200);
  EXPECT_EQ(server->end(SIGTERM), 0);
}

TEST_F(ServeCli, ListensOnTheLoopbackUnlessToldOtherwise) {
  {
    const auto server = serve();
    EXPECT_THAT(server->line(), HasSubstr("http://127.0.0.1:"));
    EXPECT_EQ(server->end(SIGTERM), 0);
    EXPECT_EQ(read("serve.stderr"), "");
  }
  const auto server = serve({"--host", "0.0.0.0"});
  EXPECT_THAT(server->line(), HasSubstr("http://0.0.0.0:"));
  EXPECT_THAT(read("serve.stderr"), HasSubstr("anyone who can reach it"));
  expect_one_line(run({"serve", "-m", path("model"), "--port", std::to_string(server->port())}), kFailed,
                  "cannot listen");
  expect_one_line(run({"serve", "-m", path("model"), "--port", "70000"}), kWrongUsage, "--port");
  expect_one_line(run({"serve", "-m", path("model"), "--host", "no such host"}), kFailed, "no such host");
}

TEST_F(ServeCli, SignalsEndItCleanlyWhateverIsUnderWay) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const auto server = serve();
    const Client idle(server->port()), half(server->port()), busy(server->port());
    half.send("POST /v1/completions HTTP/1.1\r\nContent-Le");
    const int64_t longest = server->ask("GET /v1/models HTTP/1.1\r\n\r\n").body["data"][0]["max_model_len"];
    json request = hello(longest - 5);
    request["prompt"] = json(2000, "Hello");
    busy.send(post("/v1/completions", request.dump()));
    EXPECT_TRUE(server->healthy());
    EXPECT_EQ(server->end(signal), 0);
    idle.receive();  // returns: nothing is left open
    half.receive();
    const Reply reply = parse_reply(busy.receive());
    EXPECT_TRUE(reply.status == 503 || reply.status == 0) << reply.status;
  }
}

}  // namespace
}  // namespace qeval::test
