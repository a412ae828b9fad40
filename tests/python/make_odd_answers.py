#!/usr/bin/env python3
"""Odd rows and odd answers for every task that generates, and what lm-evaluation-harness makes of them.
usage: make_odd_answers.py DIR [SEED]

Writes data files below DIR/data and DIR/expected.jsonl: a line per document with its prompt, few-shot examples drawn by the
harness's own samplers, the settings of its generation, and some texts that a model could have written with what the
harness's filters and metrics (0.4.13) make of each. What its task class does with them is repeated here, since that class
needs the frameworks that models run in. Where Python lacks the harness, prints a line that begins with "skip".
"""
import ast
import importlib
import json
import random
import re
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import make_odd_rows as rows  # noqa: E402  (leaves with "skip" where the harness is missing)

try:
    import scipy  # noqa: F401  (DROP's metric)
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.api.samplers import ContextSampler, FirstNSampler
    from lm_eval.api.utils import Message, maybe_delimit, messages_to_text, multiturn_to_singleturn
    from lm_eval.filters.extraction import RegexFilter, WhitespaceFilter
    from lm_eval.utils import apply_template

    # Definitions import what is not asked here: what runs programs comes from the hub, and formulas are compared as texts.
    sys.modules["evaluate"] = types.SimpleNamespace(load=lambda _: types.SimpleNamespace(compute=lambda **__: [{"pass@1": 0.0}]))
    for absent in ("math_verify", "sympy", "sympy.parsing.latex", "antlr4", "word2number"):
        try:
            importlib.import_module(absent)
        except ImportError as missing:
            print(f"skip: the harness's definitions need {absent} ({missing})")
            sys.exit(0)
except ImportError as missing:
    print(f"skip: lm-evaluation-harness cannot be imported ({missing})")
    sys.exit(0)

# Our task: its definition, folder, split that is scored, split of examples, and numbers of examples.
TASKS = {
    "gsm8k": ("gsm8k/gsm8k.yaml", "gsm8k", "test", "train", (0, 5)),
    "gsm8k_cot": ("gsm8k/gsm8k-cot.yaml", "gsm8k", "test", None, (0, 8)),
    "gsm8k_cot_zeroshot": ("gsm8k/gsm8k-cot-zeroshot.yaml", "gsm8k", "test", "train", (0, 2)),
    "gsm8k_cot_llama": ("gsm8k/gsm8k-cot-llama.yaml", "gsm8k", "test", None, (3,)),
    "triviaqa": ("triviaqa/default.yaml", "triviaqa", "validation", "train", (0, 5)),
    "nq_open": ("nq_open/nq_open.yaml", "nq_open", "validation", "train", (0, 6)),
    "drop": ("drop/default.yaml", "drop", "validation", "train", (0, 2)),
    "squad_completion": (None, "squad_completion", "validation", "validation", (0, 1)),
    "mmlu_pro_law": ("mmlu_pro/mmlu_pro_law.yaml", "mmlu_pro", "test", "validation", (5,)),
    "mmlu_pro_computer_science": ("mmlu_pro/mmlu_pro_computer_science.yaml", "mmlu_pro", "test", "validation", (0, 2)),
    "mmlu_virology_generative": ("mmlu/generative/mmlu_virology.yaml", "mmlu/virology", "test", "dev", (0, 2)),
    "hendrycks_math_algebra": ("hendrycks_math/hendrycks_math_algebra.yaml", "hendrycks_math/algebra", "test", "train", (0, 2)),
    "minerva_math_algebra": ("minerva_math/minerva_math_algebra.yaml", "hendrycks_math/algebra", "test", None, (0, 4)),
    "leaderboard_math_algebra_hard": ("leaderboard/math/math_algebra.yaml", "hendrycks_math/algebra", "test", None, (4,)),
    "humaneval": ("humaneval/humaneval.yaml", "humaneval", "test", None, (0,)),
    "mbpp": ("mbpp/mbpp.yaml", "mbpp", "test", None, (0, 3)),
}
BBH = ("boolean_expressions", "dyck_languages", "navigate", "object_counting", "snarks", "sports_understanding", "web_of_lies", "word_sorting")
for bbh in BBH:
    for form, examples in (("cot_fewshot", 3), ("cot_zeroshot", 0), ("fewshot", 3), ("zeroshot", 0)):
        TASKS[f"bbh_{form}_{bbh}"] = (f"bbh/{form}/{bbh}.yaml", f"bbh/{bbh}", "test", None, (examples,))
