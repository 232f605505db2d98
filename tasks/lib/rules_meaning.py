"""Rules that ask what a response is: in which language, whether the engine can run it, whether it is there twice."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.errors import InputError
from tasks.lib.pool import Drop, Pool
from tasks.lib.text import normalise

CODE = re.compile(r"\A\s*(?:select|with|insert|update|delete|create|explain|from)\b.*|\A\s*(?:```|[{\[<#]|def |class |import )",
                  re.IGNORECASE | re.DOTALL)  # fmt: skip
ASKS = re.compile(r"translat|번역|영어|한국어|일본어|중국어|스페인어|프랑스어|독일어|翻译|翻譯|英文|中文|\b(?:english|korean|spanish|french|"
                  r"german|chinese|japanese|italian|portuguese|russian|arabic|hindi|latin|language)\b", re.IGNORECASE)  # fmt: skip


class Duplicates(Config):
    """Drop all but the best of rows whose prompt and response are the same but for case, white space and, in the
    prompt, punctuation."""

    rule: Literal["duplicate"] = "duplicate"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live, quality = pool.live, pool.quality()
        prompts, responses = pool.column("prompt").to_pylist(), pool.column("response").to_pylist()
        groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for at, prompt, response in zip(live, prompts, responses, strict=True):
            groups[normalise(prompt)][" ".join((response or "").casefold().split())].append(int(at))
        conflicts = 0
        for answers in groups.values():
            conflicts += len(answers) > 1
            for same in answers.values():
                best = max(same, key=lambda i: (quality[i], -i))
                for at in same:
                    if at != best:
                        yield at, {"duplicate_of": pool.row_id(best), "similarity": 1.0}
        pool.notes["conflicts"] = conflicts


class Language(Config):
    """Drop prose in another language than the prompt's. Code is of no language, and a prompt may ask for another."""

    rule: Literal["wrong_language"] = "wrong_language"
    min_letters: int = Field(default=12, ge=1)
    """Letters from which the language of a text is told."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for at, prompt, response in zip(
            pool.live, pool.column("prompt").to_pylist(), pool.column("response").to_pylist(), strict=True
        ):
            if CODE.match(response or "") or ASKS.search(prompt):
                continue
            asked, answered = language(prompt, self.min_letters), language(response or "", self.min_letters)
            if asked and answered and asked != answered:
                yield int(at), {"prompt": asked, "response": answered}


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


def language(text: str, min_letters: int) -> str | None:
    """ISO 639-1 code of the language of a text; None where it cannot be told."""
    if sum(c.isalpha() for c in text) < min_letters:
        return None
    found = _detector().detect_language_of(text[:400])
    return found.iso_code_639_1.name.lower() if found else None


class Parses(Config):
    """Drop responses that the engine refuses: SQL by planning it (EXPLAIN) against a warehouse."""

    rule: Literal["parses"] = "parses"
    kind: Literal["sql"] = "sql"
    """What responses are."""
    warehouse: Path
    """Directory with one Parquet or CSV file per table, and optionally schema.sql."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        import duckdb

        from tasks.lib.sandbox_worker import load

        if not self.warehouse.is_dir():
            raise InputError(f"there is no warehouse directory {self.warehouse}")
        con = duckdb.connect()
        load(con, self.warehouse)
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        for at, sql in zip(pool.live, pool.column("response").to_pylist(), strict=True):
            problem = refused(con, sql or "")
            if problem:
                yield int(at), {"error": problem}


def refused(con: Any, sql: str) -> str | None:
    """Why the engine would not run `sql` as one query; None if it would. Nothing is executed but the planner."""
    import duckdb

    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return "is no single query"
        con.execute("EXPLAIN " + sql)
    except (duckdb.Error, ValueError, RuntimeError) as e:
        return " ".join(str(e).split())[:300]
    return None


class Budget(Config):
    """Keep at most so many rows, the best by the last score (by hash where there is none)."""

    rule: Literal["budget"] = "budget"
    rows: int = Field(ge=1)
    """How many rows stay."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        from tasks.lib.text import digest

        live, quality = pool.live, pool.quality()
        order = sorted(live, key=lambda i: (-quality[i], digest(str(pool.seed), pool.row_id(int(i)))))
        for at in order[self.rows :]:
            yield int(at), {"score": round(float(quality[at]), 6), "rows": self.rows}
