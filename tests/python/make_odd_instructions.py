#!/usr/bin/env python3
"""Instructions of every kind of IFEval, odd responses, and what lm-evaluation-harness says of them.
usage: make_odd_instructions.py DIR [SEED]

Writes DIR/data/ifeval/train.jsonl with the language data beside it (a model of sentences of our own or, from the folder
that PUNKT_ENGLISH names, NLTK's; langdetect's profiles) and DIR/expected.jsonl: a line per row with responses and the
four scores of each, by the harness's own functions (0.4.13). Where Python lacks the harness, nltk, langdetect or
immutabledict, prints a line that begins with "skip".
"""
import json
import os
import random
import shutil
import sys
from pathlib import Path

TARGET = Path(sys.argv[1])
DATA = TARGET / "data" / "ifeval"
MODEL = DATA / "punkt_english"
ABBREVIATIONS = "dr mr mrs e.g u.s inc vs approx jan p.m no st".split()
STARTERS = "however the it we if".split()
COLLOCATIONS = [("st", "louis"), ("##number##", "##number##"), ("j", "bach")]
CONTEXTS = {"the": 34, "bach": 4, "smith": 12, "he": 98, "it": 96, "so": 34, "we": 98, "london": 14, "they": 32, "apple": 36, "yes": 10}


def write_model():
    MODEL.mkdir(parents=True)
    given = os.environ.get("PUNKT_ENGLISH")
    if given:
        for name in ("abbrev_types.txt", "sent_starters.txt", "collocations.tab", "ortho_context.tab"):
            shutil.copy(Path(given) / name, MODEL / name)
        return
    (MODEL / "abbrev_types.txt").write_text("\n".join(ABBREVIATIONS), encoding="utf-8")
    (MODEL / "sent_starters.txt").write_text("\n".join(STARTERS), encoding="utf-8")
    (MODEL / "collocations.tab").write_text("".join(f"{a}\t{b}\n" for a, b in COLLOCATIONS), encoding="utf-8")
    (MODEL / "ortho_context.tab").write_text("".join(f"{word}\t{flags}\n" for word, flags in CONTEXTS.items()), encoding="utf-8")


write_model()
nltk_data = TARGET / "nltk_data" / "tokenizers" / "punkt_tab"
nltk_data.mkdir(parents=True)
shutil.copytree(MODEL, nltk_data / "english")
os.environ["NLTK_DATA"] = str(TARGET / "nltk_data")
try:
    import langdetect
    import langdetect.detector_factory
    from lm_eval.tasks.ifeval import instructions_registry, utils
except ImportError as missing:
    print(f"skip: the checkers of IFEval cannot be imported ({missing})")
    sys.exit(0)

PACKAGE = Path(langdetect.__file__).parent
os.makedirs(DATA / "langdetect")
shutil.copytree(PACKAGE / "profiles", DATA / "langdetect" / "profiles")
shutil.copy(PACKAGE / "utils" / "messages.properties", DATA / "langdetect" / "messages.properties")
langdetect.DetectorFactory.seed = 0
listed = os.listdir
langdetect.detector_factory.os.listdir = lambda path: sorted(listed(path))
langdetect.detector_factory.init_factory()
langdetect.detector_factory.os.listdir = listed

SENTENCES = ["Dr. Smith met Mr. J. Bach in St. Louis at 5 p.m. He left.", "It cost 3.50 dollars. The U.S. team won!", "So what? (Yes.) We go.",
             'He said "No." Then he left.', "e.g. apples, pears etc.", "No. 5 is here... and more.", "Wait... The end.", "Inc. it is. However, no.",
             "I saw J. Bach. J. Smith too.", "A b. c D. e", "The apple vs. London.", "Hello!!! \u201cFine.\u201d OK?", "3. 4. five.", "It's well-known-approx. 10 km.",
             "WE CAN'T STOP, I'M HERE. GONNA GO!", "ALL CAPS HERE", "A-B NATO U.S. X", "cannot wanna gotta", "DON'T \u2018YES\u2019 HE'LL", "N.A.S.A. IS BIG."]
FOREIGN = ["Das ist ein deutscher Satz \u00fcber das sch\u00f6ne Wetter von heute.", "C'est une phrase fran\u00e7aise qui parle du temps.",
           "\u042d\u0442\u043e \u0440\u0443\u0441\u0441\u043a\u043e\u0435 \u043f\u0440\u0435\u0434\u043b\u043e\u0436\u0435\u043d\u0438\u0435 \u043e \u043f\u043e\u0433\u043e\u0434\u0435.",
           "\u8fd9\u662f\u4e00\u4e2a\u5173\u4e8e\u5929\u6c14\u7684\u4e2d\u6587\u53e5\u5b50\u3002", "\u3053\u308c\u306f\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002",
           "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.", "Esta es una frase en espa\u00f1ol sobre el tiempo que hace hoy.", "\u092f\u0939 \u0939\u093f\u0928\u094d\u0926\u0940 \u0935\u093e\u0915\u094d\u092f \u0939\u0948\u0964",
           "\u0627\u06cc\u0646 \u06cc\u06a9 \u062c\u0645\u0644\u0647 \u0641\u0627\u0631\u0633\u06cc \u0627\u0633\u062a.", "\u0110\u00e2y la\u0300 m\u00f4\u0323t c\u00e2u ti\u1ebfng Vi\u1ec7t.",
           "Aceasta este o propozi\u021bie \u0219i \u00een rom\u00e2n\u0103.", "this is a plain english sentence about the weather of today.",
           "THIS IS A PLAIN ENGLISH SENTENCE ABOUT THE WEATHER.", "see https://example.org/x?y=1 or mail a.b@example.org now", "12345 !!! ...", "\u00df\u01c5\u2160 X"]
