"""Where a row came from and what became of it: one row id followed through every dataset of a run."""

from typing import Any

from storage.store import Store
from storage.views import connect

# title, query with one parameter: the id. Each is one chapter of a row's life, in the order of the pipeline.
CHAPTERS = [
    ("ingested", "SELECT artifact, source, use, split, prompt, response, reference FROM rows WHERE row_id = $1"),
    ("filtered", "SELECT artifact, kept, reason, evidence FROM instructions WHERE row_id = $1"),
    (
        "sampled",
        "SELECT s.artifact, sample_id, sample_index, text, finish_reason, list_sort(list(DISTINCT "
        "{scored_by: scored_by, score: score, status: scores.status}) FILTER (scored_by IS NOT NULL)) AS scores "
        "FROM samples s LEFT JOIN scores USING (sample_id) "
        "WHERE row_id = $1 OR sample_id = $1 GROUP BY ALL ORDER BY s.artifact, sample_index",
    ),
    (
        "paired",
        "SELECT artifact, pair_id, chosen, rejected, margin, labelled_by, held_out FROM pairs "
        "WHERE row_id = $1 OR pair_id = $1 OR chosen_id = $1 OR rejected_id = $1",
    ),
    (
        "labelled",
        "SELECT artifact, label_id, response, desirable, labelled_by, held_out FROM labels "
        "WHERE row_id = $1 OR label_id = $1 OR sample_id = $1",
    ),
    ("selected", "SELECT artifact, arm, sample_id FROM selections WHERE row_id = $1 OR sample_id = $1"),
    (
        "evaluated",
        "SELECT artifact, suite, model, mode, turn, sample_index, status, response FROM evaluations WHERE row_id = $1 "
        "ORDER BY artifact, model, mode, turn, sample_index",
    ),
]


def trace(store: Store, row_id: str, run_id: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The chapters of a row, sample or pair in the run `run_id` (None: the latest), without empty ones."""
    con = connect(store, run_id=run_id)
    found = {}
    for title, query in CHAPTERS:
        cursor = con.execute(query, [row_id])
        names = [column[0] for column in cursor.description or []]
        if rows := [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]:
            found[title] = rows
    return found
