"""Arguments of Python as the words of a command line, so that the program's own checks and messages apply."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ._arguments import plain
from ._native import UsageError


def _word(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, (bytes, os.PathLike)) else str(value)


def words(options: Mapping[str, Any]) -> list[str]:
    """`max_length=512` as "--max-length", "512". None and False are left out, True is the option alone; lists are
    joined by commas, mappings are JSON. Bytes of a path that are not UTF-8 are as os.fsdecode has them."""
    out: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        option = "--" + name.replace("_", "-")
        if value is True:
            out.append(option)
            continue
        if isinstance(value, Mapping):
            text = json.dumps(plain(value, option), allow_nan=False)
        elif isinstance(value, (list, tuple)):
            text = ",".join(_word(item) for item in value)
        else:
            text = _word(value)
        if "\0" in text:
            raise UsageError(f"{option}: character {text.index(chr(0))} is NUL, which no option can have")
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UsageError(f"{option}: not Unicode: character {error.start} is half of a surrogate pair "
                             f"(U+{ord(text[error.start]):04X})") from None
        # Joined, a text that begins with a dash is a value; an empty one must stand alone.
        out += [f"{option}={text}"] if text else [option, ""]
    return out


def packed(given: Sequence[str]) -> list[list[int]]:
    """Words as the bytes that a program gets, which JSON has no texts for."""
    return [list(word.encode("utf-8", "surrogateescape")) for word in given]


def truth(value: Any) -> Any:
    """A boolean as the value of an option that takes true or false."""
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