PIECES = ["* point one\n", "- dash\n", "** bold **", "*hi*", "**there**", "* *", "\n\n", "\n", "***", "\n***\n", "******", " ****** ", "[address]", "[a\nb]",
          "[]", "<<Title>>", "<< >>", "<<<x>>>", "P.S. hello", "p.p.s. x", "P. S. y", "PS z", "Section 1", "SECTION 2 ", "Section3", "My answer is yes.",
          "My answer is maybe.", '"', "'", ",", "!", "```json\n", "```", '{"a": 1}', "[1, 2, NaN]", '{"a": "\\ud800"}', "[1,]", "01", "1e999", "-Infinity", '"\t"',
          "Is there anything else I can help with?", "any other questions?", " ", "  ", "\u00a0", "\u2003", "x", "Word", "\u0130i", "stra\u00dfe", "kitchen", "KITCHEN", "app"]
PROMPT = "Write a poem about rain."


def response(draw, hints):
    pools = (PIECES, PIECES, SENTENCES, FOREIGN, hints)
    return "".join(draw.choice(draw.choice(pools)) + draw.choice(("", " ", "\n")) for _ in range(draw.randint(0, 6)))


def bound(draw, threshold, relation, most):
    return {threshold: draw.randint(1, most), relation: draw.choice(("less than", "at least"))}


KINDS = {
    "keywords:existence": lambda d: {"keywords": d.sample(["kitchen", "x", "app", "yes", "stra\u00dfe", "a.b"], 2)},
    "keywords:frequency": lambda d: {"keyword": d.choice((" app ", "x", "the")), **bound(d, "frequency", "relation", 3)},
    "keywords:forbidden_words": lambda d: {"forbidden_words": d.sample(["kitchen", "x", "app", "word"], 2)},
    "keywords:letter_frequency": lambda d: {"letter": d.choice("aXeI"), **bound(d, "let_frequency", "let_relation", 8)},
    "language:response_language": lambda d: {"language": d.choice(("de", "fr", "ru", "ja", "ko", "es", "hi", "fa", "vi", "it", "en"))},
    "length_constraints:number_sentences": lambda d: bound(d, "num_sentences", "relation", 6),
    "length_constraints:number_paragraphs": lambda d: {"num_paragraphs": d.randint(1, 3)},
    "length_constraints:number_words": lambda d: bound(d, "num_words", "relation", 20),
    "length_constraints:nth_paragraph_first_word": lambda d: {"num_paragraphs": 2, "nth_paragraph": d.randint(1, 2), "first_word": d.choice(("Word", "x", "it", "he"))},
    "detectable_content:number_placeholders": lambda d: {"num_placeholders": d.randint(1, 3)},
    "detectable_content:postscript": lambda d: {"postscript_marker": d.choice(("P.S.", "P.P.S", "PS "))},
    "detectable_format:number_bullet_lists": lambda d: {"num_bullets": d.randint(1, 3)},
    "detectable_format:constrained_response": lambda d: {},
    "detectable_format:number_highlighted_sections": lambda d: {"num_highlights": d.randint(1, 3)},
    "detectable_format:multiple_sections": lambda d: {"section_spliter": d.choice(("Section", "SECTION ", "(Section|x)")), "num_sections": d.randint(1, 3)},
    "detectable_format:json_format": lambda d: {},
    "detectable_format:title": lambda d: {},
    "combination:two_responses": lambda d: {},
    "combination:repeat_prompt": lambda d: {"prompt_to_repeat": d.choice((PROMPT, " WRITE a poem"))},
    "startend:end_checker": lambda d: {"end_phrase": d.choice((" Any other questions? ", "x", "help with?"))},
    "change_case:capital_word_frequency": lambda d: bound(d, "capital_frequency", "capital_relation", 5),
    "change_case:english_capital": lambda d: {},
    "change_case:english_lowercase": lambda d: {},
    "punctuation:no_comma": lambda d: {},
    "startend:quotation": lambda d: {},
}
def paragraphs(draw, count, joint, words=("it is", "Word.", "'\"x\" y", "he, too")):
    return joint.join(draw.choice(words) for _ in range(count))


