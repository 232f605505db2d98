"""The views over records: what DuckDB makes of the index, with a sentence for every view and column.

Views OF_A_RUN show one run and come with `all_NAME`; views OF_THE_STORE show everything that is there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordView:
    """A view over an index table."""

    about: str
    select: str
    columns: dict[str, str]
    """What each column holds, in the order of the columns."""


_RUN = {"run_id": "The run."}
_STAGE = {"stage": "The stage.", "artifact": "The artifact."}

OF_A_RUN = {
    "stage_runs": RecordView(
        "What became of each stage in the run.",
        "SELECT run_id, stage, key, artifact, status, seconds, reason, ended_at::TIMESTAMP AS ended_at "
        "FROM _stage_runs",
        {
            **_RUN,
            "stage": "The stage.",
            "key": "Hash over the stage's settings, code and inputs.",
            "artifact": "What it made or found; null where it failed or was skipped.",
            "status": "ran, cached, failed, or skipped (an earlier round was not shown to help).",
            "seconds": "How long it ran; 0 where it was cached or skipped.",
            "reason": "Why it ran or was skipped, or how it failed.",
            "ended_at": "When it ended, in UTC.",
        },
    ),
    "metrics": RecordView(
        "What each stage of the run counted and measured.",
        "SELECT run_id, stage, artifact, unnest(metrics, recursive := true) FROM _stage_runs",
        {
            **_RUN,
            **_STAGE,
            "name": "The metric, in dotted parts.",
            "value": "Its value; null where it is text.",
            "text": "Its text; null where it is a number.",
        },
    ),
}
OF_THE_STORE = {
    "runs": RecordView(
        "Every run.",
        "SELECT run_id, recipe, status, started_at::TIMESTAMP AS started_at, finished_at::TIMESTAMP AS finished_at "
        "FROM _runs",
        {
            **_RUN,
            "recipe": "The recipe's name.",
            "status": "done, failed, interrupted or running.",
            "started_at": "When it started, in UTC.",
            "finished_at": "When it ended; null where it did not.",
        },
    ),
    "champions": RecordView(
        "Every model that was promoted; the last of each recipe is its champion.",
        "SELECT recipe, number, run_id, model, artifact, decision, verdict, promoted_at::TIMESTAMP AS promoted_at "
        "FROM _champions ORDER BY recipe, number",
        {
            "recipe": "The recipe's name.",
            "number": "Which champion of the recipe it is, from 1.",
            "run_id": "The run that made it.",
            "model": "The stage that made it.",
            "artifact": "The artifact.",
            "decision": "The artifact of promote that says yes; null where people promoted it without one.",
            "verdict": "Why, in words.",
            "promoted_at": "When, in UTC.",
        },
    ),
    "attempts": RecordView(
        "Every execution of a stage.",
        "SELECT stage, key, artifact, seconds, created_at::TIMESTAMP AS created_at, config::JSON AS config, "
        "versions::JSON AS versions FROM _attempts",
        {
            "stage": "The stage.",
            "key": "Hash over the stage's settings, code and inputs.",
            "artifact": "What it made.",
            "seconds": "How long it took.",
            "created_at": "When it ended, in UTC.",
            "config": "Its settings; files by the hash of their contents.",
            "versions": "The versions of the libraries that it ran with.",
        },
    ),
    "artifacts": RecordView(
        "Every artifact.",
        "SELECT artifact, stage, kind, created_at::TIMESTAMP AS created_at, bytes, rows, "
        "'{root}/artifacts/' || artifact AS path FROM _artifacts",
        {
            "artifact": "The artifact: its stage and the beginning of the digest over its contents.",
            "stage": "The stage that made it.",
            "kind": "dataset, adapter or report.",
            "created_at": "When it was published, in UTC.",
            "bytes": "Size of its files.",
            "rows": "Rows of its Parquet files, together.",
            "path": "Its directory.",
        },
    ),
    "lineage": RecordView(
        "What was made of what.",
        "SELECT DISTINCT child, parent, role FROM (SELECT artifact AS child, unnest(parents, recursive := true) "
        "FROM _attempts) ORDER BY ALL",
        {
            "child": "An artifact.",
            "parent": "An artifact that it was made of, or the digest of settings.",
            "role": "What the parent was to the stage.",
        },
    ),
}
RECORDS = {**OF_A_RUN, **OF_THE_STORE}
