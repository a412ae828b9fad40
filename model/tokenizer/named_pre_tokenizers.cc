// What `tokenizer.ggml.pre` of a GGUF file means: the names that llama.cpp knows, each with the patterns by
// which llama.cpp cuts text. A pattern's matches and what lies between them are the pieces for the next.
#include <array>

#include <fmt/ranges.h>

#include "base/error.h"
#include "model/tokenizer/pre_tokenizer.h"

// Pieces that patterns share.
#define CONTRACTION "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define WORD R"([^\r\n\p{L}\p{N}]?\p{L}+)"
#define SYMBOLS R"( ?[^\s\p{L}\p{N}]+[\r\n]*)"
#define SYMBOLS_OR_SLASH R"( ?[^\s\p{L}\p{N}]+[\r\n/]*)"
#define SPACES R"(\s*[\r\n]+|\s+(?!\S)|\s+)"
// llama.cpp tells upper from lower case among ASCII letters only.
#define UPPER R"((?:(?![a-z])\p{L}))"
#define LOWER R"((?:(?![A-Z])\p{L}))"
#define UPPER_OR_MARK R"((?:(?![a-z])[\p{L}\p{M}]))"
#define LOWER_OR_MARK R"((?:(?![A-Z])[\p{L}\p{M}]))"
#define NO_WORD R"([^\r\n\p{L}\p{N}]?)"
#define PUNCTUATED_WORD \
  R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"

namespace qeval::model {

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr std::string_view kGpt2 = "gpt-2";  // stands for kGpt2Pattern in the lists below
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kLlama3 = "(?:" CONTRACTION ")|" WORD R"(|\p{N}{1,3}|)" SYMBOLS "|" SPACES;
constexpr std::string_view kQwen2 = "(?:" CONTRACTION ")|" WORD R"(|\p{N}|)" SYMBOLS "|" SPACES;
constexpr std::string_view kLines = R"([^\n]+|\n+)";
constexpr std::string_view kFinnish = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr std::string_view kCjk = "[一-龥぀-ゟ゠-ヿ]+";
/// A run of digits goes by threes from its end; what lies before it goes with its first digits.
constexpr std::string_view kDigitsFromTheEnd = R"(\P{N}*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))";

constexpr std::string_view kJais2 =
    "(?:" CONTRACTION ")|" WORD R"(|\p{N}{1,3}|)" SYMBOLS R"(|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S))"
    R"(|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s)";
/// Letters of the scripts that have cases.
constexpr std::string_view kDeepseekLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C})"
    R"(\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5})"
    R"(\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B})"
    R"(\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45})"
    R"(\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4})"
    R"(\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB})"
    R"(\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115})"
    R"(\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139})"
    R"(\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB})"
    R"(\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
// White space never counts as a member of the classes below, although U+3000 lies within their ranges.
constexpr std::string_view kDeepseekPunctuation = R"(\s?(?:(?!\s)[!-/:-~！-／：-～‘-‟　-。])+)";
constexpr std::string_view kDeepseekCjk = R"((?:(?!\s)[一-龥ࠀ-一가-퟿])+)";
constexpr std::string_view kDeepseek3 = PUNCTUATED_WORD R"(| ?[\p{P}\p{S}]+[\r\n]*|)" SPACES;
constexpr std::string_view kSpark = PUNCTUATED_WORD R"(| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kYoutuScripts =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
/// The file's pattern tells cases apart; llama.cpp's categories do not.
constexpr std::string_view kYoutu =
    NO_WORD R"([\p{L}\p{M}]+(?:)" CONTRACTION R"()?|\p{N}|)" SYMBOLS_OR_SLASH "|" SPACES;
constexpr std::string_view kTinyAya =
    NO_WORD R"([\p{L}\p{M}]+(?:)" CONTRACTION R"()?|\p{N}{1,3}|)" SYMBOLS_OR_SLASH "|" SPACES;
constexpr std::string_view kTekken =
    NO_WORD UPPER "*" LOWER "+|" NO_WORD UPPER "+" LOWER R"(*|\p{N}|)" SYMBOLS_OR_SLASH "|" SPACES;
constexpr std::string_view kGpt4o =
    NO_WORD UPPER "*" LOWER "+(?:" CONTRACTION ")?|" NO_WORD UPPER "+" LOWER "*(?:" CONTRACTION
                  R"()?|\p{N}{1,3}|)" SYMBOLS_OR_SLASH "|" SPACES;
constexpr std::string_view kGraniteMulti =
    NO_WORD UPPER_OR_MARK "*" LOWER_OR_MARK "+(?:" CONTRACTION ")?|" NO_WORD UPPER_OR_MARK "+" LOWER_OR_MARK
                          "*(?:" CONTRACTION R"()?|\p{N}{1,3}|)" SYMBOLS_OR_SLASH "|" SPACES;
constexpr std::string_view kQwen35 = "(?:" CONTRACTION R"()|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
                                     R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" SPACES;
#define HAN \
  R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}])"
constexpr std::string_view kKimi =
    HAN "+|" NO_WORD "(?:(?!" HAN R"()\p{L})+(?:)" CONTRACTION R"()?|\p{N}{1,3}|)" SYMBOLS "|" SPACES;
