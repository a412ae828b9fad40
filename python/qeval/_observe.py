"""What is shown while work is under way."""

import sys
import warnings
from types import TracebackType
from typing import Any, Optional, Type


def _bar_class() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


class Observer:
    """Shows a bar of tqdm, where it is installed and shown, and passes warnings on. Called by the native module."""

    def __init__(self, progress: Optional[bool]) -> None:
        wanted = sys.stderr is not None and sys.stderr.isatty() if progress is None else progress
        self._class = _bar_class() if wanted else None
        self._bar: Any = None

    def __call__(self, kind: str, text: str, done: int, total: int) -> None:
        if kind == "warning":
            warnings.warn(text, stacklevel=4)
        elif self._class is not None:
            if self._bar is None:
                self._bar = self._class(total=total, unit=" tokens", unit_scale=True, leave=False)
            self._bar.set_description(text, refresh=False)
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if self._bar is not None:
            self._bar.close()
