"""What two runs' evaluations say of the items that both asked: paired differences, and answers that changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from align.comparison.found import Answers, Difference
from align.comparison.reading import Row, by_key, connect
from align.comparison.reading import rows as ask
from align.seeds import seeded

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
Seeds = Mapping[str, Sequence[str]]
"""Policies of a run with their further seeds."""
Members = tuple[list[str], list[str]]
"""The seeds of a policy, before and after."""

# after `compared`: the policies that are compared, by number, and `members`: the seeds of each on either side; of every
# item what each seed scores on average, null where ungraded ({was} and {now} are a column for each seed)
_ITEMS = """
CREATE TEMP TABLE items AS
WITH b AS (SELECT m.nr, e.suite, e.mode, e.row_id, {was}
           FROM before e JOIN members m ON m.side = 'before' AND e.model = m.model GROUP BY ALL),
     a AS (SELECT m.nr, e.suite, e.mode, e.row_id, {now}
           FROM after e JOIN members m ON m.side = 'after' AND e.model = m.model GROUP BY ALL)
SELECT nr, suite, mode, row_id, * EXCLUDE (nr, suite, mode, row_id), b.row_id IS NOT NULL AS asked_before,
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
    seeds: tuple[Seeds, Seeds] = ({}, {}),
) -> tuple[list[Difference], list[Answers]]:
    """Compare two tables of EVALUATIONS: each policy that both have, and the final ones (`finals`) with each other.

    `prompts` are tables of ROWS that say what was asked. `graders` says of suites how their graders differ: no verdict
    is given there. Scores of a policy with further `seeds` are the means over them, with an interval that says what
    they differ by (align/seeds.py); its answers are the first's.
    """
    with connect(before=before, after=after) as con:
        policies = compared(before, after, finals, seeds)
        con.execute("CREATE TEMP TABLE compared (nr INTEGER, before VARCHAR, after VARCHAR)")
        for at, (was, now) in enumerate(policies):
            con.execute("INSERT INTO compared VALUES ($1, $2, $3)", [at, was, now])
        con.execute("CREATE TEMP TABLE members (nr INTEGER, side VARCHAR, seed INTEGER, model VARCHAR)")
        members = [_members(pair, seeds, (before, after)) for pair in policies]
        for at, pair in enumerate(members):
            for side, models in zip(("before", "after"), pair, strict=True):
                for k, model in enumerate(models):
                    con.execute("INSERT INTO members VALUES ($1, $2, $3, $4)", [at, side, k, model])
        for side, path in (("before", before), ("after", after)):
            turn = "coalesce(turn, 1)" if "turn" in pq.read_schema(path).names else "1"  # older ones have but one
            con.execute(
                f"CREATE TEMP VIEW first_{side} AS SELECT * FROM {side} WHERE mode = 'greedy' AND sample_index = 0 "
                f"AND {turn} = 1"
            )
        most = [max((len(pair[side]) for pair in members), default=1) for side in (0, 1)]
        con.execute(_ITEMS.format(**{
            name: ", ".join(f"avg(e.score) FILTER (m.seed = {k}) AS {name}_{k}" for k in range(n))
            for name, n in zip(("was", "now"), most, strict=True)
        }))  # fmt: skip
        con.execute(_ANSWERS)
        differences = [_difference(con, policies, members, r, graders) for r in ask(con, """
            SELECT nr, suite, mode, count(*) FILTER (asked_before AND asked_after) AS shared,
                   count(*) FILTER (NOT asked_after) AS before_only, count(*) FILTER (NOT asked_before) AS after_only
            FROM items GROUP BY ALL ORDER BY nr, suite, mode
        """)]  # fmt: skip
        return differences, _answers(con, policies, prompts, n)


def compared(
    before: Path, after: Path, finals: tuple[str | None, str | None], seeds: tuple[Seeds, Seeds] = ({}, {})
) -> list[tuple[str, str]]:
    """The policies (before, after) that are compared, in the order in which they stand in the evaluation after. Further
    seeds are no policies of their own."""
    models = [_models(path) for path in (before, after)]
    further = {model for known in seeds for some in known.values() for model in some}
    found = [(model, model) for model in models[1] if model in models[0] and model not in further]
    was, now = finals
    return found + ([(was, now)] if was and now and was != now and was in models[0] and now in models[1] else [])


def _models(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path, columns=["model"]).column("model").unique().to_pylist()
    return found


def _members(pair: tuple[str, str], seeds: tuple[Seeds, Seeds], paths: tuple[Path, Path]) -> Members:
    """The seeds of a policy before and after, as far as they are evaluated, the first in front."""
    was, now = (
        [model, *(m for m in known.get(model, ()) if m in _models(path))]
        for model, known, path in zip(pair, seeds, paths, strict=True)
    )
    return was, now


def _difference(
    con: duckdb.DuckDBPyConnection, policies: Sequence[tuple[str, str]], members: Sequence[Members], counts: Row,
    graders: Mapping[str, str],
) -> Difference:  # fmt: skip
    at, suite, mode = counts["nr"], counts["suite"], counts["mode"]
    sides = [[f"{name}_{k}" for k in range(len(of))] for name, of in zip(("was", "now"), members[at], strict=True)]
    names = [*sides[0], *sides[1]]
    scores = con.execute(
        f"SELECT {', '.join(names)} FROM items WHERE nr = $1 AND suite = $2 AND mode = $3 "
        f"AND {' AND '.join(f'{name} IS NOT NULL' for name in names)} ORDER BY row_id",
        [at, suite, mode],
    ).fetchnumpy()
    was, now = (np.array([scores[name] for name in side], dtype=np.float64) for side in sides)
    n = was.shape[1]
    found = seeded(now, was) if n else None
    grader = graders.get(suite)
    return Difference(
        suite, mode, *policies[at], shared=counts["shared"], before_only=counts["before_only"],
        after_only=counts["after_only"], n=n, mean_before=float(was.mean()) if n else None,
        mean_after=float(now.mean()) if n else None, diff=found and found.value, low=found and found.low,
        high=found and found.high, differ=found.differ if found else 0, p_exact=found and found.p,
        verdict="not measured" if found is None or grader else found.verdict, grader=grader,
        seeds=found.seeds if found else 1, seed_sd=found and found.seed_sd,
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
