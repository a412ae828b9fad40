"""Comparisons, carried out by the program: one may take hours, and a program of its own can be interrupted, killed
and started again without the interpreter that waits for it."""

import os
import signal
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from . import _arguments as check
from ._native import Error, UsageError
from ._program import PROGRAM
from ._words import words
from .results import PathLike, _pandas, _read, metric_rows

_WRONG_USAGE = 2


class Comparison(dict[str, Any]):
    """The results.json of a comparison: `base`, `runs` (each with its results, its differences from the base per task
    and their intervals) and `tests`. `folder` also holds report.md and report.html."""

    folder: Path

    @property
    def report(self) -> str:
        """The report in Markdown."""
        try:
            return (self.folder / "report.md").read_text(encoding="utf-8")
        except OSError as error:
            raise Error(f"{self.folder / 'report.md'}: {error.strerror}") from error

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row per run, task (or group) and metric: the run's value, the base's, their
        difference with its 95 % interval, and the p of the paired test where there is one."""
        rows = [{"run": self["base"]["name"], "task": row["task"], "metric": row["metric"], "value": row["value"],
                 "base": row["value"], "delta": 0.0} for row in metric_rows(self["base"]["results"])]
        for run in self["runs"]:
            for task, found in (*run["tasks"].items(), *run["groups"].items()):
                for metric, of in found["metrics"].items():
                    low, high = of["interval_95"] or (None, None)
                    rows.append({"run": run["name"], "task": task, "metric": metric, "value": of["value"],
                                 "base": of["base"], "delta": of["delta"], "low": low, "high": high, "p": of["p"]})
        columns = ["run", "task", "metric", "value", "base", "delta", "low", "high", "p"]
        return _pandas().DataFrame(rows, columns=columns)


def _run(arguments: Sequence[str], progress: Optional[bool]) -> None:
    """Runs the program; its last line on standard error becomes an exception."""
    output = None if progress else subprocess.DEVNULL
    with subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
                          text=True, encoding="utf-8", errors="replace") as child:
        assert child.stderr is not None
        last = ""
        try:
            for line in child.stderr:
                if not line.startswith("qeval: "):
                    continue
                if line.startswith("qeval: warning: "):
                    warnings.warn(line.removeprefix("qeval: warning: ").rstrip("\n"), stacklevel=3)
                else:
                    last = line.removeprefix("qeval: ").rstrip("\n")
        except BaseException:  # Ctrl-C, or a warning that is an error
            child.send_signal(signal.SIGINT)  # it keeps what is finished
            child.stderr.read()  # a full pipe would hold it up
            child.wait()
            raise
    if child.returncode:
        reason = last or f"qeval ended with status {child.returncode}"
        raise UsageError(reason) if child.returncode == _WRONG_USAGE else Error(reason)


def compare(model: PathLike, tasks: Union[str, Sequence[str]], *, output: PathLike,
            others: Union[PathLike, Sequence[PathLike]] = (), methods: Union[None, str, Sequence[str]] = None,
            schemes: Union[None, str, Sequence[str]] = None, calibration: Optional[PathLike] = None,
            text: Optional[PathLike] = None, data: PathLike = "data", limit: Optional[float] = None,
            progress: Optional[bool] = None, **options: Any) -> Comparison:
    """Compares a model in float with other checkpoints (`others`: "PATH", "PATH@integer" or "PATH@integer=LABEL") and
    with what `methods` make of it by `schemes`, calibrated on a text; `text` is one on which predictions are compared.
    This is `qeval compare`: any other of its options is accepted by its name with underscores, and the same call
    continues a comparison that was interrupted in `output`. `progress`: whether the program's own lines are shown."""
    for name in ("help", "with"):
        if name in options:
            raise UsageError(f"{name}: no argument of compare" + ("; others=… is --with" if name == "with" else ""))
    one = isinstance(others, (str, bytes, os.PathLike))
    listed = [others] if one else check.listed(others, "others", "paths")
    given = words({"model": model, "tasks": tasks, "data": data, "limit": limit, "methods": methods,
                   "schemes": schemes, "calibration": calibration, "text": text, **options, "output": output})
    for other in listed:
        given += words({"with": other})
    _run(["compare", *given], progress)
    folder = Path(os.fsdecode(output))
    comparison = Comparison(_read(folder / "results.json"))
    comparison.folder = folder
    return comparison
