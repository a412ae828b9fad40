"""The program that the package brings along."""

import os
import sys
from pathlib import Path
from typing import NoReturn

PROGRAM = Path(__file__).parent / "bin" / "qeval"


def main() -> NoReturn:
    """Becomes the program: signals, exit status and streams are its own."""
    os.execv(PROGRAM, ["qeval", *sys.argv[1:]])
