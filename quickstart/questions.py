"""The questions: intents whose result says something, put into words, and the split that each belongs to."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from align.text import normalise, split_of
from quickstart.grammar import Intent, draw, sql
from quickstart.phrases import say

FRACTIONS = {"sft": 0.66, "preference": 0.1, "rejection": 0.14, "evaluation": 0.1}
WANTED = {"sft": 2900, "preference": 400, "rejection": 600, "evaluation": 400}
SECOND_WORDING = 0.3
SHARED_RESULT = 3


def result(con: Any, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, floats rounded to 6 significant digits."""
    return [
        tuple(float(f"{v:.6g}") if isinstance(v, float) else v for v in row) for row in con.execute(query).fetchall()
    ]


def _telling(con: Any, intent: Intent, query: str) -> list[tuple[Any, ...]] | None:
    """The result, or None where a wrong query could give it by luck: empty, tiny, tied, or with an idle filter."""
    rows = result(con, query)
    if not rows or len(rows) > 40 or any(v is None for row in rows for v in row):
        return None
    if intent.kind not in ("list", "rows", "top", "having", "group") and rows[0][0] in (0, 1, 2, 100.0):
        return None
    if intent.kind == "list" and not 2 <= len(rows) <= 15:
        return None
    if intent.kind in ("top", "rows"):
        longer = [row[1] for row in result(con, sql(replace(intent, n=intent.n + 1)))]
        if len(rows) < intent.n or len(set(longer)) < len(longer):
            return None
    for i in range(len(intent.filters)):
        wider = replace(intent, filters=intent.filters[:i] + intent.filters[i + 1 :])
        if sorted(result(con, sql(wider))) == sorted(rows):
            return None
    return rows


def collect(con: Any, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The questions of every split: {question, reference, lang}.

    An intent belongs to the split of its first wording; its second wording is kept only where it falls into the same
    split, so that no query is the answer in two splits.
    """
    rng = random.Random(f"questions {seed}")
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in FRACTIONS}
    seen: set[str] = set()
    results: Counter[str] = Counter()
    while any(len(splits[name]) < count for name, count in WANTED.items()):
        intent = draw(rng)
        query = sql(intent)
        langs = rng.sample(["en", "ko"], 2)
        first = say(intent, langs[0], "chat", rng)
        split = split_of(first, FRACTIONS, 0)
        if query in seen or normalise(first) in seen or len(splits[split]) >= WANTED[split]:
            continue
        rows = _telling(con, intent, query)
        if rows is None or results[key := repr(sorted(rows))] >= SHARED_RESULT:
            continue
        results[key] += 1
        wordings = [(first, langs[0])]
        if rng.random() < SECOND_WORDING:
            second = say(intent, langs[1], "chat", rng)
            wordings += [(second, langs[1])] if split_of(second, FRACTIONS, 0) == split else []
        seen |= {query, *(normalise(text) for text, _ in wordings)}
        splits[split] += [{"question": text, "reference": query, "lang": lang} for text, lang in wordings]
    return {name: rows[: WANTED[name]] for name, rows in splits.items()}
