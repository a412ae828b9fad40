"""Arguments of Python as the words of a command line, so that the program's own checks and messages apply."""

import json
import os
from collections.abc import Mapping
from typing import Any


def words(options: Mapping[str, Any]) -> list[str]:
    """`max_length=512` as "--max-length", "512". None and False are left out, True is the option alone; lists are
    joined by commas, mappings are JSON."""
    out: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        option = "--" + name.replace("_", "-")
        if value is True:
            out.append(option)
            continue
        if isinstance(value, Mapping):
            text = json.dumps(value)
        elif isinstance(value, (list, tuple)):
            text = ",".join(os.fspath(item) if isinstance(item, os.PathLike) else str(item) for item in value)
        else:
            text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        # Joined, a text that begins with a dash is a value; an empty one must stand alone.
        out += [f"{option}={text}"] if text else [option, ""]
    return out


def truth(value: Any) -> Any:
    """A boolean as the value of an option that takes true or false."""
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
