#!/usr/bin/env python3
"""Files that are published inside Python packages: a virtual environment of this checkout's own, and wheels
downloaded with it. Standard library only; imported by fetch_model.py and fetch_datasets.py.

    scripts/packages.py NAME... [--alone NAME...]    installs packages there and prints its Python;
                                                     those behind --alone come without what they depend on
"""

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # Debian's


def stop(message):
    """Ends the script with one line on stderr."""
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def reason_of(output):
    """What to do about a failure of pip, whose last line only says that nothing was found."""
    if "CERTIFICATE_VERIFY_FAILED" in output or "invalid path:" in output:
        return "the package index's certificate is not trusted: PIP_CERT=FILE names the certificates that are"
    if any(sign in output for sign in ("ConnectionError", "TimeoutError", "ProxyError", "from versions: none")):
        return ("the package index cannot be reached: HTTPS_PROXY=URL names a proxy, PIP_INDEX_URL=URL another index, "
                "PIP_FIND_LINKS=DIR a folder of wheels with PIP_NO_INDEX=1")
    lines = output.strip().splitlines()
    return lines[-1] if lines else "no reason given"


def pip(arguments, what):
    environment = dict(os.environ)
    if "PIP_CERT" not in environment and SYSTEM_CERTIFICATES.exists():
        # pip brings certificates of its own, among which those that an administrator has added are missing.
        environment["PIP_CERT"] = str(SYSTEM_CERTIFICATES)
    result = subprocess.run([environment_python(), "-m", "pip", *arguments], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        stop(f"{what}: {reason_of(result.stderr or result.stdout)}")


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
        pip(["install", "--quiet", module], f"cannot install {module}")
    os.execv(python, [str(python), *sys.argv])


def download_wheel(name, version):
    """The path of a package's wheel in .cache/, downloaded unless it is there."""
    return download(name, version, f"{name.replace('-', '_')}-{version}-*.whl", "--only-binary")


def download_source(name, version):
    """Likewise of a package that is published as source alone."""
    return download(name, version, f"{name}-{version}.tar.gz", "--no-binary")


def download(name, version, pattern, kind):
    found = list(CACHE.glob(pattern))
    if not found:
        print(f"downloading the package {name} {version}", file=sys.stderr, flush=True)
        CACHE.mkdir(exist_ok=True)
        pip(["download", "--quiet", "--no-deps", kind, ":all:", "--dest", CACHE, f"{name}=={version}"],
            f"cannot download the package {name} {version}")
        found = list(CACHE.glob(pattern))
    if not found:
        stop(f"{CACHE}: holds no {pattern} after the download")
    return found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--alone", nargs="+", default=[], metavar="NAME")
    arguments = parser.parse_args()
    pip(["install", "--quiet", *arguments.names], f"cannot install {' '.join(arguments.names)}")
    if arguments.alone:
        pip(["install", "--quiet", "--no-deps", *arguments.alone], f"cannot install {' '.join(arguments.alone)}")
    print(environment_python())


if __name__ == "__main__":
    main()
