#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "cli/command.h"
#include "eval/engine/session.h"
#include "eval/requests.h"

namespace qeval::cli {

/// How weights are read where their file does not say it.
void add_weight_options(po::options_description& options);
/// The model of --model, read as add_weight_options says.
model::Model load_model(const po::variables_map& arguments);
/// Arithmetic, and the files that quantize. `several`: a list of arithmetics is accepted.
void add_arithmetic_options(po::options_description& options, bool several = false);
/// How requests become batches of tokens: longest input, batch, protocol, prefix token.
void add_encoding_options(po::options_description& options);
/// The options of commands that score: both.
void add_scoring_options(po::options_description& options, bool several = false);
void add_protocol_option(po::options_description& options);

/// The arithmetics asked for, of which --kv-type makes "ggml" "ggml-TYPE"; one empty name where none was.
std::vector<std::string> arithmetics(const po::variables_map& arguments);
/// With the first of arithmetics().
eval::SessionOptions session_options(const po::variables_map& arguments);
/// Refuses --precision auto for commands that compute single rows, which it does not measure.
void refuse_measured_precision(const po::variables_map& arguments);
/// Says on stderr that a model which asks for rounded activations is taken as its weights alone; `but` ends
/// the sentence.
void warn_of_own_rounding(const model::Model& model, std::string_view but = "");
/// What is to be known of the session's model, on stderr.
void print_warnings(const eval::Session& session);
int64_t batch_tokens(const po::variables_map& arguments);
eval::Protocol protocol(const po::variables_map& arguments);
eval::PrefixToken prefix_token(const po::variables_map& arguments);
std::optional<eval::AddBos> add_bos_token(const po::variables_map& arguments);
/// Prints what is odd about a tokenizer's files on stderr.
void print_warnings(const model::Tokenizer& tokenizer);
std::unique_ptr<eval::RequestEncoder> make_encoder(eval::Session& session,
                                                   const po::variables_map& arguments);

}  // namespace qeval::cli
