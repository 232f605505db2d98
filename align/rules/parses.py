"""Responses that are code: whether what they are written in takes them."""

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from align.config import Config
from align.grading.sandbox import Limits, Sandbox
from align.progress import track
from align.rules.pool import Drop, Pool

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


class Parses(Config):
    """Drop responses that do not parse: SQL by running it in the sandbox against a warehouse, Python by compiling it,
    which runs nothing, and JSON. Of a response with code fences, each block is looked at and nothing else."""

    rule: Literal["parses"] = "parses"
    kind: Literal["sql", "python", "json"] = "sql"
    """What responses are."""
    warehouse: Path | None = None
    """For SQL: directory with one Parquet or CSV file per table, and optionally schema.sql."""
    limits: Limits = Limits()
    """What one query may use; a query that wants more is let through, being SQL."""

    @model_validator(mode="after")
    def _has_warehouse(self) -> "Parses":
        if (self.warehouse is None) == (self.kind == "sql"):
            raise ValueError("needs a warehouse for kind: sql, and for that only")
        return self

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        texts = [r or "" for r in pool.column("response").to_pylist()]
        if self.warehouse is None:
            problem = _python if self.kind == "python" else _json
            for at, text in zip(live, texts, strict=True):
                found = (problem(block) for block in _FENCE.findall(text) or [text])
                if error := next(filter(None, found), None):
                    yield int(at), {"error": error}
            return
        with Sandbox(self.warehouse, self.limits) as sandbox:
            results = sandbox.run(texts)
            for at, result in zip(live, track(results, "running SQL", len(live)), strict=True):
                if result.status in ("unparsable", "error", "refused"):
                    yield int(at), {"error": result.detail}


def _python(text: str) -> str | None:
    """Why a text is no Python; None where it is."""
    if not text.strip():
        return "is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of an escape that is none
            compile(text, "response", "exec", dont_inherit=True)
    except SyntaxError as e:
        return f"line {e.lineno}: {e.msg}"
    except (ValueError, OverflowError, RecursionError, MemoryError) as e:
        return f"is not compiled: {e or type(e).__name__}"
    return None


def _json(text: str) -> str | None:
    """Why a text is no JSON; None where it is."""
    try:
        json.loads(text)
    except json.JSONDecodeError as e:
        return f"line {e.lineno}: {e.msg}"
    except RecursionError:
        return "nested too deeply"
    except ValueError:
        return None  # JSON, with a number longer than Python reads
    return None