/// Before every three digits that are followed by nothing but threes of digits.
constexpr std::string_view kSuperBpe = R"([\s\S]+?(?=(?:[0-9]{3})+(?![0-9])))";
constexpr std::string_view kBailing =
    "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|" WORD R"(|\p{N}|)" SYMBOLS R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeed = "(?:" CONTRACTION ")|" WORD R"(|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)" SPACES;
constexpr std::string_view kUfakzeka = WORD R"(|\p{N}|)" SYMBOLS "|" SPACES;
constexpr std::string_view kAfmoeScripts =
    "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-"
    "ᇿ]"
    "+";
constexpr std::string_view kExaoneMoe =
    "(?:" CONTRACTION R"()|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kMiniCpm5 = "(?:" CONTRACTION ")|" WORD R"(|\p{N}+|)" SYMBOLS "|" SPACES;

enum Option : unsigned {
  kNone = 0,
  kIgnoreMerges = 1,
  kAddsBos = 2,  // unless the file says otherwise
  kMarksSpaces = 4,
  kRawText = 8,
  kAlwaysAddsBos = 16
};

struct Family {
  std::vector<std::string_view> names;
  std::vector<std::string_view> patterns;
  unsigned options = kNone;
};

const std::vector<Family>& families() {
  static const std::vector<Family> kFamilies = {
      {{"default"}, {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", kThreeDigits}},
      {{"gpt-2",   "phi-2",  "jina-es",     "jina-de",    "gigachat",        "jina-v2-es",  "jina-v2-de",
        "a.x-4.0", "mellum", "modern-bert", "jina-v1-en", "jina-v2-code",    "roberta-bpe", "exaone4",
        "mpt",     "olmo",   "jais",        "trillion",   "granite-docling", "gpt-neox"},
       {kGpt2}},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
       {kDigit, kGpt2}},
      {{"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano"},
       {kLlama3},
       kIgnoreMerges | kAddsBos},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {kLlama3}},
      {{"glm4", "glm5"}, {kLlama3}, kIgnoreMerges},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open",
        "grok-2"},
       {kQwen2}},
      {{"qwen35"}, {kQwen35}},
      {{"minicpm5"}, {R"(\p{N}{1,3})", kMiniCpm5}, kIgnoreMerges},
      {{"jais-2"}, {kJais2}},
      {{"deepseek-llm"},
       {R"([\r\n])", kDeepseekLetters, kDeepseekPunctuation, R"(\s+\z)", kDeepseekCjk, R"(\p{N}+)"}},
      {{"deepseek-coder"}, {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepseekCjk, kDigit}},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, {R"(\p{N}{1,3})", kCjk, kDeepseek3}},
      {{"spark2_5"}, {R"(\p{N}{1,3})", kCjk, kSpark, kDigit}},
      {{"youtu"}, {kYoutuScripts, kYoutu}, kIgnoreMerges},
      {{"falcon"}, {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2, kThreeDigits}},
      {{"poro-chat", "bloom", "gpt3-finnish"}, {kFinnish}},
      {{"viking"}, {kFinnish, kDigit}},
      {{"tekken"}, {kTekken}, kIgnoreMerges | kAddsBos},
      {{"chameleon"},
       {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", R"([\t\n]|    |  )", kDigit, R"([\p{P}!-/:-@\[-`{-~])",
        kGpt2},
       kAddsBos},
      {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, {kGpt4o}},
      {{"granite-embed-multi-97m"}, {kGraniteMulti}, kIgnoreMerges},
      {{"tiny_aya", "cohere2moe"}, {kDigitsFromTheEnd, kTinyAya}},
      {{"kimi-k2"}, {kKimi}},
      {{"superbpe"}, {R"(\p{N}+)", kSuperBpe}},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailing}},
      {{"seed-coder"}, {kSeed}},
      {{"ufakzeka"}, {kUfakzeka}},
      {{"afmoe"}, {kDigitsFromTheEnd, kAfmoeScripts, kDeepseek3}},
      {{"laguna"}, {kLines, kQwen2}},
      {{"exaone-moe"}, {kExaoneMoe}},
      {{"gemma4", "granite-embed-multi-311m"}, {kLines}, kMarksSpaces | kAlwaysAddsBos},
      {{"sarvam-moe"}, {kLines}, kMarksSpaces},
      {{"whitespace"}, {R"(\S+)"}, kRawText},
  };
  return kFamilies;
}

}  // namespace

NamedPreTokenizer find_named_pre_tokenizer(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Family& family : families()) {
    for (const std::string_view entry : family.names) {
      known.push_back(entry);
      if (entry != name) continue;
      NamedPreTokenizer found;
      found.ignore_merges = (family.options & kIgnoreMerges) != 0;
      found.adds_bos_by_default = (family.options & kAddsBos) != 0;
      found.marks_spaces = (family.options & kMarksSpaces) != 0;
      found.raw_text = (family.options & kRawText) != 0;
      found.always_adds_bos = (family.options & kAlwaysAddsBos) != 0;
      for (const std::string_view pattern : family.patterns) {
        found.stages.push_back({.pattern = std::string(pattern == kGpt2 ? kGpt2Pattern : pattern)});
      }
      return found;
    }
  }
  fail("pre-tokenizer '{}' is unknown; accepted are {}", printable(name), fmt::join(known, ", "));
}

}  // namespace qeval::model