ROWS, TRAIN, ANSWERS = 24, 30, 8
STYLES = [rows.PLAIN, {"system": "Be brief.", "chat": None}, {"system": "Be brief.", "chat": "turns"}, {"system": "", "chat": "one"}]
PIECES = ["#### 42", "#### -1,234.50", "####", "The answer is 7.", "The answer is -3", "The final answer is $1,000", "$18", "18.0",
          "1,000", "3.", "-5", "answer is (B)", "answer is C", "answer is (b", "the", "The ", "a ", "An ", "an", "A", "B", "(C)", ".",
          ",", "!", "-", "--", "'", "\n", " ", "  ", "\t", "1_0", "1e5", "1e400", "inf", "nan", "Infinity", "+7", "7.", ".5", "٣", "\u00a0",
          "True", "False", "Yes", "no", "valid", "not plausible", "yes, plausible", "is telling the truth", "(B", "the answer is", "The answer: ",
          "so the answer is (A).", "twenty", "seven hundred and two", "two million three thousand", "two two", ") ]", "< ( > }", "apple", "pear apple",
          "\\boxed{3}", "\\frac12", "\\frac{1}{2}", "$x=5$", "$", "1/2", "0.5", "\\sqrt2", "\\text{ cm}", "Final Answer: The final answer is $",
          "Final Answer: The final answer is 12,345 ft. I hope it is correct.", "$. I hope it is correct.", "\\left(", "Q:", "Question:", "\\n", "ÄÖ", "straße", "STRASSE", "İ", "\x00", "12:30", "U.S.", "twenty-one", "21"]


def answer_text(draw, hints):
    pieces = [draw.choice(draw.choice((PIECES, PIECES, hints))) for _ in range(draw.randint(0, 6))]
    return draw.choice(("", " ")).join(pieces)


def word(draw):
    return draw.choice(("The Beatles", "the  red-haired U.S. man", "3.14", "1,000", "42", "a cat", "İstanbul", "O'Neil", 'a "b"', "back\\slash",
                        "twenty-one", "5 km", "-7", "7.0", "ÄÖ", rows.text(draw, 1)))


def dated(draw):
    kind = draw.choice(("number", "spans", "date"))
    return {"number": draw.choice(("3", "4.5", "1,000")) if kind == "number" else "",
            "date": {part: draw.choice(("", "5", "May")) if kind == "date" else "" for part in ("day", "month", "year")},
            "spans": [word(draw) for _ in range(draw.randint(1, 3))] if kind == "spans" else []}


def drop(draw):
    answer, others = dated(draw), [dated(draw) for _ in range(draw.randint(0, 2))]
    if others and draw.random() < 0.3:
        others[0] = answer
    return {"query_id": "q", "passage": rows.text(draw), "question": rows.text(draw), "answer": answer,
            "validated_answers": {part: [other[part] for other in others] for part in ("number", "date", "spans")}}


def gsm8k(draw):
    return {"question": rows.text(draw), "answer": draw.choice(("2+3=<<2+3=5>>5\n#### 5", "x\n####  $1,234.50 ", "no mark", "a #### b\n#### -7."))}


def bbh_row(draw, name):
    if name == "word_sorting":
        return {"input": "Sort the following words alphabetically: List: " + " ".join(draw.choice(("apple", "pear", "fig", "kiwi")) for _ in range(4)),
                "target": "apple fig pear"}
    if name == "snarks":
        listed = "\n".join(f"({letter}) {rows.text(draw, 1)}" for letter in "ABC"[:draw.randint(0, 3)])
        return {"input": rows.text(draw) + "\nOptions:\n" + listed, "target": draw.choice(("(A)", "(B)"))}
    target = {"boolean_expressions": ("True", "False"), "dyck_languages": ("> )", "] }"), "navigate": ("Yes", "No"),
              "object_counting": ("7", "20", "702"), "sports_understanding": ("yes", "no"), "web_of_lies": ("Yes", "No")}[name]
    return {"input": rows.text(draw), "target": draw.choice(target)}


FORMULAS = ("3", "\\frac12", "\\frac{1}{2}", "1/2", "0.5", ".5", "x=5", "\\sqrt2", "\\sqrt[3]8", "\\text{odd}", "12,345", "0,1", "5\\text{ cm}", "90^\\circ",
            "\\left(1,2\\right)", "\\$5", "50\\%", "\\mathrm{th}", "\\dfrac{a}{b}", "-3", "\\frac", "a/b", "3 feet", "\\!7", "{a}{b}", "")


