"""What two runs differ in before any model: rows that were read, verdicts of the filter, and preference pairs."""

from pathlib import Path
from typing import Any

from align.comparison.found import Group, Pairs, Rows, Verdicts
from align.comparison.reading import Row, by_key, connect
from align.comparison.reading import rows as ask

ROWS = ["row_id", "source", "use", "split", "prompt", "response", "chosen", "rejected", "reference"]
VERDICTS = ["row_id", "prompt", "response", "kept", "reason", "evidence"]
PAIRS = ["row_id", "messages", "chosen", "rejected", "labelled_by"]

_ROWS = """
CREATE TEMP TABLE matched AS
WITH b AS (SELECT row_id, use, min(split) AS split, min(prompt) AS prompt FROM before GROUP BY row_id, use),
     a AS (SELECT row_id, use, min(split) AS split, min(prompt) AS prompt FROM after GROUP BY row_id, use),
     gone AS (SELECT *, row_number() OVER (PARTITION BY use, split, prompt ORDER BY row_id) AS nth
              FROM b ANTI JOIN a USING (row_id, use)),
     come AS (SELECT *, row_number() OVER (PARTITION BY use, split, prompt ORDER BY row_id) AS nth
              FROM a ANTI JOIN b USING (row_id, use))
SELECT use, b.split AS split_before, a.split AS split_after, row_id AS id_before, row_id AS id_after,
       CASE WHEN b.split = a.split THEN 'same' ELSE 'moved' END AS kind
FROM b JOIN a USING (row_id, use)
UNION ALL
SELECT use, gone.split, come.split, gone.row_id, come.row_id,
       CASE WHEN gone.row_id IS NULL THEN 'added' WHEN come.row_id IS NULL THEN 'removed' ELSE 'changed' END
FROM gone FULL JOIN come USING (use, split, prompt, nth)
"""


def rows(before: Path, after: Path, n: int) -> Rows:
    """Compare two tables of ROWS. A row is its row_id and its use: one row for two uses counts for both."""
    with connect(before=before, after=after) as con:
        con.execute(_ROWS)
        counts = ask(con, "SELECT use, split_before, split_after, kind, count(*) AS n FROM matched GROUP BY ALL")
        found = ask(con, """
            SELECT kind, use, split_before, split_after, id_before, id_after FROM matched WHERE kind <> 'same'
            QUALIFY row_number() OVER (PARTITION BY kind ORDER BY coalesce(id_after, id_before), use) <= $n
            ORDER BY kind, coalesce(id_after, id_before), use
        """, n=n)  # fmt: skip
        for side in ("before", "after"):
            texts = by_key(ask(con, f"""
                SELECT row_id, use, source, prompt, response, chosen, rejected, reference FROM {side}
                WHERE row_id IN (SELECT unnest($ids)) ORDER BY source
            """, ids=[e[f"id_{side}"] for e in found if e[f"id_{side}"]]), "row_id", "use")  # fmt: skip
            for example in found:
                row = texts.get((example.pop(f"id_{side}"), example["use"]))
                example[side] = {k: v for k, v in row.items() if k != "use"} if row else None
    return Rows(_groups(counts), found)


def _groups(counts: list[Row]) -> list[Group]:
    groups: dict[tuple[str, str], dict[str, int]] = {}

    def add(use: str, split: str, **numbers: int) -> None:
        group = groups.setdefault((use, split), {})
        for name, number in numbers.items():
            group[name] = group.get(name, 0) + number

    for c in counts:
        use, kind, n = c["use"], c["kind"], c["n"]
        if c["split_before"]:
            add(use, c["split_before"], before=n, **{"moved_out" if kind == "moved" else kind: n})
        if c["split_after"]:
            counted = {"moved_in": n} if kind == "moved" else {"added": n} if kind == "added" else {}
            add(use, c["split_after"], after=n, **counted)
    return [Group(use, split, **numbers) for (use, split), numbers in sorted(groups.items())]


_JUDGED = """
CREATE TEMP TABLE judged AS
WITH b AS (SELECT row_id, bool_or(kept) AS kept, min(reason) AS reason FROM before GROUP BY row_id),
     a AS (SELECT row_id, bool_or(kept) AS kept, min(reason) AS reason FROM after GROUP BY row_id)
SELECT row_id, CASE WHEN NOT b.kept THEN coalesce(b.reason, '?') END AS was,
       CASE WHEN NOT a.kept THEN coalesce(a.reason, '?') END AS now
FROM b JOIN a USING (row_id)
"""


