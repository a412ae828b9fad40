"""Files that are published inside Python packages: a virtual environment of this checkout's own, and wheels
downloaded with it. Standard library only; imported by fetch_model.py and fetch_datasets.py."""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"


def stop(message):
    """Ends the script with one line on stderr."""
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def run(command, what):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        stop(f"{what}: {lines[-1] if lines else f'exit {result.returncode}'}")


def environment_python():
    """The interpreter of .venv/, which is made if it is missing or was left half made."""
    python = VENV / "bin" / "python"
    probe = [python, "-c", "import pip"]
    if not python.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        try:
            venv.create(VENV, clear=True, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            stop(f"{VENV}: cannot make a virtual environment ({error}); Debian needs the package python3-venv")
    return python


def reexecute_with(module):
    """Runs this script again in .venv/, with `module` installed there; returns where that is so already."""
    python = environment_python()
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
        print(f"installing {module} into {VENV}", file=sys.stderr, flush=True)
        run([python, "-m", "pip", "install", "--quiet", module], f"cannot install {module}")
    os.execv(python, [str(python), *sys.argv])


def download_wheel(name, version):
    """The path of a package's wheel in .cache/, downloaded unless it is there."""
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    found = list(CACHE.glob(pattern))
    if not found:
        print(f"downloading the package {name} {version}", file=sys.stderr, flush=True)
        CACHE.mkdir(exist_ok=True)
        run([environment_python(), "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
             "--dest", CACHE, f"{name}=={version}"], f"cannot download the package {name} {version}")
        found = list(CACHE.glob(pattern))
    if not found:
        stop(f"{CACHE}: holds no {pattern} after the download")
    return found[0]