def math(draw):
    answer = draw.choice(FORMULAS)
    boxed = draw.choice(("\\boxed{%s}", "\\boxed{%s}", "\\boxed %s$ and so on", "\\boxed{1} or \\boxed{%s}")) % answer
    return {"problem": rows.text(draw), "level": draw.choice(("Level 5", "Level 2")), "type": "Algebra", "solution": f"So ${boxed}$."}


def program(draw):
    return {"task_id": draw.randint(0, 9), "prompt": "def f(x):\n    " + rows.text(draw), "test": "def check(f):\n    assert f(1) == 2", "entry_point": "f",
            "text": rows.text(draw), "code": "def f(x):\r\n  return x", "test_list": [rows.text(draw, 1) for _ in range(3)]}


MAKERS = {
    "humaneval": program,
    "mbpp": program,
    "hendrycks_math/algebra": math,
    "mmlu/virology": rows.mmlu,
    **{f"bbh/{name}": (lambda draw, name=name: bbh_row(draw, name)) for name in BBH},
    "gsm8k": gsm8k,
    "triviaqa": lambda draw: {"question": rows.text(draw), "answer": {"value": "x", "aliases": [word(draw) for _ in range(draw.randint(1, 4))]}},
    "nq_open": lambda draw: {"question": rows.text(draw), "answer": [word(draw) for _ in range(draw.randint(1, 3))]},
    "drop": drop,
    "squad_completion": lambda draw: {"text": rows.text(draw, 1), "value": draw.choice((word(draw).strip() or "x", " a.b ", "(x)"))},
    "mmlu_pro": lambda draw: {"question": rows.text(draw), "options": rows.choices(draw, draw.randint(2, 11)), "answer": draw.choice("ABC"),
                              "category": draw.choice(("law", "computer science", "math")),
                              "cot_content": draw.choice(("A: Let's think step by step. So (B).", "No opening. The answer is (A)."))},
}


def not_asked(*_, **__):
    raise TypeError("formulas are compared as texts")


