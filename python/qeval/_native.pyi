from collections.abc import Callable

version: str

class Error(RuntimeError):
    """What qeval cannot do: one line that says what is wrong, where, and what is accepted."""

class UsageError(Error):
    """An argument is wrong; the message names it as the program's option."""

class Model:
    """A loaded model; requests and answers are JSON (python/native/model.h). The observer is called with kind
    ("progress" or "warning"), text, tokens done and tokens in all."""

    def __new__(cls, words: str, observer: Callable[[str, str, int, int], None], /) -> Model: ...
    def call(self, name: str, request: str, observer: Callable[[str, str, int, int], None], /) -> str: ...
