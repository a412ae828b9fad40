"""Results as lm-evaluation-harness lays them out."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

from ._native import Error

PathLike = Union[str, "os.PathLike[str]"]


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as missing:
        raise ImportError("a table needs pandas: pip install pandas") from missing
    return pandas


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Error(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Error(f"{path}: not JSON: {error}") from error


def metric_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per task or group, metric and filter."""
    rows = []
    for column in ("results", "groups"):
        for name, scores in results.get(column, {}).items():
            for key, value in scores.items():
                metric, comma, filter_name = key.partition(",")
                if not comma or metric.endswith("_stderr"):
                    continue
                rows.append({
                    "task": name,
                    "metric": metric,
                    "filter": filter_name,
                    "value": value,
                    "stderr": scores.get(f"{metric}_stderr,{filter_name}"),
                    "higher_is_better": results.get("higher_is_better", {}).get(name, {}).get(metric),
                    "n_shot": results.get("n-shot", {}).get(name),
                    "documents": results.get("n-samples", {}).get(name, {}).get("effective"),
                })
    return rows


class Results(dict[str, Any]):
    """A run's results.json: `results`, `groups`, `configs`, `versions`, `n-shot`, `n-samples`, `higher_is_better`, …
    as lm-evaluation-harness has them; and `samples`, where they were asked for: a list of documents per task."""

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row per task (or group), metric and filter."""
        return _pandas().DataFrame(metric_rows(self))

    def samples_to_pandas(self, task: Optional[str] = None) -> Any:
        """A pandas.DataFrame with a row per document of `task`, or of the only task."""
        samples = self.get("samples")
        if samples is None:
            raise Error("these results have no samples: evaluate(…, samples=True) keeps them")
        if task is None and len(samples) == 1:
            task = next(iter(samples))
        if task not in samples:
            raise Error(f"samples of {task}: accepted: {', '.join(samples)}")
        return _pandas().DataFrame(samples[task])


def read_samples(folder: Path, tasks: list[str]) -> dict[str, list[dict[str, Any]]]:
    out = {}
    for task in tasks:
        with open(folder / f"samples_{task}.jsonl", encoding="utf-8") as lines:
            out[task] = [json.loads(line) for line in lines]
    return out


def load_results(folder: PathLike, samples: bool = False) -> Results:
    """The results in an output folder of `evaluate` or `qeval eval`, with their samples if asked for."""
    path = Path(folder)
    results = Results(_read(path / "results.json"))
    if samples:
        results["samples"] = read_samples(path, list(results.get("configs", {})))
    return results
