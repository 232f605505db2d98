"""Grades kept per item and text between runs: another arm costs the grading of what only it said."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from align.grading.grade import Grade, Grader, Item
from align.grading.graders import PythonGrader, grade_all
from align.kept import Kept, code_of, key

_COLUMNS = {"score": pa.float64(), "status": pa.string(), "detail": pa.string()}


def grade_kept(grader: Grader, items: Sequence[Item], cache: Path | None) -> list[Grade]:
    """`grade_all`, without grading again what `cache` holds.

    A function in a module, whose code is not known, always grades.
    """
    if cache is None or (isinstance(grader, PythonGrader) and grader.file is None):
        return grade_all(grader, items)
    who = json.dumps([_identity(grader), code_of(Path(__file__).parent)], sort_keys=True)
    kept = Kept(cache / "grades" / key(who).hex(), _COLUMNS)
    known = kept.read()
    keys = [key(i.row_id, i.prompt, i.response, json.dumps(i.reference), json.dumps(i.meta)) for i in items]
    missing = {k: item for k, item in zip(keys, items, strict=True) if k not in known}
    grades = grade_all(grader, list(missing.values())) if missing else []
    kept.add({k: (g.score, g.status, g.detail) for k, g in zip(missing, grades, strict=True)})
    return [Grade(*known[k]) for k in keys]


def _identity(value: Any) -> Any:
    """Settings as JSON values in which the contents of files stand for their paths."""
    if isinstance(value, BaseModel):
        return {name: _identity(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Path):
        found = sorted(p for p in value.rglob("*") if p.is_file()) if value.is_dir() else [value]
        names = [p.relative_to(value).as_posix() for p in found]
        return [[n, hashlib.sha256(p.read_bytes()).hexdigest()] for n, p in zip(names, found, strict=True)]
    return value
