#!/usr/bin/env python3
"""Makes tests/goldens/tokenizers/*-expected.jsonl: texts of our own and the ids that the libraries of the
vocabularies' makers give them, without special tokens. Needs tokenizers 0.23, transformers 5.24, regex and sentencepiece 0.2
from PyPI.

The texts are sentences in several scripts, then pieces that tokenizers divide differently, in random order (seeded):
runs of spaces and line ends beside digits, letters and signs, numerals that are no digits, marks that combine, emoji."""

import json
import random
import shutil
import tempfile
from pathlib import Path

import regex
import sentencepiece
import tokenizers
import transformers

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"

SENTENCES = """\
The ferry leaves at 7:45, unless the fog is thicker than yesterday's.
She couldn't say whether he'd come, and they'll ask; we've no answer, I'm afraid.
HE'LL SHOUT "DON'T!" BUT IT'S TOO LATE.
A list: apples (3), pears (12), plums (1,250) - and 0.75 kg of sugar...
Version 10.2.3-rc1 was tagged on 2024-02-29T23:59:60Z.
x = [i**2 for i in range(1000) if i % 7 == 3]  # squares
\tif (p != NULL && *p == '\\0') { return -1; }
https://example.org/path/to/page?query=a%20b&lang=en#part-2
user.name+tag@example.com wrote: "see §4.2, p. 17 f."
Müller fährt über Köln nach Straßburg; ça coûte 12,50 € à peu près.
Año nuevo, ¿qué tal? ¡Muy bien, señor Núñez!
Zażółć gęślą jaźń – stare zdanie z ogonkami.
Příliš žluťoučký kůň úpěl ďábelské ódy.
Đường phố Hà Nội rất đông người vào buổi sáng.
İstanbul'da ışıklar söndü, ığdır ırmağı taştı.
Сегодня утром в лесу было тихо, только дятел стучал.
Η θάλασσα είναι ήρεμη σήμερα, ο ουρανός γαλανός.
היום בבוקר ירד גשם על הגבעות.
السماء صافية اليوم والبحر هادئ.
आज सुबह नदी के किनारे बहुत ठंड थी।
今朝は川のほとりがとても寒かった。
今天早上河边很冷，没有人出门。
오늘 아침 강가는 무척 추웠다.
เช้านี้ริมแม่น้ำหนาวมาก
ამ დილით მდინარესთან ციოდა։
1 12 123 1234 12345 123456 1234567 12345678 3.14159 -42 1e-9 0x1F
½ cup, ¾ mile, x² + y³ = z¹⁰, Ⅷ. chapter, ①②③, ٣٤٥, ४५६, 五十
na\u0131ve cafe\u0301 caf\u00e9 A\u030angstro\u0308m \u212b \ufb01nal o\ufb00er
zero\u200bwidth soft\u00adhyphen no\u00a0break en\u2002space ideographic\u3000space line\u2028separator
👍 👍🏽 👨‍👩‍👧‍👦 🇩🇪🇫🇷 ☺️ ♥ → ⇒ ∀x∈ℝ: ⌈x⌉ ≥ x
<s> </s> <unk> [INST] <|user|> &amp; <br/> {{name}} ${value}
""".split("\n")[:-1]

PIECES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "a", "The", "word", "élan", "straße",
          "день", "水", "각", "ไทย", "'s", "'LL", "’t", "don't", "7", "42", "007", "1999", "31415926", "½", "²", "Ⅻ", "٣",
          "५", ".", ",", "...", "!?", "-", "--", "_", "__init__", "(", ")", "[]", "{", "}", "$", "€", "#", "\\", "/", "@",
          "=>", "+=", "&&", "\"", "“", "”", "e\u0301", "\u0301", "\u200d", "👍🏽", "🇩🇪", "\ufeff", "\U0001f9ff", "<", ">"]


def texts():
    chosen = random.Random(7)
    made = list(SENTENCES)
    made += [sentence[: 1 + chosen.randrange(len(sentence))] for sentence in SENTENCES]
    made += [f"{before}{space}{after}" for before in ("a", "9", "é", ".") for space in (" ", "  ", "   ", "\n", " \n", "\n ")
             for after in ("b", "1", "12", "½", "!")]
    made += ["".join(chosen.choices(PIECES, k=2 + chosen.randrange(12))) for _ in range(300)]
    return made


def write(name, ids_of):
    lines = [json.dumps({"text": text, "ids": ids_of(text)}, ensure_ascii=False) for text in texts()]
    (GOLDENS / "tokenizers" / f"{name}-expected.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


for published in ("smollm2", "gpt-neox"):
    tokenizer = tokenizers.Tokenizer.from_file(str(GOLDENS / "tokenizers" / f"{published}-tokenizer.json"))
    write(published, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)


# A GGUF file of SmolLM2 names llama.cpp's "smollm": every number character by itself, then GPT-2's pattern. Its
# tokenizer.json here is what transformers makes of such a file, and has the pattern alone.
GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
pieces_of_smollm2 = tokenizers.Tokenizer.from_file(str(GOLDENS / "tokenizers/smollm2-tokenizer.json"))
pieces_of_smollm2.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPECIAL = regex.compile("|".join(regex.escape(token.content) for token in
                                 pieces_of_smollm2.get_added_tokens_decoder().values()))


def llama_cpp_ids(text):
    ids = []
    for part in regex.splititer(f"({SPECIAL.pattern})", text):
        if SPECIAL.fullmatch(part):
            ids.append(pieces_of_smollm2.token_to_id(part))
            continue
        for stretch in regex.findall(r"\p{N}|\P{N}+", part):
            for piece in GPT2.findall(stretch):
                ids += pieces_of_smollm2.encode(piece, add_special_tokens=False).ids
    return ids


write("smollm2-gguf", llama_cpp_ids)
write("stories260K", sentencepiece.SentencePieceProcessor(str(GOLDENS / "models/stories260K/tokenizer.model")).encode)

# What transformers makes of a folder with that model and each of these tokenizer_config.json (null: none).
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ADDED = {"600": {"content": "[INST]", "lstrip": True}, "601": {"content": "The", "special": True},
         "602": {"content": "a  ", "normalized": True}}
CONFIGS = [None, {}, {"legacy": False}, {"added_tokens_decoder": ADDED, "additional_special_tokens": []},
           {"added_tokens_decoder": {"261": {"content": "[INST]"}, "410": {"content": "<s>"}}},
           LLAMA, {**LLAMA, "legacy": True}, {**LLAMA, "add_prefix_space": False},
           {**LLAMA, "legacy": True, "added_tokens_decoder": ADDED}, {"tokenizer_class": "GemmaTokenizer"}]
SPACES = [" Once", "  Once", " ", "  ", "\u2581a", "\u2581 a", " \u2581a", "x </s> y", "<unk>", "<s>a", "[INST] a [INST]b", "a  b a  "]

with tempfile.TemporaryDirectory() as folder, \
        open(GOLDENS / "tokenizers/stories260K-folder-expected.jsonl", "w", encoding="utf-8", newline="\n") as out:
    shutil.copy(GOLDENS / "models/stories260K/tokenizer.model", folder)
    Path(folder, "config.json").write_text('{"model_type": "llama"}')
    chosen = SPACES + texts()[::5]
    for config in CONFIGS:
        if config is not None:
            Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in chosen]
        out.write(json.dumps({"config": config, "texts": chosen, "ids": ids}, ensure_ascii=False) + "\n")
