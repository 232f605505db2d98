"""Near-duplicates: this pipeline beside datasketch, rensa's deduplicator and datatrove's MinHash pipeline.

    python -m benchmarks.near_duplicates [DOCUMENTS] [--only NAME]

Real rows (../shared/data; synthetic ones where it is absent), a quarter of them followed somewhere by a copy that was
edited in case, punctuation and 0 to 30 % of its words. A document is a duplicate if an earlier one has a Jaccard
similarity of at least 0.7 over word 3-grams: the truth is found by multiplying sparse matrices, not by hashing.
Each contender runs in a process of its own, gets the same texts and answers which documents are duplicates.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import peak

THRESHOLD, PERMUTATIONS, N = 0.7, 128, 3
SHARED = Path(__file__).parents[2] / "shared" / "data"
RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def corpus(n: int) -> list[str]:
    """Prompts with their responses, and edited copies of a quarter of them."""
    rng = random.Random(0)
    texts = _real() if SHARED.is_dir() else _synthetic(n)
    rng.shuffle(texts)
    texts = texts[: n * 4 // 5]
    words = [w for t in texts[:500] for w in t.split()]
    copies = [edited(rng.choice(texts), RATES[i % len(RATES)], words, rng) for i in range(n - len(texts))]
    every = texts + copies
    rng.shuffle(every)
    return every


def _real() -> list[str]:
    alpaca = json.loads((SHARED / "alpaca/alpaca_5000.json").read_text())
    lima = json.loads((SHARED / "lima/lima.json").read_text())
    found = [f"{r['instruction']} {r['input']} {r['output']}" for r in (*alpaca, *lima)]
    for line in (SHARED / "gsm8k/train.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.append(f"{row['question']} {row['answer']}")
    return [t for t in found if len(t.split()) >= 8]


def _synthetic(n: int) -> list[str]:
    from benchmarks.synthetic import texts

    return [f"{prompt} {response}" for prompt, response in texts(n, seed=1)]


def edited(text: str, rate: float, words: list[str], rng: random.Random) -> str:
    """The text with another case, other punctuation, and a share of its words replaced, dropped or added."""
    found = text.split()
    for _ in range(round(rate * len(found))):
        at, what = rng.randrange(len(found)), rng.random()
        found[at : at + (what < 0.9)] = [rng.choice(words)] * (what > 0.1)
    changed = " ".join(found)
    cases: list[Callable[[str], str]] = [str.upper, str.lower, str.title, str]
    return rng.choice(cases)(changed.replace(".", rng.choice([".", "!", " ;"])))


def shingles(text: str) -> list[str]:
    """Word n-grams of the normalised text: what every contender hashes."""
    from align.text import normalise

    words = normalise(text).split()
    return [" ".join(words[i : i + N]) for i in range(max(len(words) - N + 1, 1))]


# --- the contenders: texts in, for every document whether an earlier one is like it out ------------------------------


def ours(texts: list[str]) -> list[bool]:
    import pyarrow as pa

    from align.rules.minhash import alike
    from align.rules.shingles import all_units, bounds, each, grams, sets

    units = all_units(pa.chunked_array([texts]))
    parts = each(lambda b: sets(*grams(units.take(np.arange(*b)), N)), bounds(units.counts))
    offsets = np.cumsum(np.concatenate([[0], *(np.diff(o) for _, o in parts)]))
    pairs, _ = alike(np.concatenate([h for h, _ in parts]), offsets, np.arange(len(texts)), THRESHOLD, seed=0)
    return np.isin(np.arange(len(texts)), pairs[:, 1]).tolist()


def datasketch(texts: list[str]) -> list[bool]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    found = []
    for i, text in enumerate(texts):
        minhash = MinHash(num_perm=PERMUTATIONS)
        minhash.update_batch([s.encode() for s in shingles(text)])
        found.append(bool(index.query(minhash)))
        index.insert(str(i), minhash)
    return found


def rensa(texts: list[str]) -> list[bool]:
    from rensa import RMinHash, RMinHashDeduplicator

    deduplicator = RMinHashDeduplicator(THRESHOLD, PERMUTATIONS, True)
    minhashes = RMinHash.from_token_sets([shingles(t) for t in texts], PERMUTATIONS, 42)
    return [not new for new in deduplicator.add_pairs([(str(i), m) for i, m in enumerate(minhashes)])]


def datatrove(texts: list[str]) -> list[bool]:
    import struct

    import datatrove.pipeline.dedup.minhash as steps
    import xxhash
    from datatrove.data import Document
    from datatrove.utils.text import TextNormConfig

    class Split:  # instead of spaCy, which would be slower still
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    steps.load_word_tokenizer = lambda language: Split()
    config = steps.MinhashConfig(n_grams=N, norm_config=TextNormConfig(norm_numbers=False))  # 14 buckets of 8
    with tempfile.TemporaryDirectory() as folder:
        documents = (Document(text=t, id=str(i)) for i, t in enumerate(texts))
        signature = steps.MinhashDedupSignature(f"{folder}/signatures", config=config)
        signature._hash_func = lambda s: xxhash.xxh64_intdigest(s.encode())  # xxhash 4 takes bytes only
        signature.run(documents, 0, 1)
        for bucket in range(config.num_buckets):
            buckets = steps.MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
            list(buckets.run(None, bucket, config.num_buckets) or ())
        cluster = steps.MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config)
        list(cluster.run(None, 0, 1) or ())
        removed = {d for file in Path(folder, "remove").glob("*.remove")
                   for (d,) in struct.iter_unpack("<I", file.read_bytes())}  # fmt: skip
    return [i in removed for i in range(len(texts))]


CONTENDERS: dict[str, Callable[[list[str]], list[bool]]] = {
    "ours": ours, "rensa": rensa, "datasketch": datasketch, "datatrove": datatrove}  # fmt: skip


def truth(texts: list[str]) -> np.ndarray:
    """The highest exact similarity of each document to another, and to an earlier one. [documents, 2]"""
    from scipy.sparse import csr_matrix

    vocabulary: dict[str, int] = defaultdict(lambda: len(vocabulary))
    rows = [sorted({vocabulary[s] for s in shingles(t)}) for t in texts]
    indptr = np.cumsum([0, *map(len, rows)])
    held = csr_matrix((np.ones(indptr[-1], np.float32), np.concatenate(rows), indptr), (len(texts), len(vocabulary)))
    size, best = np.diff(indptr), np.zeros((len(texts), 2))
    for start in range(0, len(texts), 2000):
        common = (held[start : start + 2000] @ held.T).tocoo()
        a, b = common.row + start, common.col
        similar = common.data / (size[a] + size[b] - common.data)
        np.maximum.at(best[:, 0], a[a != b], similar[a != b])
        np.maximum.at(best[:, 1], a[b < a], similar[b < a])
    return best


def one(name: str, file: Path) -> None:
    """Run a contender in this process, three times; print the least seconds, memory and its answer."""
    texts = json.loads(file.read_text())
    CONTENDERS[name](texts[:50])  # imports and tables, which take the same for any number of documents
    walls, cpus = [], []
    for _ in range(3):
        start, cpu = time.perf_counter(), time.process_time()
        found = CONTENDERS[name](texts)
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu)
    print(json.dumps({"wall": min(walls), "cpu": min(cpus), "peak": peak(), "found": found}))


def main() -> None:
    arguments = sys.argv[1:]
    only = arguments[arguments.index("--only") + 1 :] if "--only" in arguments else list(CONTENDERS)
    n = int(arguments[0]) if arguments and arguments[0].isdigit() else 13_000
    texts = corpus(n)
    best = truth(texts)
    bands = [(lo / 100, lo / 100 + 0.05) for lo in range(70, 100, 5)]
    print(
        f"{len(texts)} documents, {(best[:, 1] >= THRESHOLD).sum()} of them like an earlier one; recall by similarity\n"
    )
    print("| | s | CPU s | docs/s | ours is × (CPU) | peak GB | precision | recall |",
          " | ".join(f"{lo:.2f}–{hi:.2f}" for lo, hi in bands), "|")  # fmt: skip
    print("|" + "---|" * (8 + len(bands)))
    base = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts))
        for name in only:
            command = [sys.executable, "-m", __spec__.name, "--one", name, str(file)]
            done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            r = json.loads(done.stdout.splitlines()[-1])
            base = base or r
            found = np.array(r["found"])
            # datatrove keeps another row of a cluster than the first: right is any that is like another one
            like = best[:, 0 if name == "datatrove" else 1] >= THRESHOLD
            right, due = found & like, best[:, 1] >= THRESHOLD
            hit = [found[due & (best[:, 1] >= lo) & (best[:, 1] < hi + (hi >= 1))].mean() for lo, hi in bands]
            precision = right.sum() / max(found.sum(), 1)
            recall = min(right.sum() / due.sum(), 1) if name == "datatrove" else found[due].mean()
            print(f"| {name} | {r['wall']:.1f} | {r['cpu']:.1f} | {len(texts) / r['wall']:,.0f} "
                  f"| {r['wall'] / base['wall']:.1f} ({r['cpu'] / base['cpu']:.1f}) | {r['peak'] / 1e9:.2f} "
                  f"| {precision:.4f} | {recall:.4f} |",
                  " | ".join("" if name == "datatrove" else f"{h:.3f}" for h in hit), "|", flush=True)  # fmt: skip


if __name__ == "__main__":
    one(sys.argv[2], Path(sys.argv[3])) if sys.argv[1:2] == ["--one"] else main()
