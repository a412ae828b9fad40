#!/usr/bin/env python3
"""Odd rows for every task, and what lm-evaluation-harness asks of them. usage: make_odd_rows.py DIR [SEED]

Writes data files below DIR/data, with white space of every kind, letters of unusual case, brackets, empty fields, both
line ends and a byte order mark, and DIR/expected.jsonl: a line per document with the texts that the harness's own task
definitions (0.4.13) make of the row. The definitions are read from the installed package and rendered by its template
engine; what its task class does with them is repeated here, since that class needs the frameworks that models run in.
Where Python has no lm_eval, prints a line that begins with "skip" and ends with success.
"""
import ast
import functools
import importlib.util
import json
import random
import re
import sys
import types
from pathlib import Path

try:
    import lm_eval
    import yaml
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval.api.utils import Message, maybe_delimit, messages_to_text, multiturn_to_singleturn
    from lm_eval.utils import apply_template
except ImportError as missing:
    print(f"skip: lm-evaluation-harness cannot be imported ({missing})")
    sys.exit(0)

TASKS = Path(lm_eval.__file__).parent / "tasks"
# Our task: its definition, the split that is scored, and that of few-shot examples.
DEFINITIONS = {
    "wikitext": ("wikitext/wikitext.yaml", "test", None),
    "arc_easy": ("arc/arc_easy.yaml", "test", "train"),
    "arc_challenge": ("arc/arc_challenge.yaml", "test", "train"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation", "train"),
    "piqa": ("piqa/piqa.yaml", "validation", "train"),
    "winogrande": ("winogrande/default.yaml", "validation", "train"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "test", "train"),
    "boolq": ("super_glue/boolq/default.yaml", "validation", "train"),
    "sciq": ("sciq/sciq.yaml", "test", "train"),
    "tinyMMLU": ("tinyBenchmarks/tinyMMLU.yaml", "test", "dev"),
    "commonsense_qa": ("commonsense_qa/default.yaml", "validation", "train"),
    "copa": ("super_glue/copa/default.yaml", "validation", "train"),
    "social_iqa": ("siqa/siqa.yaml", "validation", "train"),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", "validation", None),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", "validation", None),
    "lambada_openai": ("lambada/lambada_openai.yaml", "test", "train"),
    "mmlu_virology": ("mmlu/default/mmlu_virology.yaml", "test", "dev"),
    "mmlu_high_school_us_history": ("mmlu/default/mmlu_high_school_us_history.yaml", "test", "dev"),
    "mmlu_astronomy_continuation": ("mmlu/continuation/mmlu_astronomy.yaml", "test", "dev"),
    "leaderboard_bbh_boolean_expressions": ("leaderboard/bbh_mc/boolean_expressions.yaml", "test", None),
    "leaderboard_bbh_snarks": ("leaderboard/bbh_mc/snarks.yaml", "test", None),
    "leaderboard_musr_murder_mysteries": ("leaderboard/musr/musr_murder_mysteries.yaml", "murder_mysteries", None),
    "leaderboard_mmlu_pro": ("leaderboard/mmlu_pro/mmlu_pro.yaml", "test", "validation"),
    "leaderboard_gpqa_main": ("leaderboard/gpqa/gpqa_main_zeroshot.yaml", "train", None),
}
FOLDERS = {"truthfulqa_mc1": "truthfulqa", "truthfulqa_mc2": "truthfulqa", "mmlu_virology": "mmlu/virology",
           "mmlu_high_school_us_history": "mmlu/high_school_us_history", "wikitext": "wikitext2",
           "mmlu_astronomy_continuation": "mmlu/astronomy", "leaderboard_bbh_boolean_expressions": "bbh/boolean_expressions",
           "leaderboard_bbh_snarks": "bbh/snarks", "leaderboard_musr_murder_mysteries": "musr", "leaderboard_mmlu_pro": "mmlu_pro",
           "leaderboard_gpqa_main": "gpqa/gpqa_main"}
