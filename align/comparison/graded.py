"""What two runs' evaluations say of the items that both asked: paired differences, and answers that changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from align.comparison.found import Answers, Difference
from align.comparison.reading import Row, by_key, connect
from align.comparison.reading import rows as ask
from align.paired import paired

EVALUATIONS = [
    "suite",
    "row_id",
    "model",
    "mode",
    "sample_index",
    "response",
    "score",
    "status",
    "finish_reason",
    "detail",
]
PROMPTS = ["row_id", "split", "prompt", "reference"]

# after `compared`: the policies that are compared, by number; items of each with their mean score, null where ungraded
_ITEMS = """
CREATE TEMP TABLE items AS
WITH b AS (SELECT c.nr, e.suite, e.mode, e.row_id, avg(e.score) AS score
           FROM before e JOIN compared c ON e.model = c.before GROUP BY ALL),
     a AS (SELECT c.nr, e.suite, e.mode, e.row_id, avg(e.score) AS score
           FROM after e JOIN compared c ON e.model = c.after GROUP BY ALL)
SELECT nr, suite, mode, row_id, b.score AS was, a.score AS now, b.row_id IS NOT NULL AS asked_before,
       a.row_id IS NOT NULL AS asked_after
FROM b FULL JOIN a USING (nr, suite, mode, row_id)
"""
_ANSWERS = """
CREATE TEMP TABLE answers AS
WITH b AS (SELECT c.nr, e.* FROM first_before e JOIN compared c ON e.model = c.before),
     a AS (SELECT c.nr, e.* FROM first_after e JOIN compared c ON e.model = c.after)
SELECT nr, suite, row_id, b.response IS DISTINCT FROM a.response AS other,
       replace(b.status, 'unreadable', 'wrong') AS was, replace(a.status, 'unreadable', 'wrong') AS now,
       CASE WHEN was = 'wrong' AND now = 'correct' THEN 'gained' WHEN was = 'correct' AND now = 'wrong' THEN 'lost'
            WHEN was = 'correct' AND now = 'correct' THEN 'right_in_both'
            WHEN was = 'wrong' AND now = 'wrong' THEN 'wrong_in_both' ELSE 'not_graded' END AS kind
