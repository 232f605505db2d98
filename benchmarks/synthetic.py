"""Instruction rows that nobody wrote: English and Korean of natural lengths and word frequencies, with some defects."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from align.tables import ROWS
from align.text import digest

FUNCTION = "the of and to in is that it for was on are as with be this by at from or have an they not you which"
ASK = {
    "en": ["Explain how the", "Write a short story about the", "What is the difference between",
           "Give three reasons why", "Summarize the text about"],
    "ko": ["다음에 대해 설명해 주세요", "짧은 글을 써 주세요", "차이점이 무엇인가요", "세 가지 이유를 알려 주세요"],
}  # fmt: skip


def _vocabulary(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    letters = np.array(list("aaabcdeeeefghiiklmnoooprrssttuvwy"))
    english = ["".join(rng.choice(letters, rng.integers(3, 11))) for _ in range(n)]
    korean = ["".join(map(chr, rng.integers(0xAC00, 0xAC00 + 2400, rng.integers(2, 5)))) for _ in range(n)]
    return {"en": np.array([*FUNCTION.split(), *english], object), "ko": np.array(korean, object)}


def texts(n: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(prompt, response) pairs: about 90 and 300 characters, one in five in Korean, one in 50 a near copy."""
    rng = np.random.default_rng(seed)
    words, often_used = _vocabulary(rng, 30_000), np.array(FUNCTION.split(), object)
    past: list[tuple[str, str]] = []
    while n > 0:
        block = min(n, 10_000)
        n -= block
        lengths = np.maximum(rng.lognormal([2.2, 3.7], [0.5, 0.7], (block, 2)).astype(int), 3)
        for size in lengths:
            lang = "ko" if rng.random() < 0.2 else "en"
            pool, kind = words[lang], rng.random()
            if past and kind < 0.02:
                prompt, response = past[rng.integers(len(past))]
                if kind < 0.01:  # as it is but for case and space, or with another word
                    yield prompt.upper(), response.replace(" ", "  ", 1)
                else:
                    yield prompt + " " + rng.choice(words[lang]), response + " " + rng.choice(words[lang]) + "."
                continue
            drawn = pool[(len(pool) ** rng.random(size.sum())).astype(int)]  # Zipf's law with exponent 1
            if lang == "en":
                often = rng.random(len(drawn)) < np.where(np.arange(len(drawn)) < size[0], 0.2, 0.4)
                drawn[often] = often_used[(len(often_used) * rng.random(often.sum()) ** 2).astype(int)]
            prompt = f"{rng.choice(ASK[lang])} {' '.join(drawn[: size[0]])}?"
            body = list(drawn[size[0] :])
            for i in range(9, len(body) - 3, 12):
                body[i] += "."
            response = " ".join(body).capitalize() + "."
            if kind > 0.995:
                response = "As an AI language model, I cannot help with that."
            if len(past) < 5000:
                past.append((prompt, response))
            yield prompt, response


def write(path: Path, n: int, items: int = 1000, seed: int = 0) -> None:
    """A ROWS file of n instructions and some evaluation items."""
    with pq.ParquetWriter(path, ROWS, compression="zstd") as writer:
        group: list[dict[str, object]] = []
        for i, (prompt, response) in enumerate(texts(n + items, seed)):
            held = i >= n
            group.append({
                "row_id": digest(prompt, response), "source": "questions" if held else "synthetic",
                "use": "evaluation" if held else "instructions", "split": "evaluation" if held else "sft",
                "messages": [{"role": "user", "content": prompt}], "prompt": prompt,
                "response": None if held else response, "reference": response if held else None, "meta": "{}",
            })  # fmt: skip
            if len(group) == 20_000 or i == n + items - 1:
                writer.write_table(pa.Table.from_pylist(group, schema=ROWS))
                group = []