ROWS = 60
# How prompts are made: a system instruction, and whether a chat template is applied, to the examples as turns or not.
PLAIN = {"system": "", "chat": None}
STYLES = [PLAIN, {"system": "Be brief.", "chat": None}, {"system": "", "chat": "turns"}, {"system": "", "chat": "one"},
          {"system": "Think, then\nanswer. ", "chat": "turns"}, {"system": "Be brief.", "chat": "one"}]
STYLED_ROWS = 10
CHAT = ("{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nI am a model"
        "<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

SPACES = [chr(c) for c in range(0x110000) if chr(c).isspace()]
WORDS = ["a", "The man", "fell", "it's", "x.", "x . y", "[title]", "[step] go", "[a [b] c]", "[open", "] shut", "s '", "@-@",
         "=", "1", "42", "/' 5/", "/' 5/' 6/", "( a )", "{ b }", "\" q \"", "' r '", "N", "\u200b", "\ufeff", "\x00", "\U0001f600",
         "e\u0301", "{{x}}", "{% y %}", "A", "B", "\\n", "it\x1cwas", "20 \u00b0 C", " : ", " 's"]
LETTERS = list("aZéÉßẞŉǰΐǅǆǇﬁﬃﬅﬓΣσςİıIΑᾳᾼᾲᾷẖẚ\u1f50\u0345აႠꞫ\u2160ⓐ'.:\u00ad\u02b0") + ["ΟΔΟΣ", "ΑΣ. Β", "AΣ'a", "Σ\u0301", "\U00010428"]


def text(draw, least=0):
    """A text of odd pieces; not blank where `least` is 1."""
    while True:
        pieces = [draw.choice(draw.choice((WORDS, SPACES, LETTERS, [" ", "  ", "\n", "\r\n"])))
                  for _ in range(draw.randint(least, 7))]
        made = "".join(pieces)
        if not least or made.strip():
            return made


def choices(draw, count):
    return [text(draw, 1) for _ in range(count)]


def labelled(draw, question, count, labels, key_front=""):
    return {question: text(draw), "choices": {"text": choices(draw, count), "label": labels},
            "answerKey": key_front + draw.choice(labels)}


def truthful(draw):
    def targets(labels):
        return {"choices": choices(draw, len(labels)), "labels": labels}
    return {"question": text(draw), "mc1_targets": targets([1, 0, 0]), "mc2_targets": targets([1, 0, 1, 0])}


def premise(draw):
    """With more than white space, as the harness needs something before what it drops."""
    return {"premise": text(draw, 1), "question": draw.choice(("cause", "effect")), "choice1": text(draw, 1),
            "choice2": text(draw, 1), "label": draw.randint(0, 1)}


def mmlu(draw):
    return {"question": text(draw), "choices": choices(draw, 4), "answer": draw.randint(0, 3)}


def arc(draw):
    return draw.choice((lambda: labelled(draw, "question", 4, list("ABCD")), lambda: labelled(draw, "question", 3, list("123"))))()


def story(draw):
    told = choices(draw, draw.randint(2, 4))
    return {"narrative": text(draw), "question": text(draw), "choices": repr(told), "answer_index": 0, "answer_choice": draw.choice(told)}


def lettered(draw):
    count = draw.randint(2, 11)
    return {"question": text(draw), "options": choices(draw, count), "answer": "ABCDEFGHIJK"[draw.randrange(count)], "category": "law"}


def graduate(draw):
    answers = {f"Incorrect Answer {number}": draw.choice((text(draw), None)) for number in (1, 2, 3)}
    return {"Question": text(draw), "Correct Answer": text(draw), **answers}


MAKERS = {
    "leaderboard_bbh_boolean_expressions": lambda draw: {"input": text(draw), "target": draw.choice(("True", "False"))},
    "leaderboard_bbh_snarks": lambda draw: {"input": text(draw), "target": draw.choice(("(A)", "(B)"))},
    "leaderboard_musr_murder_mysteries": story,
    "leaderboard_mmlu_pro": lettered,
    "leaderboard_gpqa_main": graduate,
    "arc_easy": arc,
    "arc_challenge": arc,
    "hellaswag": lambda draw: {"activity_label": text(draw), "ctx_a": text(draw), "ctx_b": text(draw),
                               "endings": [text(draw, 1) + "x" for _ in range(4)], "label": str(draw.randint(0, 3))},
    "piqa": lambda draw: {"goal": text(draw), "sol1": text(draw, 1), "sol2": text(draw, 1), "label": draw.randint(0, 1)},
    "winogrande": lambda draw: {"sentence": text(draw) + "_" + text(draw, 1), "option1": text(draw), "option2": text(draw),
                                "answer": draw.choice("12")},
    "openbookqa": lambda draw: labelled(draw, "question_stem", 4, list("ABCD"), draw.choice(("", " ", "\u00a0\n"))),
    "boolq": lambda draw: {"passage": text(draw), "question": text(draw), "label": draw.randint(0, 1)},
    "sciq": lambda draw: {"support": text(draw), "question": text(draw), "distractor1": text(draw, 1),
                          "distractor2": text(draw, 1), "distractor3": text(draw, 1), "correct_answer": text(draw, 1)},
    "tinyMMLU": lambda draw: {"input_formatted": text(draw) + "\nAnswer:" + draw.choice(("", " ", "\n")), "question": text(draw),
                              "choices": choices(draw, 4), "answer": draw.randint(0, 3)},
    "commonsense_qa": lambda draw: labelled(draw, "question", 5, list("ABCDE")),
    "copa": premise,
    "social_iqa": lambda draw: {"context": text(draw), "question": text(draw), "answerA": text(draw, 1),
                                "answerB": text(draw, 1), "answerC": text(draw, 1),
                                "label": draw.choice("123") + draw.choice(("", "\n", " "))},
    "truthfulqa_mc1": truthful,
    "truthfulqa_mc2": truthful,
    "lambada_openai": lambda draw: {"text": text(draw) + " " + text(draw, 1).replace(" ", "") + "w"},
    "mmlu_virology": mmlu,
    "mmlu_astronomy_continuation": mmlu,
    "mmlu_high_school_us_history": mmlu,
}


class Function(str):
    """A value `!function module.name` of a definition."""


class Loader(yaml.SafeLoader):
    """Of the definitions."""


Loader.add_constructor("!function", lambda loader, node: Function(node.value))


def definition(path):
    values = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506: a SafeLoader
    included = values.pop("include", None)
    base = definition(path.parent / included) if included else {}
    return {**base, **values}


@functools.cache
def function(path, name):
    module, attribute = name.rsplit(".", 1)
    if "datasets" not in sys.modules and importlib.util.find_spec("datasets") is None:  # named in annotations only
        sys.modules["datasets"] = types.SimpleNamespace(Dataset=None)
    spec = importlib.util.spec_from_file_location(module, path.parent / f"{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, attribute)


class Documents(list):
    """What process_docs is given."""

    def map(self, change):
        return Documents({**row, **change(row)} for row in self)


class Task:
    """lm_eval.api.task.ConfigurableTask as far as texts go."""

    def __init__(self, path):
        self.config = definition(path)
        self.functions = {key: function(path, value) for key, value in self.config.items()
                          if isinstance(value, Function) and key.startswith("doc_to_")}
        self.process = function(path, self.config["process_docs"]) if "process_docs" in self.config else None
        self.kind = self.config["output_type"]

    def processed(self, row):
        return self.process(Documents([row]))[0] if self.process else row

    def field(self, name, row):
        if name in self.functions:
            return self.functions[name](row)
        value = self.config.get(name)
        if not isinstance(value, str):
            return value
        if value in row:
            return row[value]
        made = apply_template(value, row)
        if name == "doc_to_choice":
            return ast.literal_eval(made)
        if made.isdigit() and "doc_to_choice" in self.config:
            return ast.literal_eval(made)
        return made

    def example(self, row):
        """An answered example, as build_qa_turn() makes it."""
        row = self.processed(row)
        question, options, answer = (self.field(f"doc_to_{part}", row) for part in ("text", "choice", "target"))
        if isinstance(question, int):
            question = options[question]
        elif isinstance(answer, int):
            answer = options[answer]
        return [Message("user", question, " "), Message("assistant", answer, "\n\n")]

    def context(self, question, examples, style):
        """As fewshot_context() makes it."""
        system = maybe_delimit(style["system"], self.config.get("description", ""), "\n\n")
        messages = [Message("system", system)] if system else []
        messages += examples + [Message("user", question, "")]
        if not style["chat"]:
            return messages_to_text(messages)
        turns = [m.to_dict() for m in messages] if style["chat"] == "turns" else multiturn_to_singleturn(messages)
        return TEMPLATE.render(messages=turns, add_generation_prompt=True)

    def expected(self, row, examples, style):
        row = self.processed(row)
        question, target = self.field("doc_to_text", row), self.field("doc_to_target", row)
        if self.kind == "loglikelihood_rolling":
            return {"arguments": [["", target]], "words": len(re.split(r"\s+", row["page"])),
                    "bytes": len(row["page"].encode())}
        if self.kind == "loglikelihood":
            return {"arguments": [[self.context(question, examples, style), target]]}
        options = self.field("doc_to_choice", row)
        joint = "" if style["chat"] else self.config.get("target_delimiter", " ")
        if isinstance(question, int):
            contexts = [self.context(option, examples, style) for option in options]
            return {"gold": question, "arguments": [[context, joint + target] for context in contexts]}
        gold = target if isinstance(target, int) else options.index(target)
        context = self.context(question, examples, style)
        return {"gold": gold, "arguments": [[context, joint + option] for option in options]}


def write_rows(path, rows, draw):
    end = draw.choice(("\n", "\r\n"))
    lines = [json.dumps(row, ensure_ascii=draw.random() < 0.5) + end + draw.choice(("", " \t" + end)) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(draw.choice(("", "\ufeff", "\ufeff" + end)) + "".join(lines))


def wikitext_pages(draw):
    """Pages and the file that holds them: a heading opens each."""
    end = draw.choice(("\n", "\r\n"))
    pages = []
    for number in range(ROWS):
        lines = [re.sub(r"[\r\n]", " ", text(draw)) for _ in range(draw.randint(1, 4))]
        lines = [line for line in lines if not line.strip().startswith("=")]
        pages.append("\n".join([f" = Page {number} = ", *lines, "end"]))
    return [{"page": page} for page in pages], end.join(page.replace("\n", end) for page in pages) + end


TEMPLATE = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT)


def main():
    target = Path(sys.argv[1])
    (target / "template.jinja").write_text(CHAT, encoding="utf-8")
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 18)
    with open(target / "expected.jsonl", "w", encoding="utf-8") as out:
        for name, (path, split, example_split) in DEFINITIONS.items():
            task = Task(TASKS / path)
            folder = target / "data" / FOLDERS.get(name, name)
            if name == "wikitext":
                rows, content = wikitext_pages(draw)
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / "wiki.test.raw", "w", encoding="utf-8", newline="") as file:
                    file.write(content)
            else:
                shared = folder / f"{split}.jsonl"  # two tasks of truthfulqa have one file
                rows = [MAKERS[name](draw) for _ in range(ROWS)]
                if shared.exists():
                    rows = [json.loads(line) for line in shared.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
                else:
                    write_rows(shared, rows, draw)
            if "gpqa" in name:  # whose choices are shuffled when the set is read
                random.seed(0)
                rows, task.process = task.process(Documents(rows)), None
            example = MAKERS[name](draw) if example_split else None
            own = task.config.get("fewshot_config", {}).get("samples")
            if example:
                write_rows(folder / f"{example_split}.jsonl", [example], draw)
            for shots in (0, 1) if example else (0, len(own)) if own else (0,):
                for style in STYLES:
                    for index, row in enumerate(rows if style is PLAIN else rows[:STYLED_ROWS]):
                        turns = [turn for each in (own or [example])[:shots] for turn in task.example(each)]
                        wanted = task.expected(row, turns, style)
                        out.write(json.dumps({"task": name, "split": split, "shots": shots, "doc_id": index, **style, **wanted})
                                  + "\n")


if __name__ == "__main__":
    main()
