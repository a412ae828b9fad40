"""Arguments are checked before they become JSON: a number that JSON or C++ would make another of, or a text that is
none, is refused by the argument's name."""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ._native import UsageError

INT64 = (-(2**63), 2**63 - 1)
UINT64 = (0, 2**64 - 1)
_DEPTH = 32  # of lists and mappings in one another


def refuse(what: str, expected: str, value: Any) -> NoReturn:
    raise UsageError(f"{what}: {expected} is expected, not {type(value).__name__}")


def text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        refuse(what, "a str", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what}: not Unicode: character {error.start} is half of a surrogate pair "
                         f"(U+{ord(value[error.start]):04X})") from None
    return str(value)


def listed(values: Any, what: str, of: str) -> list[Any]:
    """The members of what can be iterated over, in an order, and is not a text, bytes or a mapping."""
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping, set, frozenset)):
        refuse(what, f"a list of {of}", values)
    try:
        return list(values)
    except TypeError:
        if isinstance(values, Iterable):
            raise  # by what it iterates over
        refuse(what, f"a list of {of}", values)


def texts(values: Any, what: str) -> list[str]:
    return [text(value, f"{what} {i}") for i, value in enumerate(listed(values, what, "texts"))]


def whole(value: Any, what: str, limits: tuple[int, int] = INT64) -> int:
    """An int, or what is one by itself, as numpy's are."""
    if isinstance(value, bool):
        refuse(what, "a whole number", value)
    try:
        number = operator.index(value)
    except TypeError:
        refuse(what, "a whole number", value)
    if not limits[0] <= number <= limits[1]:
        shown = str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"
        raise UsageError(f"{what}: {shown}; accepted: {limits[0]} to {limits[1]}")
    return number


def ids(values: Any, what: str) -> list[int]:
    return [whole(value, f"{what}, token {i}") for i, value in enumerate(listed(values, what, "token ids"))]


def number(value: Any, what: str) -> float:
    if isinstance(value, (bool, str, bytes, bytearray)):
        refuse(what, "a number", value)
    try:
        found = float(value)
    except (TypeError, ValueError):
        refuse(what, "a number", value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise UsageError(f"{what}: {found}; a finite number is expected")
    return found


def flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        refuse(what, "True or False", value)
    return value


def plain(value: Any, what: str, depth: int = 0) -> Any:
    """What JSON can say: texts, numbers, truths, None, lists of them and mappings by texts."""
    if depth > _DEPTH:
        raise UsageError(f"{what}: more than {_DEPTH} levels of lists and mappings")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, what)
    if isinstance(value, float):
        return number(value, what)
    if isinstance(value, Mapping):
        return {text(name, f"{what}, a name"): plain(member, f"{what}, {text(name, what)}", depth + 1)
                for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(member, f"{what}, {i}", depth + 1) for i, member in enumerate(value)]
    if hasattr(value, "__index__"):
        return whole(value, what, (INT64[0], UINT64[1]))
    refuse(what, "what JSON can say", value)


def mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        refuse(what, "a mapping", value)
    found: dict[str, Any] = plain(value, what)
    return found
