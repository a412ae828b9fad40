"""qeval as a model of lm-evaluation-harness: `lm_eval --model qeval --model_args pretrained=PATH,arithmetic=integer`.

The harness finds the class by the entry point "lm_eval.models" of the package, or by qeval_lm_eval.pth.
"""

import json
from pathlib import Path
from typing import Any, Optional, Union

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
import lm_eval.models  # noqa: F401  (the registry is filled by it only while it is empty)

from ._native import UsageError
from .model import load


def _flag(value: Any) -> Any:
    """A boolean that the harness's --model_args may have left a text."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


class QevalLM(LM):  # type: ignore[misc]  # the harness has no types
    """The arguments are those of qeval.load, `pretrained` being the path. Scores do not depend on the batch, so the
    harness's batch sizes are taken and not used: `batch_tokens` is qeval's own, for speed and memory. Nor is its
    device, which it names ("cuda:0") where nobody has: qeval computes on the CPU."""

    def __init__(self, pretrained: str, arithmetic: Optional[str] = None, batch_size: Any = None,
                 max_batch_size: Any = None, device: Optional[str] = None, chat_template_args: Any = None,
                 add_bos_token: Any = None, **options: Any) -> None:
        super().__init__()
        if isinstance(chat_template_args, str):
            chat_template_args = json.loads(chat_template_args)
        self.model = load(pretrained, arithmetic, add_bos_token=_flag(add_bos_token), **options)
        self._template_name = ""
        self._template_args = dict(chat_template_args or {})
        self._chat = False

    @property
    def max_length(self) -> int:
        return self.model.max_length

    @property
    def tokenizer_name(self) -> str:
        return Path(self.model.path).name

    def get_model_info(self) -> dict[str, Any]:
        """For the harness's results."""
        return {"model_dtype": self.model.arithmetic, "model_sha": self.model.weight_hash}

    def chat_template(self, chat_template: Union[bool, str] = False) -> str:
        """The source of the template that prompts are put into from here on."""
        if chat_template is False:
            self._chat = False
            return ""
        self._chat = True
        self._template_name = chat_template if isinstance(chat_template, str) else ""
        return self.model.chat_template(self._template_name)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        self._chat = True
        prompt = self.model.chat_prompt(chat_history, name=self._template_name, arguments=self._template_args,
                                        add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return prompt
        # The last message goes on: what the template writes behind it is cut off, as transformers does.
        message = chat_history[-1]["content"]
        at = prompt.rfind(message.strip())
        if at < 0:
            raise UsageError("the chat template does not print the last message, which is to be continued")
        whole = prompt[at:at + len(message.lstrip())] == message
        return prompt[:at + len(message.lstrip() if whole else message.strip())]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        pairs = [request.args for request in requests]
        answers = [(score.logprob, score.is_greedy) for score in self.model.score(pairs, chat=self._chat)]
        for pair, answer in zip(pairs, answers):
            self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        texts = [request.args[0] for request in requests]
        answers = self.model.score_rolling(texts)
        for text, answer in zip(texts, answers):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return answers

    def generate_until(self, requests: list[Instance]) -> list[str]:
        groups: dict[str, list[int]] = {}  # of requests with equal settings
        for i, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        answers = [""] * len(requests)
        for members in groups.values():
            settings = requests[members[0]].args[1]
            prompts = [requests[i].args[0] for i in members]
            for i, answer in zip(members, self.model.answer(prompts, settings, chat=self._chat)):
                answers[i] = answer
                self.cache_hook.add_partial("generate_until", requests[i].args, answer)
        return answers


if "qeval" not in model_registry:
    model_registry.register("qeval", target=QevalLM)