class Squad:
    """SQUADCompletion's parts as a definition."""
    config = {"doc_to_text": None, "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "temperature": 0, "max_gen_toks": 48}}


class Task:
    """lm_eval.api.task.ConfigurableTask as far as generating tasks go."""

    def __init__(self, name, examples):
        path, _, split, example_split, _ = TASKS[name]
        self.squad = path is None
        self.path = rows.TASKS / (path or "")
        self.config = dict(Squad.config) if self.squad else rows.definition(self.path)
        self.fewshot = dict(self.config.get("fewshot_config", {}))
        self.first = self.fewshot.get("sampler") == "first_n"
        samples = self.function(self.fewshot.get("samples"))
        self.examples = (samples() if callable(samples) else samples) or self.processed(examples)
        own = self.config.get("fewshot_split")
        tested = self.config.get("test_split")
        self.beside = own == tested
        self.ending = self.config.get("fewshot_delimiter", "\n\n")
        self.joint = self.config.get("target_delimiter", " ")

    def function(self, value):
        return rows.function(self.path, value) if isinstance(value, rows.Function) else value

    def processed(self, some):
        process = self.function(self.config.get("process_docs"))
        some = rows.Documents(some)
        if process is None:
            return some
        some.filter = lambda wanted: rows.Documents(row for row in some if wanted(row))
        return process(some)

    def field(self, name, row, fewshot=False):
        if self.squad:
            return row["text" if name == "doc_to_text" else "value"].strip()
        value = self.function(self.fewshot.get(name, self.config[name]) if fewshot else self.config[name])
        if not isinstance(value, str) and not callable(value):
            return value
        if callable(value):
            return value(row)
        if value in row:
            return row[value]
        made = apply_template(value, row)
        if name == "doc_to_target" and len(made) >= 2 and made[0] == "[" and made[-1] == "]":
            try:
                return ast.literal_eval(made)
            except (SyntaxError, ValueError):
                return made
        return made

    def start(self, shots):
        self.shots = shots
        kind = FirstNSampler if self.first else ContextSampler
        self.sampler = kind(list(self.examples), rnd=1234)

    def prompt(self, doc, style):
        system = maybe_delimit(style["system"], self.config.get("description", ""), self.ending)
        messages = [Message("system", system)] if system else []
        if self.shots:
            for row in self.sampler.sample(n=self.shots, eval_doc=doc if self.beside else None):
                answer = self.field("doc_to_target", row, True)
                answer = answer[0] if isinstance(answer, list) else answer
                messages += [Message("user", self.field("doc_to_text", row, True), self.joint), Message("assistant", answer, self.ending)]
        messages.append(Message("user", self.field("doc_to_text", doc), ""))
        if not style["chat"]:
            return messages_to_text(messages)
        turns = [m.to_dict() for m in messages] if style["chat"] == "turns" else multiturn_to_singleturn(messages)
        return rows.TEMPLATE.render(messages=turns, add_generation_prompt=True)

    def filters(self):
        for entry in self.config.get("filter_list") or [{"name": "none", "filter": []}]:
            steps = []
            for step in entry["filter"]:
                settings = {key: value for key, value in step.items() if key != "function"}
                if step["function"] == "regex":
                    steps.append(RegexFilter(**settings))
                elif step["function"] == "remove_whitespace":
                    steps.append(WhitespaceFilter())
                elif isinstance(step["function"], rows.Function):
                    steps.append(self.function(step["function"])(**settings))
            yield entry["name"], steps

    def judged(self, doc, text):
        out = {"text": text, "filtered": {}, "values": {}}
        for name, steps in self.filters():
            answers = [[text]]
            for step in steps:
                answers = step.apply(answers, [doc])
            answer = out["filtered"][name] = answers[0][0]
            for metric, value in self.values(doc, answer).items():
                out["values"][metric if name == "none" else f"{metric},{name}"] = float(value)
        return out

    def values(self, doc, answer):
        if self.squad:
            found = re.search(re.compile(re.escape(self.field("doc_to_target", doc)), re.IGNORECASE), answer)
            return {"contains": int(bool(found))}
        process = self.function(self.config.get("process_results"))
        if process:
            # What is left when nobody asks sympy or math_verify whether two formulas are equal.
            process.__globals__["parse_latex"] = not_asked
            process.__globals__["parse"] = process.__globals__["verify"] = lambda *_, **__: None
            wanted = "exact_match_original" if "exact_match_original" in str(self.config["metric_list"]) else None
            return {name: value for name, value in process(doc, [answer]).items() if name != "math_verify" and wanted in (None, name)}
        gold = self.field("doc_to_target", doc)
        golds = gold if isinstance(gold, list) else [gold]
        settings = {key: value for key, value in self.config["metric_list"][0].items()
                    if key not in ("metric", "aggregation", "higher_is_better")}
        score = exact_match_hf_evaluate(predictions=[answer] * len(golds), references=golds, **settings)["exact_match"]
        return {"exact_match": 1.0 if score > 0 else 0.0}

    def hints(self, doc):
        gold = self.field("doc_to_target", doc)
        hints = list(gold) if isinstance(gold, list) else [gold]
        for answer in doc.get("answers", []):
            hints += answer
        return hints + [hint.lower() for hint in hints]


def main():
    target = Path(sys.argv[1])
    (target / "template.jinja").write_text(rows.CHAT, encoding="utf-8")
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 27)
    made = {}
    with open(target / "expected.jsonl", "w", encoding="utf-8") as out:
        for name, (_, folder, split, example_split, shots) in TASKS.items():
            if folder not in made:
                wanted = {split, "train" if example_split is None else example_split}
                made[folder] = {one: [MAKERS[folder](draw) for _ in range(ROWS if one == split else TRAIN)] for one in sorted(wanted)}
                for one, some in made[folder].items():
                    rows.write_rows(target / "data" / folder / f"{one}.jsonl", some, draw)
            task = Task(name, made[folder][example_split] if example_split else [])
            for count in shots:
                for style in STYLES:
                    task.start(count)
                    for index, doc in enumerate(task.processed(made[folder][split])):
                        line = {"task": name, "split": split, "shots": count, "doc_id": index, **style, "prompt": task.prompt(doc, style),
                                "arguments": task.config["generation_kwargs"], "answers": []}
                        if style is rows.PLAIN and count == shots[0] and name not in ("humaneval", "mbpp"):
                            texts = [answer_text(draw, task.hints(doc)) for _ in range(ANSWERS)]
                            line["answers"] = [task.judged(doc, text) for text in texts]
                        out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