# Responses that may well follow the instruction.
AIMED = {
    "language:response_language": lambda d, k: FOREIGN["de fr ru zh-cn ja ko es hi fa vi ro en".split().index(k["language"].replace("it", "ro"))],
    "length_constraints:number_paragraphs": lambda d, k: paragraphs(d, k["num_paragraphs"], d.choice(("\n***\n", " *** ", "***"))),
    "length_constraints:nth_paragraph_first_word": lambda d, k: paragraphs(d, 2, "\n\n", ("it is", "Word. x", "'\"x\" y", "he, too", "IT'S")),
    "detectable_content:number_placeholders": lambda d, k: "[a] b " * d.randint(1, 3),
    "detectable_format:number_bullet_lists": lambda d, k: d.choice(("* a\n", "- b\n", "  * c\n")) * d.randint(1, 3),
    "detectable_format:constrained_response": lambda d, k: d.choice(("My answer is yes.", " so: My answer is no.")),
    "detectable_format:number_highlighted_sections": lambda d, k: d.choice(("*a b* ", "**c** ", "** ** ")) * d.randint(1, 3),
    "detectable_format:multiple_sections": lambda d, k: "".join(f"{k['section_spliter'].strip()} {i}\nx\n" for i in range(d.randint(1, 4))),
    "detectable_format:json_format": lambda d, k: d.choice(("```json\n%s\n```", "%s", "```%s```", "```JSON%s")) % d.choice(
        ('{"a": [1, 2.5e3, null]}', "[true, false, NaN]", '"x"', "12", '{"a": "\\ud800 \\n"}', "[1,]", "01", "-", '{"a" 1}', "1e999", "[[[]]]", "{}", "", "-0.0", "1.", '"\t"')),
    "detectable_format:title": lambda d, k: d.choice(("<<Poem>>", "<<a>> <<b>>", "<< >>", "<<\nx>>")) + " text",
    "combination:two_responses": lambda d, k: d.choice(("a******b", "******a******b******", "a******a", "a******b******c", "a ****** ****** b")),
    "combination:repeat_prompt": lambda d, k: d.choice((PROMPT, PROMPT.lower(), " " + PROMPT.upper())) + " Rain.",
    "startend:end_checker": lambda d, k: "So. " + k["end_phrase"].strip() + d.choice(("", '"', " \n", "!")),
    "change_case:english_capital": lambda d, k: d.choice(FOREIGN).upper() + d.choice(("", " AND MORE ENGLISH WORDS OF RAIN", "x")),
    "change_case:english_lowercase": lambda d, k: d.choice(FOREIGN).lower() + d.choice(("", " and more english words of rain", "X")),
    "change_case:capital_word_frequency": lambda d, k: " ".join(d.choice(SENTENCES) for _ in range(3)),
    "length_constraints:number_sentences": lambda d, k: d.choice((" ", "\n", "\n\n")).join(d.choice(SENTENCES) for _ in range(d.randint(1, 5))),
    "startend:quotation": lambda d, k: d.choice(('"quoted"', ' "q" ', '"', '""', "\u201cx\u201d")),
}
NAMES = sorted({key for kind in KINDS.values() for key in kind(random.Random(1))})
ROWS, RESPONSES = 10, 16


def main():
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
    if set(KINDS) != set(instructions_registry.INSTRUCTION_DICT):
        sys.exit("the harness has other kinds: " + ", ".join(set(KINDS) ^ set(instructions_registry.INSTRUCTION_DICT)))
    rows = []
    for kind, arguments in KINDS.items():
        for _ in range(ROWS):
            kinds = [kind] + draw.sample(sorted(KINDS), draw.choice((0, 0, 1, 2)))
            # As the hub has them: every argument of every kind, most of them null.
            kwargs = [{**{name: None for name in NAMES}, **KINDS[one](draw)} for one in kinds]
            rows.append({"key": len(rows), "prompt": PROMPT, "instruction_id_list": kinds, "kwargs": kwargs})
    with open(DATA / "train.jsonl", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    with open(TARGET / "expected.jsonl", "w", encoding="utf-8") as out:
        for number, row in enumerate(rows):
            hints = [str(value) for kwargs in row["kwargs"] for value in kwargs.values() if value] + [PROMPT]
            answers = []
            for _ in range(RESPONSES):
                text = response(draw, hints)
                kind = row["instruction_id_list"][0]
                if kind in AIMED and draw.random() < 0.5:
                    text = AIMED[kind](draw, row["kwargs"][0])
                    text = draw.choice(("", "", "Sure!\n", "*")) + text + draw.choice(("", "", "\nBye.", "*"))
                found = utils.process_results(row, [text])
                share = {name: sum(value) / len(value) if isinstance(value, list) else float(value) for name, value in found.items()}
                answers.append({"text": text, "filtered": {"none": text}, "values": share})
            out.write(json.dumps({"task": "ifeval", "doc_id": number, "answers": answers}) + "\n")


if __name__ == "__main__":
    main()
