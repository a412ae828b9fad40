"""A loaded model: scores, texts, evaluations."""

import json
import os
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from . import _arguments as check
from . import _native
from ._observe import Observer
from ._words import packed, truth, words
from .results import PathLike, Results, read_samples

Text = Union[str, Sequence[int]]


class Score(NamedTuple):
    """Of a continuation after its context: its log-likelihood, and whether every token was the likeliest."""

    logprob: float
    is_greedy: bool


class TokenScores(NamedTuple):
    """A score with what it consists of, per token of the continuation."""

    logprob: float
    is_greedy: bool
    tokens: list[int]
    token_logprobs: list[float]
    top1: list[int]  # the likeliest token at each place


class Generation(NamedTuple):
    """A text that was generated."""

    text: str
    tokens: list[int]
    finish: str  # "stop", "eos" or "length"


def _request(request: Any, index: int) -> dict[str, Any]:
    what = f"request {index}"
    if isinstance(request, (str, bytes, bytearray)) or not isinstance(request, Sequence) or len(request) != 2:
        raise _native.UsageError(f"{what}: a pair (context, continuation) is expected")
    kinds = {isinstance(part, str) for part in request}
    if kinds == {True}:
        return {"context": check.text(request[0], f"{what}, context"),
                "continuation": check.text(request[1], f"{what}, continuation")}
    if kinds == {False}:
        return {"context_ids": check.ids(request[0], f"{what}, context"),
                "continuation_ids": check.ids(request[1], f"{what}, continuation")}
    raise _native.UsageError(f"{what}: context and continuation are both texts, or both lists of token ids")


