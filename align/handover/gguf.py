"""GGUF by llama.cpp's own converter, where it is installed. No package that this one depends on brings it."""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from align.errors import InputError, StageError
from align.text import short

FILE = "model.gguf"
NAMES = ("convert_hf_to_gguf.py", "convert_hf_to_gguf", "convert-hf-to-gguf")
"""What llama.cpp and those who package it call the converter."""


def converter(given: str | None) -> list[str]:
    """The words that start the converter: those given, else what is on the PATH. Raises InputError if there is none."""
    if given:
        words = shlex.split(given)
        if words and shutil.which(words[0]):
            return words
        raise InputError(f"--converter {short(given)}: there is no such command.")
    for name in NAMES:
        if found := shutil.which(name):
            return [found]
    raise InputError(
        "llama.cpp's converter is not on the PATH: name it with --converter 'python llama.cpp/convert_hf_to_gguf.py', "
        f"or use --form merged and then `python llama.cpp/convert_hf_to_gguf.py DIR --outfile {FILE}` (docs/export.md)."
    )


def convert(words: Sequence[str], merged: Path, to: Path) -> None:
    """Write `<to>/model.gguf` from a merged model directory. Raises StageError with the converter's last words."""
    file = to / FILE
    done = subprocess.run(
        [*words, str(merged), "--outfile", str(file)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    said = [line.strip() for line in done.stdout.split("\n") if line.strip()]
    last = short(said[-1] if said else "it said nothing", 300)
    if done.returncode:
        raise StageError(f"llama.cpp's converter ended with status {done.returncode}: {last}")
    if not file.is_file() or file.open("rb").read(4) != b"GGUF":
        raise StageError(f"llama.cpp's converter wrote no GGUF file: {last}")
