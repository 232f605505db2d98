"""The raw instruction data: clean rows, and rows with a planted defect of a named kind."""

import random
import re
from collections.abc import Callable
from typing import Any

from align.text import normalise, split_of
from quickstart.prose import LANGUAGES, prose, refusal
from quickstart.questions import FRACTIONS, result

Row = dict[str, Any]

# Rows of each kind: 1,170 of 3,000. The kinds of the first group get a question of their own.
OWN = {"truncated": 180, "empty": 90, "mismatched": 250, "wrong_sql": 150, "wrong_language": 130, "refusal": 110}
DERIVED = {"exact_duplicate": 110, "near_duplicate": 110, "leak": 40}
CLEAN = 1830

_SYNONYMS = [
    ("Show me", "Show"),
    ("Tell me", "Give me"),
    ("Could you", "Can you"),
    ("How many", "how many"),
    ("What is", "What's"),
    ("I would like to know", "I want to know"),
    ("알려 주세요", "알려주세요"),
    ("알려 줘", "알려줘"),
    ("보여 주세요", "보여주세요"),
    ("인가요", "입니까"),
    ("궁금해요", "궁금합니다"),
    ("Count the", "Count all"),
    ("Give me", "List"),
    ("Which", "which"),
]
_BEFORE = {"en": ["Please: ", "Hi, ", "Quick question: ", "OK, "], "ko": ["혹시 ", "안녕하세요, ", "질문: ", "저기요 "]}
_AFTER = {"en": [" Thanks!", " Please.", " Thank you."], "ko": [" 감사합니다.", " 부탁해요.", " 고마워요!"]}


def edited(question: str, lang: str, rng: random.Random) -> str:
    """The question with another case, punctuation, or one or two other words; its meaning stays."""
    stem = question.rstrip("?.")
    pick = rng.randrange(4)
    if pick == 0:
        return rng.choice([stem, stem + "??", stem + "!", stem + " ?", stem + "..."])
    if pick == 1:
        return rng.choice([question.lower(), question.upper(), stem.lower()]) if lang == "en" else stem + " ..."
    if pick == 2:
        for old, new in rng.sample(_SYNONYMS, len(_SYNONYMS)):
            if old in question:
                return question.replace(old, new)
    return rng.choice(_BEFORE[lang]) + question if rng.random() < 0.5 else question + rng.choice(_AFTER[lang])


def _truncated(row: Row, con: Any, rng: random.Random) -> str:
    sql = row["reference"]
    return sql[: rng.randint(int(len(sql) * 0.25), int(len(sql) * 0.85))].rstrip("; ")


def _misspelt(sql: str, rng: random.Random) -> str:
    names = re.findall(
        r"\b(?:customers|products|orders|order_items|points|amount|category|price|status|city|quantity"
        r"|stock|brand|payment|birth_year|ordered|joined|grade)\b",
        sql,
    )
    name = rng.choice(names)
    i = rng.randrange(1, len(name) - 1)
    wrong = rng.choice(
        [
            name[:i] + name[i + 1 :],
            name[:i] + name[i + 1] + name[i] + name[i + 2 :],
            name + "_name",
            name + "s",
            name[:i] + name[i] + name[i:],
        ]
    )
    return re.sub(rf"\b{name}\b", wrong, sql, count=1)


def _wrong_sql(row: Row, con: Any, rng: random.Random) -> str:
    """SQL that the engine refuses: a misspelt name, a lost bracket or keyword, an unclosed quote."""
    edits: list[Callable[[str], str]] = [
        lambda s: _misspelt(s, rng),
        lambda s: _misspelt(s, rng),
        lambda s: s.replace(")", "", 1),
        lambda s: s.replace(" FROM", "", 1),
        lambda s: s.replace("SELECT", "SELCT"),
        lambda s: s.replace("WHERE", "WERE"),
        lambda s: s.replace("';", ";"),
        lambda s: s.replace(" AND ", " AND AND ", 1),
        lambda s: s.replace("GROUP BY", "GROUP"),
        lambda s: s.replace("SUM(", "TOTAL(").replace("AVG(", "MEANOF("),
        lambda s: s.replace(" ON ", " OON ", 1),
    ]
    while True:
        wrong = rng.choice(edits)(row["reference"])
        try:
            con.execute("EXPLAIN " + wrong)
        except Exception:
            return wrong


def _mismatched(row: Row, con: Any, rng: random.Random, clean: list[Row]) -> Row:
    rows = result(con, row["reference"])
    while True:
        other = rng.choice(clean)
        if result(con, other["reference"]) != rows:
            return other


def _wrong_language(row: Row, con: Any, rng: random.Random) -> str:
    return prose(rng.choice([lang for lang in LANGUAGES if lang != row["lang"]]), rng)


def _derived(kind: str, base: Row, rng: random.Random) -> Row:
    """A copy of a row under the same or an edited question, which must not fall into a split that is not trained on."""
    answer = base["reference"]
    if kind == "exact_duplicate" or (kind == "leak" and rng.random() < 0.4):
        return {"question": base["question"], "answer": answer, "defect": kind, "defect_of": base["question"]}
    while True:
        question = edited(base["question"], base["lang"], rng)
        same = normalise(question) == normalise(base["question"])
        if question != base["question"] and (same or split_of(question, FRACTIONS, 0) == "sft"):
            return {"question": question, "answer": answer, "defect": kind, "defect_of": base["question"]}


def instructions(con: Any, questions: list[Row], evaluation: list[Row], seed: int = 0) -> list[Row]:
    """Rows {question, answer, defect, defect_of}, shuffled. `defect_of` is the question that a row derives from."""
    rng = random.Random(f"defects {seed}")
    pool = rng.sample(questions, len(questions))
    clean, rest = pool[:CLEAN], pool[CLEAN:]
    rows: list[Row] = [
        {"question": r["question"], "answer": r["reference"], "defect": None, "defect_of": None} for r in clean
    ]
    simple = {"truncated": _truncated, "wrong_sql": _wrong_sql, "wrong_language": _wrong_language}
    for kind, count in OWN.items():
        for _ in range(count):
            row, of = rest.pop(), None
            if kind == "empty":
                answer = rng.choice(["", "", " ", "\n", "..."])
            elif kind == "refusal":
                answer = refusal(row["lang"], rng)
            elif kind == "mismatched":
                other = _mismatched(row, con, rng, clean)
                answer, of = other["reference"], other["question"]
            else:
                answer = simple[kind](row, con, rng)
            rows.append({"question": row["question"], "answer": answer, "defect": kind, "defect_of": of})
    for kind, count in DERIVED.items():
        bases = rng.sample(evaluation if kind == "leak" else clean, count)
        rows += [_derived(kind, base, rng) for base in bases]
    rng.shuffle(rows)
    return rows