class Model:
    """A model that `load` has read. One call at a time computes; other threads of Python run meanwhile, and Ctrl-C
    ends a call between two batches."""

    def __init__(self, options: Mapping[str, Any], progress: Optional[bool] = None) -> None:
        self._progress = progress
        self._words = words(options)
        with Observer(progress) as observer:
            self._native = _native.Model(json.dumps(packed(self._words)), observer)
        self._about: dict[str, Any] = self._call("describe", {})

    def _call(self, name: str, request: Mapping[str, Any], progress: Optional[bool] = None) -> Any:
        with Observer(self._progress if progress is None else progress) as observer:
            return json.loads(self._native.call(name, json.dumps(request, allow_nan=False), observer))

    def __repr__(self) -> str:
        return f"<qeval.Model {self.path} in {self.arithmetic}>"

    @property
    def path(self) -> str:
        return str(self._about["path"])

    @property
    def arithmetic(self) -> str:
        """What the model computes in: "float", "fake", "integer", …"""
        return str(self._about["arithmetic"])

    @property
    def max_length(self) -> int:
        """The longest input, in tokens."""
        return int(self._about["max_length"])

    @property
    def vocab_size(self) -> int:
        return int(self._about["vocab_size"])

    @property
    def weight_hash(self) -> str:
        """SHA-256 of the weights, as results record it."""
        return str(self._about["weight_hash"])

    def score(self, requests: Iterable[tuple[Text, Text]], *, chat: bool = False,
              progress: Optional[bool] = None) -> list[Score]:
        """Log-likelihoods of continuations, of pairs (context, continuation): texts, or lists of token ids. What
        contexts share is computed once. `chat`: the contexts are prompts of a chat template, whose control tokens
        are meant."""
        return [Score(answer["logprob"], answer["is_greedy"])
                for answer in self._score(requests, chat, False, progress)]

    def score_tokens(self, requests: Iterable[tuple[Text, Text]], *, chat: bool = False,
                     progress: Optional[bool] = None) -> list[TokenScores]:
        """The same with every token's log-probability."""
        return [TokenScores(**answer) for answer in self._score(requests, chat, True, progress)]

    def _score(self, requests: Iterable[tuple[Text, Text]], chat: bool, details: bool,
               progress: Optional[bool]) -> list[dict[str, Any]]:
        pairs = [_request(request, i) for i, request in enumerate(check.listed(requests, "requests", "pairs"))]
        answers: list[dict[str, Any]] = self._call(
            "score", {"requests": pairs, "composed": check.flag(chat, "chat"), "details": details}, progress)
        return answers

    def score_rolling(self, texts: Iterable[str], *, progress: Optional[bool] = None) -> list[float]:
        """Log-likelihoods of whole texts, in windows of max_length tokens, as perplexities have them."""
        answers: list[float] = self._call("rolling", {"texts": check.texts(texts, "text")}, progress)
        return answers

    def generate(self, prompts: Iterable[str], *, max_tokens: int = 128, stop: Iterable[str] = (),
                 temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
                 ignore_eos: bool = False, chat: bool = False, progress: Optional[bool] = None) -> list[Generation]:
        """Continues prompts, many at once, as `qeval generate` does one: greedily, or with a temperature above 0 drawn
        with `seed`, the second prompt with seed + 1 and so on. A text ends before the first text of `stop`. `chat`:
        the prompts come from `chat_prompt`."""
        answers = self._call("generate", {
            "prompts": check.texts(prompts, "prompt"),
            "max_tokens": check.whole(max_tokens, "max_tokens"),
            "stop": check.texts(stop, "stop"),
            "temperature": check.number(temperature, "temperature"),
            "top_k": check.whole(top_k, "top_k"),
            "top_p": check.number(top_p, "top_p"),
            "seed": check.whole(seed, "seed", check.UINT64),
            "ignore_eos": check.flag(ignore_eos, "ignore_eos"),
            "composed": check.flag(chat, "chat")}, progress)
        return [Generation(**answer) for answer in answers]

    def answer(self, prompts: Iterable[str], settings: Optional[Mapping[str, Any]] = None, *, chat: bool = False,
               progress: Optional[bool] = None) -> list[str]:
        """What an evaluation gets for these prompts: `settings` as in the harness's gen_kwargs (until, max_gen_toks,
        do_sample, temperature, …), prompts that are too long cut on their left."""
        answers: list[str] = self._call("answer", {
            "prompts": check.texts(prompts, "prompt"),
            "settings": check.mapping({} if settings is None else settings, "settings"),
            "composed": check.flag(chat, "chat")}, progress)
        return answers

    def chat_template(self, name: str = "") -> str:
        """The source of the model's chat template."""
        return str(self._call("template", {"name": check.text(name, "name")}))

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], *, name: str = "",
                    arguments: Optional[Mapping[str, Any]] = None, add_generation_prompt: bool = True) -> str:
        """A conversation, [{"role": "user", "content": "…"}, …], as a prompt by the model's own template. Score or
        continue it with chat=True."""
        conversation = [check.mapping(message, f"message {i}")
                        for i, message in enumerate(check.listed(messages, "messages", "messages"))]
        return str(self._call("chat", {
            "conversations": [conversation], "name": check.text(name, "name"),
            "arguments": check.mapping({} if arguments is None else arguments, "arguments"),
            "prompt": check.flag(add_generation_prompt, "add_generation_prompt")})[0])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens that stand around one."""
        found: list[int] = self._call("encode", {"text": check.text(text, "text")})
        return found

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._call("decode", {"ids": check.ids(ids, "ids")}))

    def evaluate(self, tasks: Union[str, Sequence[str]], *, data: PathLike = "data", limit: Optional[float] = None,
                 num_fewshot: Optional[int] = None, split: Optional[str] = None, samples: bool = False,
                 output: Optional[PathLike] = None, resume: bool = False, keep_logprobs: bool = False,
                 base: Optional[PathLike] = None, seed: Optional[int] = None,
                 gen_kwargs: Union[None, str, Mapping[str, Any]] = None,
                 apply_chat_template: Union[bool, str] = False, system_instruction: Optional[str] = None,
                 fewshot_as_multiturn: Optional[bool] = None,
                 chat_template_args: Union[None, str, Mapping[str, Any]] = None,
                 confirm_run_unsafe_code: bool = False, progress: Optional[bool] = None) -> Results:
        """Scores the model on tasks (names, groups, wildcards, description files), as `qeval eval` does with the
        options of these names. `output` is a folder for results.json and the samples, in which an interrupted run
        is continued with `resume`; without it nothing is written. `samples`: the documents are returned as well."""
        if resume and output is None:
            raise _native.UsageError("--resume needs the output folder: output=DIR")
        for name, value in (("system_instruction", system_instruction), ("gen_kwargs", gen_kwargs),
                            ("apply_chat_template", apply_chat_template), ("chat_template_args", chat_template_args)):
            if isinstance(value, str):
                check.text(value, name)
        options = {
            "tasks": tasks, "data": data, "limit": limit, "num_fewshot": num_fewshot, "split": split,
            "resume": resume, "keep_logprobs": keep_logprobs, "base": base, "seed": seed, "gen_kwargs": gen_kwargs,
            "apply_chat_template": apply_chat_template, "system_instruction": system_instruction,
            "fewshot_as_multiturn": truth(fewshot_as_multiturn), "chat_template_args": chat_template_args,
            "confirm_run_unsafe_code": confirm_run_unsafe_code, "output": output}
        with tempfile.TemporaryDirectory(prefix="qeval-") as scratch:
            folder = Path(os.fsdecode(output)) if output is not None else Path(scratch) / "run" if samples else None
            given = words(options)
            # What reproduces the run; the temporary folder is no part of it.
            command = shlex.join(["qeval", "eval", *self._words, *(w for w in given if w != "--resume")])
            command = command.encode("utf-8", "backslashreplace").decode()  # of paths that are not UTF-8
            if output is None and folder is not None:
                given += words({"output": folder})
            results = Results(self._call(
                "evaluate", {"words": packed(given), "command": command}, progress))
            if samples and folder is not None:
                results["samples"] = read_samples(folder, list(results["configs"]))
        return results


def load(path: PathLike, arithmetic: Optional[str] = None, *, kv_type: Optional[str] = None,
         precision: Optional[str] = None, qcfg: Optional[PathLike] = None, act_ranges: Optional[PathLike] = None,
         gptq_zeros: Optional[str] = None, max_length: Optional[int] = None, batch_tokens: Optional[int] = None,
         protocol: Optional[str] = None, prefix_token: Optional[str] = None, add_bos_token: Union[bool, str, None] = None,
         threads: Optional[int] = None, progress: Optional[bool] = None) -> Model:
    """Reads a model: a Hugging Face folder, a checkpoint of `qeval quantize`, or a GGUF file. The arithmetic is
    "float", "fake" (quantization simulated), "integer" or "ggml"; without one a quantized checkpoint is simulated
    and all else is float. The other arguments are the options of `qeval eval` with these names. `progress`: whether
    calls show a bar (None: on a terminal; needs tqdm)."""
    return Model({
        "model": path, "arithmetic": arithmetic, "kv_type": kv_type, "precision": precision, "qcfg": qcfg,
        "act_ranges": act_ranges, "gptq_zeros": gptq_zeros, "max_length": max_length, "batch_tokens": batch_tokens,
        "protocol": protocol, "prefix_token": prefix_token, "add_bos_token": truth(add_bos_token),
        "threads": threads}, progress)
