#!/usr/bin/env python3
"""Does the Python package do what docs/python.md says, and what the program does?

    python3 check_python.py MODEL.gguf                       the package that is installed
    build/release/bin/qeval_python check_python.py MODEL.gguf build/release/python    that of a build, by the
                                                             interpreter that has its module built in

Runs every example of docs/python.md in turn and compares what it prints with what stands there, then compares scores,
texts, evaluations and errors with the program's. An example whose packages cannot be imported is skipped."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

from check_readme import find

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPT = "The three primary colours are"
PAIRS = [("The capital of France is", " Paris"), ("The capital of France is", " Rome"), ("", "Hello"), ("Two and", " two")]


def examples(text):
    """(heading, code, lines printed) of each block of Python."""
    heading = ""
    for match in re.finditer(r"^## ([^\n]*)$|^```python\n(.*?)^```\n(?:\n```output\n(.*?)^```)?", text, re.M | re.S):
        if match[1]:
            heading = match[1]
        else:
            yield heading, match[2], (match[3] or "").rstrip("\n").split("\n")


def run_example(code, shown):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/python.md", "exec"), {"__name__": "__main__"})  # pylint: disable=exec-used
    missing = find(shown, printed.getvalue().split("\n"))
    assert missing is None, f"not printed: {missing}\n{printed.getvalue()}"


class Checks:
    def __init__(self, model):
        import qeval
        from qeval._program import PROGRAM

        self.qeval, self.program, self.path = qeval, PROGRAM, model
        self.model = qeval.load(model)

    def run(self, *arguments, text=None):
        """What the program prints, and its complaint without "qeval: " and the hint at --help."""
        result = subprocess.run([self.program, *map(str, arguments)], input=text, capture_output=True, text=True, check=False)
        complaint = result.stderr.strip().split("\n")[-1].removeprefix("qeval: ")
        return result.stdout, re.sub(r" \(see qeval \w+ --help\)$", "", complaint)

    def refuses(self, kind, complaint, call):
        try:
            call()
        except self.qeval.Error as error:
            assert type(error) is kind and str(error) == complaint, f"{type(error).__name__}: {error}\nnot: {complaint}"
        else:
            raise AssertionError(f"not refused: {complaint}")

    def check_scores(self):
        lines = "".join(json.dumps({"context": c, "continuation": d}) + "\n" for c, d in PAIRS)
        expected = [json.loads(line) for line in self.run("score", "-m", self.path, text=lines)[0].splitlines()]
        scores = self.model.score_tokens(PAIRS)
        assert len(scores) == len(PAIRS)
        for score, line in zip(scores, expected):
            assert score._asdict() == {key: line[key] for key in score._fields}, f"{score} {line}"
        assert self.model.score(PAIRS) == [score[:2] for score in scores]
        # By ids: what follows the tokens of the context.
        ids = [(self.model.encode(PAIRS[0][0]), scores[0].tokens)]
        assert self.model.decode(self.model.encode(PAIRS[0][0])) == PAIRS[0][0]
        assert self.model.score(ids)[0] == scores[0][:2]

    def check_rolling_scores(self):
        with tempfile.TemporaryDirectory() as folder:
            results = self.model.evaluate("sample_text", output=f"{folder}/run", samples=True)
        [sample] = results["samples"]["sample_text"]
        text = sample["arguments"]["gen_args_0"]["arg_0"]
        assert self.model.score_rolling([text, "Hello"])[0] == float(sample["filtered_resps"][0])

    def check_texts(self):
        for options in ({}, {"temperature": 0.9, "seed": 3, "top_k": 40}):
            words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
            printed = self.run("generate", "-m", self.path, "-p", PROMPT, "-n", 12, *words)[0]
            text = self.model.generate([PROMPT, "Once"], max_tokens=12, **options)[0]
            assert text.text + "\n" == printed, f"{text} {printed}"
        whole = self.model.generate([PROMPT], max_tokens=12)[0]
        cut = self.model.generate([PROMPT], max_tokens=12, stop=[whole.text[5:8]])[0]
        assert cut.finish == "stop" and cut.text == whole.text[: whole.text.index(whole.text[5:8])], cut
        chat = [{"role": "user", "content": "Hi"}]
        printed = self.run("generate", "-m", self.path, "-p", "Hi", "--chat", "-n", 8)[0]
        assert self.model.generate([self.model.chat_prompt(chat)], max_tokens=8, chat=True)[0].text + "\n" == printed

    def check_evaluation(self):
        options = {"limit": 6, "num_fewshot": 1}
        with tempfile.TemporaryDirectory() as folder:
            self.run("eval", "-m", self.path, "-t", "sample_qa,sample_letters", "-o", f"{folder}/program", "--limit", 6, "--num-fewshot", 1)
            expected = self.qeval.load_results(f"{folder}/program", samples=True)
            found = self.model.evaluate(["sample_qa", "sample_letters"], output=f"{folder}/python", samples=True, **options)
            assert self.qeval.load_results(f"{folder}/python", samples=True) == found
            scratch = self.model.evaluate("sample_qa,sample_letters", samples=True, **options)
            # The command that it records gives the same results again.
            arguments = [*shlex.split(scratch["command"])[1:], "-o", f"{folder}/again"]
            assert self.run(*arguments)[0], arguments
            again = self.qeval.load_results(f"{folder}/again", samples=True)
        plain = self.model.evaluate("sample_qa,sample_letters", **options)
        assert "samples" not in plain and scratch["samples"] == expected["samples"]
        for key in ("results", "configs", "versions", "n-shot", "n-samples", "higher_is_better", "samples"):
            for other in (found, again):
                assert other[key] == expected[key], f"{key}: {other[key]}\nnot {expected[key]}"
        assert plain["results"] == expected["results"] and plain["n-shot"] == expected["n-shot"]

    def check_errors(self):
        for arguments, call in (
            (["eval", "-m", "none.gguf", "-t", "sample"], lambda: self.qeval.load("none.gguf")),
            (["eval", "-m", self.path, "-t", "sampel"], lambda: self.model.evaluate("sampel")),
            (["eval", "-m", self.path, "-t", "sample", "--max-length", "0"], lambda: self.qeval.load(self.path, max_length=0)),
            (["eval", "-m", self.path, "-t", "sample", "--arithmetic", "flaot"], lambda: self.qeval.load(self.path, "flaot")),
            (["eval", "-m", self.path, "-t", "sample", "--arithmetic", "integer"], lambda: self.qeval.load(self.path, "integer")),
            (["eval", "-m", self.path, "-t", "sample", "--limit", "x"], lambda: self.model.evaluate("sample", limit="x")),
            (["eval", "-m", self.path, "-t", "sample", "--base", "x"], lambda: self.model.evaluate("sample", base="x")),
            (["compare", "-m", self.path, "-t", "sample", "--with", "none", "-o", "x"],
             lambda: self.qeval.compare(self.path, "sample", others="none", output="x")),
        ):
            usage = subprocess.run([self.program, *map(str, arguments)], capture_output=True, check=False).returncode == 2
            self.refuses(self.qeval.UsageError if usage else self.qeval.Error, self.complaint(arguments), call)
        self.refuses(self.qeval.Error, "request 1: the continuation has no tokens: nothing to score",
                     lambda: self.model.score([("a", "b"), ("a", "")]))

    def check_arguments(self):
        model, whole, inf = self.model, "a whole number is expected, not", float("inf")
        for complaint, call in (
            # What is no list, pair or text.
            ("request 0: a pair (context, continuation) is expected", lambda: model.score(["text"])),
            ("request 0: a pair (context, continuation) is expected", lambda: model.score([b"ab"])),
            ("request 0: context and continuation are both texts, or both lists of token ids", lambda: model.score([("a", [1])])),
            ("request 1, context: a list of token ids is expected, not bytes", lambda: model.score([("a", "b"), (b"ab", b"cd")])),
            ("request 0, continuation: a list of token ids is expected, not int", lambda: model.score([([1], 2)])),
            ("requests: a list of pairs is expected, not NoneType", lambda: model.score(None)),
            ("prompt: a list of texts is expected, not str", lambda: model.generate("text")),
            ("prompt 0: a str is expected, not int", lambda: model.generate([1])),
            ("messages: a list of messages is expected, not str", lambda: model.chat_prompt("hi")),
            ("message 0: a mapping is expected, not str", lambda: model.chat_prompt(["hi"])),
            ("chat: True or False is expected, not NoneType", lambda: model.score(PAIRS, chat=None)),
            ("others: a list of paths is expected, not int", lambda: self.qeval.compare(self.path, "sample", others=1, output="x")),
            ("help: no argument of compare", lambda: self.qeval.compare(self.path, "sample", help=True, output="x")),
            # Numbers.
            (f"request 0, continuation, token 1: {whole} float", lambda: model.score([([1], [2, 1.5])])),
            (f"request 0, context, token 0: {whole} bool", lambda: model.score([([True], [2])])),
            (f"ids, token 0: {whole} float", lambda: model.decode([3.7])),
            ("ids, token 0: 10000000000000000000000000; accepted: -9223372036854775808 to 9223372036854775807", lambda: model.decode([10**25])),
            ("ids, token 0: a number of 33220 bits; accepted: -9223372036854775808 to 9223372036854775807", lambda: model.decode([10**10000])),
            (f"max_tokens: {whole} float", lambda: model.generate(["a"], max_tokens=2.7)),
            (f"max_tokens: {whole} str", lambda: model.generate(["a"], max_tokens="3")),
            (f"max_tokens: {2**70}; accepted: -9223372036854775808 to 9223372036854775807", lambda: model.generate(["a"], max_tokens=2**70)),
            ("--tokens 0: accepted: 1 to 4294967296", lambda: model.generate(["a"], max_tokens=0)),
            (f"seed: {whole} float", lambda: model.generate(["a"], seed=1.9)),
            (f"seed: {whole} NoneType", lambda: model.generate(["a"], seed=None)),
            ("seed: -1; accepted: 0 to 18446744073709551615", lambda: model.generate(["a"], seed=-1)),
            ("seed: 18446744073709551616; accepted: 0 to 18446744073709551615", lambda: model.generate(["a"], seed=2**64)),
            ("temperature: inf; a finite number is expected", lambda: model.generate(["a"], temperature=inf)),
            ("temperature: nan; a finite number is expected", lambda: model.generate(["a"], temperature=inf - inf)),
            ("temperature: a number is expected, not str", lambda: model.generate(["a"], temperature="1")),
            ("--temperature -1; accepted: 0 (greedy) or more", lambda: model.generate(["a"], temperature=-1)),
            ("--top-p 2; accepted: above 0, to 1", lambda: model.generate(["a"], top_p=2)),
            ("--top-k -2; accepted: 0 (all) or more", lambda: model.generate(["a"], top_k=-2)),
            # Settings.
            ("--gen-kwargs: max_gen_toks is 2.5; accepted: a number of tokens, from 1", lambda: model.answer(["a"], {"max_gen_toks": 2.5})),
            ("settings, temperature: nan; a finite number is expected", lambda: model.answer(["a"], {"temperature": inf - inf})),
            ("settings: a mapping is expected, not str", lambda: model.answer(["a"], "do_sample=true")),
            # What is no text.
            ("request 1, continuation: not Unicode: character 2 is half of a surrogate pair (U+D800)", lambda: model.score([("a", "b"), ("a", "bc\ud800")])),
            ("text 0: not Unicode: character 0 is half of a surrogate pair (U+DC80)", lambda: model.score_rolling(["\udc80"])),
            ("message 0, content: not Unicode: character 0 is half of a surrogate pair (U+D800)", lambda: model.chat_prompt([{"role": "user", "content": "\ud800"}])),
            ("--model: character 1 is NUL, which no option can have", lambda: self.qeval.load("a\0b")),
            ("--model: not Unicode: character 0 is half of a surrogate pair (U+D800)", lambda: self.qeval.load("\ud800")),
            # What the package would not send.
            ("internal error: a request is not of the form expected (JSON error 101)", lambda: model._native.call("encode", "{", print)),
            ("internal error: a request is not of the form expected (JSON error 302)", lambda: model._native.call("encode", '{"text": 1}', print)),
            ("--seed: 1.5; accepted: whole numbers from 0 to 18446744073709551615", lambda: self.generate_raw(seed=1.5)),
            ("--seed: -1; accepted: whole numbers from 0 to 18446744073709551615", lambda: self.generate_raw(seed=-1)),
            ("--tokens: true; accepted: whole numbers from -9223372036854775808 to 9223372036854775807", lambda: self.generate_raw(max_tokens=True)),
        ):
            self.refuses(self.qeval.UsageError, complaint, call)
        for call in (lambda: model.answer(["a"], {"beams": 2}), lambda: model.evaluate("sample", gen_kwargs={"beams": 2}),
                     lambda: model.evaluate("sample", gen_kwargs="beams=2")):
            self.refuses(self.qeval.UsageError, "--gen-kwargs: beams is unknown; accepted: until, max_gen_toks, do_sample, temperature, "
                         "top_k, top_p, seed, repeats", call)
        # A path is bytes.
        name = os.fsencode("m\udc80.gguf")
        os.symlink(self.path, name)
        for path in (name, os.fsdecode(name), Path(os.fsdecode(name))):
            assert self.qeval.load(path).score(PAIRS) == model.score(PAIRS)

    def generate_raw(self, **changed):
        request = {"prompts": ["a"], "max_tokens": 1, "stop": [], "temperature": 0, "top_k": 0, "top_p": 1, "seed": 0, "ignore_eos": False,
                   "composed": False}
        return self.model._native.call("generate", json.dumps({**request, **changed}), lambda *_: None)

    def check_comparison_that_fails_here(self):
        # A program that warns, and then goes on until it is interrupted.
        from qeval import comparing

        program = Path("warns")
        program.write_text("#!/bin/sh\ntrap 'echo >interrupted; exit 130' INT\necho 'qeval: warning: odd' >&2\n"
                           "i=0; while [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done\n", encoding="utf-8")
        program.chmod(0o755)
        real, comparing.PROGRAM = comparing.PROGRAM, program.resolve()
        start = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.qeval.compare(self.path, "sample", output="x")
        except UserWarning as warning:
            assert str(warning) == "odd", warning
        else:
            raise AssertionError("the warning is no error")
        finally:
            comparing.PROGRAM = real
        assert time.monotonic() - start < 20 and Path("interrupted").exists()

    def complaint(self, arguments):
        return self.run(*arguments)[1]

    def check_interruption(self):
        beats = []

        def count(done):
            while not done.wait(0.01):
                beats.append(0)

        done = threading.Event()
        clock = threading.Thread(target=count, args=(done,))
        clock.start()
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    self.model.evaluate("sample", output=f"{folder}/run")
                except KeyboardInterrupt:
                    pass
                else:
                    raise AssertionError("SIGINT did not end the evaluation")
                assert len(beats) > 10, f"another thread came {len(beats)} times: is the lock of the interpreter held?"
                whole = self.model.evaluate("sample_qa", limit=4)
                found = self.model.evaluate("sample_qa", limit=4, output=f"{folder}/two", resume=True)
                assert whole["results"] == found["results"]
        finally:
            done.set()
            clock.join()

    def check_threads(self):
        answers = [None] * 3

        def ask(i):
            answers[i] = self.model.score(PAIRS)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers[0] is not None and answers[0] == answers[1] == answers[2]
        # From within its own call it would wait for itself.
        request = json.dumps({"texts": ["Hello"]})
        self.refuses(self.qeval.Error, "the model is computing in this thread: it cannot be called from within its own call",
                     lambda: self.model._native.call("rolling", request, lambda *_: self.model.score(PAIRS)))

    def check_module(self):
        listed = subprocess.run([sys.executable, "-m", "qeval", "--version"], capture_output=True, text=True, check=True)
        assert listed.stdout.split()[1] == self.qeval.__version__

    def check_harness(self):
        # As Python starts: nothing of the harness is there yet, and the package's line is read.
        for name in [name for name in sys.modules if name.startswith("lm_eval") or name == "_qeval_lm_eval"]:
            del sys.modules[name]
        import _qeval_lm_eval  # noqa: F401
        from lm_eval.api.instance import Instance
        from lm_eval.api.registry import get_model

        lm = get_model("qeval").create_from_arg_string(f"pretrained={self.path}", {"batch_size": 1, "device": None})
        requests = [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]
        assert lm.loglikelihood(requests) == self.model.score(PAIRS)
        assert lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("Hello",), 0)]) == self.model.score_rolling(["Hello"])
        settings = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False}
        written = lm.generate_until([Instance("generate_until", {}, (PROMPT, settings), 0)])
        assert written == self.model.answer([PROMPT], settings) and written[0]
        template = lm.chat_template(True)
        assert template == self.model.chat_template() and "{" in template
        chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is "}]
        assert lm.apply_chat_template(chat, add_generation_prompt=False).endswith("The answer is ")
        assert lm.apply_chat_template(chat[:1]) == self.model.chat_prompt(chat[:1])


def main():
    model, *package = (Path(argument).resolve() for argument in sys.argv[1:3])
    sys.path[:0] = map(str, package)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of the Python that a check starts
    warnings.simplefilter("error")
    # A shell's background job ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = ok = 0

    def attempt(name, work):
        nonlocal failed, ok
        try:
            work()
        except ImportError as missing:
            print(f"skip {name}: {missing}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
        else:
            ok += 1
            print(f"ok   {name}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path(model.name).symlink_to(model)
        for heading, code, shown in examples((ROOT / "docs/python.md").read_text(encoding="utf-8")):
            attempt(f"docs/python.md, {heading}", lambda: run_example(code, shown))  # pylint: disable=cell-var-from-loop
        checks = Checks(model)
        for name in dir(Checks):
            if name.startswith("check_"):
                attempt(name.removeprefix("check_").replace("_", " "), getattr(checks, name))
        os.chdir("/")
    print(f"{ok} ok, {failed} failed")
    sys.exit(1 if failed or ok < 8 else 0)


if __name__ == "__main__":
    main()