FROM b JOIN a USING (nr, suite, row_id)
"""


def graded(
    before: Path,
    after: Path,
    prompts: Sequence[Path],
    finals: tuple[str | None, str | None],
    graders: Mapping[str, str],
    n: int,
) -> tuple[list[Difference], list[Answers]]:
    """Compare two tables of EVALUATIONS: each policy that both have, and the final ones (`finals`) with each other.

    `prompts` are tables of ROWS that say what was asked. `graders` says of suites how their graders differ: no verdict
    is given there.
    """
    with connect(before=before, after=after) as con:
        policies = compared(before, after, finals)
        con.execute("CREATE TEMP TABLE compared (nr INTEGER, before VARCHAR, after VARCHAR)")
        for at, (was, now) in enumerate(policies):
            con.execute("INSERT INTO compared VALUES ($1, $2, $3)", [at, was, now])
        for side, path in (("before", before), ("after", after)):
            turn = "coalesce(turn, 1)" if "turn" in pq.read_schema(path).names else "1"  # older ones have but one
            con.execute(
                f"CREATE TEMP VIEW first_{side} AS SELECT * FROM {side} WHERE mode = 'greedy' AND sample_index = 0 "
                f"AND {turn} = 1"
            )
        con.execute(_ITEMS)
        con.execute(_ANSWERS)
        differences = [_difference(con, policies, r, graders) for r in ask(con, """
            SELECT nr, suite, mode, count(*) FILTER (asked_before AND asked_after) AS shared,
                   count(*) FILTER (NOT asked_after) AS before_only, count(*) FILTER (NOT asked_before) AS after_only
            FROM items GROUP BY ALL ORDER BY nr, suite, mode
        """)]  # fmt: skip
        return differences, _answers(con, policies, prompts, n)


def compared(before: Path, after: Path, finals: tuple[str | None, str | None]) -> list[tuple[str, str]]:
    """The policies (before, after) that are compared, in the order in which they stand in the evaluation after."""
    models = [pq.read_table(path, columns=["model"]).column("model").unique().to_pylist() for path in (before, after)]
    found = [(model, model) for model in models[1] if model in models[0]]
    was, now = finals
    return found + ([(was, now)] if was and now and was != now and was in models[0] and now in models[1] else [])


def _difference(
    con: duckdb.DuckDBPyConnection, policies: Sequence[tuple[str, str]], counts: Row, graders: Mapping[str, str]
) -> Difference:
    at, suite, mode = counts["nr"], counts["suite"], counts["mode"]
    scores = con.execute(
        "SELECT was, now FROM items WHERE nr = $1 AND suite = $2 AND mode = $3 AND was IS NOT NULL AND now IS NOT NULL "
        "ORDER BY row_id",
        [at, suite, mode],
    ).fetchnumpy()
    was, now = (np.asarray(scores[side], dtype=np.float64) for side in ("was", "now"))
    found = paired(now - was) if was.size else None
    grader = graders.get(suite)
    return Difference(
        suite, mode, *policies[at], shared=counts["shared"], before_only=counts["before_only"],
        after_only=counts["after_only"], n=int(was.size), mean_before=float(was.mean()) if was.size else None,
        mean_after=float(now.mean()) if was.size else None, diff=found and found.value, low=found and found.low,
        high=found and found.high, differ=found.differ if found else 0, p_exact=found and found.p,
        verdict="not measured" if found is None or grader else found.verdict, grader=grader,
    )  # fmt: skip


def _answers(
    con: duckdb.DuckDBPyConnection, policies: Sequence[tuple[str, str]], prompts: Sequence[Path], n: int
) -> list[Answers]:
    counts: dict[int, dict[str, int]] = {at: {} for at in range(len(policies))}
    for r in ask(con, "SELECT nr, kind, count(*) AS n, count(*) FILTER (other) AS other_text, "
                      "count(*) FILTER (NOT other AND was <> now) AS regraded FROM answers GROUP BY ALL"):  # fmt: skip
        of = counts[r["nr"]]
        of[r["kind"]] = r["n"]
        for name in ("other_text", "regraded"):
            of[name] = of.get(name, 0) + r[name]
    found = ask(con, """
        SELECT nr, kind, suite, row_id FROM answers WHERE kind IN ('gained', 'lost')
        QUALIFY row_number() OVER (PARTITION BY nr, kind ORDER BY row_id, suite) <= $n
        ORDER BY nr, kind, row_id, suite
    """, n=n)  # fmt: skip
    ids = sorted({e["row_id"] for e in found})
    asked = _prompts(prompts, ids)
    for side in ("before", "after"):
        said = by_key(ask(con, f"""
            SELECT c.nr, e.suite, e.row_id, e.response, e.status, e.finish_reason, e.detail
            FROM first_{side} e JOIN compared c ON e.model = c.{side} WHERE e.row_id IN (SELECT unnest($ids))
        """, ids=ids), "nr", "suite", "row_id")  # fmt: skip
        for example in found:
            answer = said[example["nr"], example["suite"], example["row_id"]]
            example[side] = {k: answer[k] for k in ("response", "status", "finish_reason", "detail")}
    examples: dict[int, list[Row]] = {at: [] for at in counts}
    for example in found:
        examples[example.pop("nr")].append(example | asked.get(example["row_id"], {"prompt": None, "reference": None}))
    kinds = ("gained", "lost", "right_in_both", "wrong_in_both", "not_graded")
    return [
        Answers(was, now, shared=sum(counts[at].get(k, 0) for k in kinds), examples=examples[at],
                **{k: counts[at].get(k, 0) for k in (*kinds, "other_text", "regraded")})
        for at, (was, now) in enumerate(policies)
    ]  # fmt: skip


def _prompts(files: Sequence[Path], ids: Sequence[str]) -> dict[str, Row]:
    """What rows asked, and with what reference."""
    known: dict[str, Row] = {}
    for path in files if ids else ():
        with connect(rows=path) as con:
            for r in ask(con, """
                SELECT row_id, prompt, reference FROM rows
                WHERE split = 'evaluation' AND row_id IN (SELECT unnest($ids))
            """, ids=list(ids)):  # fmt: skip
                known.setdefault(r.pop("row_id"), r)
    return known