def verdicts(before: Path, after: Path, n: int) -> Verdicts:
    """Compare two tables of INSTRUCTIONS on the rows that stand in both."""
    with connect(before=before, after=after) as con:
        con.execute(_JUDGED)
        counts = ask(con, """
            SELECT was AS before, now AS after, count(*) AS rows FROM judged GROUP BY ALL
            ORDER BY rows DESC, was NULLS FIRST, now NULLS FIRST
        """)  # fmt: skip
        found = ask(con, """
            SELECT row_id, was AS before, now AS after FROM judged WHERE was IS DISTINCT FROM now
            QUALIFY row_number() OVER (PARTITION BY was IS NULL, now IS NULL ORDER BY row_id) <= $n
            ORDER BY was IS NULL DESC, now IS NULL DESC, row_id
        """, n=n)  # fmt: skip
        ids = [e["row_id"] for e in found]
        texts = "SELECT row_id, prompt, response, kept, evidence FROM {} WHERE row_id IN (SELECT unnest($ids))"
        seen = {side: by_key(ask(con, texts.format(side), ids=ids), "row_id") for side in ("before", "after")}
    for example in found:
        at = (example["row_id"],)
        example |= {k: seen["after"][at][k] for k in ("prompt", "response")}
        example["evidence"] = seen["before" if example["after"] is None else "after"][at]["evidence"]
    return Verdicts(
        shared=sum(c["rows"] for c in counts),
        kept_before=sum(c["rows"] for c in counts if c["before"] is None),
        kept_after=sum(c["rows"] for c in counts if c["after"] is None),
        changes=[c for c in counts if c["before"] != c["after"]],
        examples=found,
    )


# A preference of an imported row is part of its row_id: prompts are the same where their turns are.
_SIDE = """
SELECT coalesce(nullif(CAST(messages AS VARCHAR), '[]'), row_id) AS prompt, least(chosen, rejected) AS one,
       greatest(chosen, rejected) AS two, bool_or(chosen <= rejected) AS one_wins,
       bool_or(chosen > rejected) AS two_wins, min(row_id) AS row_id
FROM {} GROUP BY ALL
"""
_PAIRS = f"""
CREATE TEMP TABLE matched AS
WITH b AS ({_SIDE.format("before")}), a AS ({_SIDE.format("after")}),
     gone AS (SELECT *, row_number() OVER (PARTITION BY prompt ORDER BY one, two) AS nth
              FROM b ANTI JOIN a USING (prompt, one, two)),
     come AS (SELECT *, row_number() OVER (PARTITION BY prompt ORDER BY one, two) AS nth
              FROM a ANTI JOIN b USING (prompt, one, two))
SELECT CASE WHEN (b.one_wins AND a.one_wins) OR (b.two_wins AND a.two_wins) THEN 'same' ELSE 'flipped' END AS kind,
       prompt, b.row_id AS id_before, a.row_id AS id_after, one AS one_before, two AS two_before,
       b.one_wins AS first_before, one AS one_after, two AS two_after, a.one_wins AS first_after
FROM b JOIN a USING (prompt, one, two)
UNION ALL
SELECT CASE WHEN gone.nth IS NULL THEN 'added' WHEN come.nth IS NULL THEN 'removed' ELSE 'replaced' END,
       prompt, gone.row_id, come.row_id, gone.one, gone.two, gone.one_wins, come.one, come.two, come.one_wins
FROM gone FULL JOIN come USING (prompt, nth)
"""


def pairs(stage: str, before: Path, after: Path, n: int) -> Pairs:
    """Compare two tables of PAIRS. A pair is its prompt and its two responses, whichever is preferred."""
    with connect(before=before, after=after) as con:
        con.execute(_PAIRS)
        counted = {r["kind"]: r["n"] for r in ask(con, "SELECT kind, count(*) AS n FROM matched GROUP BY kind")}
        found = ask(con, """
            SELECT *, coalesce(id_after, id_before) AS id FROM matched WHERE kind <> 'same'
            QUALIFY row_number() OVER (
                PARTITION BY kind ORDER BY id, one_after, two_after, one_before, two_before
            ) <= $n
            ORDER BY kind, id, one_after, two_after, one_before, two_before
        """, n=n)  # fmt: skip
        told: dict[str, dict[tuple[Any, ...], Row]] = {}
        for side in ("before", "after"):
            told[side] = by_key(ask(con, f"""
                SELECT row_id, chosen, rejected, labelled_by, messages FROM {side}
                WHERE row_id IN (SELECT unnest($ids)) ORDER BY chosen, rejected
            """, ids=[e[f"id_{side}"] for e in found if e[f"id_{side}"]]), "row_id", "chosen", "rejected")  # fmt: skip
    kinds = {kind: counted.get(kind, 0) for kind in ("same", "flipped", "replaced", "added", "removed")}
    both = kinds["same"] + kinds["flipped"] + kinds["replaced"]
    examples = [_example(e, told) for e in found]
    return Pairs(stage, both + kinds["removed"], both + kinds["added"], **kinds, examples=examples)


def _example(found: Row, told: dict[str, dict[tuple[Any, ...], Row]]) -> Row:
    """A pair as it was and as it is, with its prompt."""
    example: Row = {"kind": found["kind"], "prompt": None, "before": None, "after": None}
    for side, known in told.items():
        if found[f"one_{side}"] is None:
            continue
        said = found[f"one_{side}"], found[f"two_{side}"]
        chosen, rejected = said if found[f"first_{side}"] else said[::-1]
        pair = known[found[f"id_{side}"], chosen, rejected]
        example["prompt"] = "\n\n".join(m["content"] or "" for m in pair["messages"] or []) or None
        example[side] = {k: pair[k] for k in ("row_id", "chosen", "rejected", "labelled_by")}
    return example
