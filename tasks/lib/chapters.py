"""The report's chapters on data: what was read, kept, drawn and labelled. Each is a title and blocks for the page."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.lib import charts
from tasks.lib.rows import FILTERED
from tasks.lib.wording import as_dict, count, evidence, number, percent, plural, shorten

Block = dict[str, Any]
TEXTS = ["row_id", "prompt", "response", "evidence"]
SAMPLED = 5_000  # rows whose language is looked at


@dataclass
class Chapter:
    """One section of the page."""

    id: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)

    def note(self, text: str, warn: bool = False) -> None:
        self.blocks.append({"kind": "note", "text": text, "warn": warn})

    def facts(self, items: Iterable[tuple[str, str]]) -> None:
        self.blocks.append({"kind": "facts", "items": list(items)})

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", text: int = 1) -> None:
        """A table whose first `text` columns are words and whose others are numbers."""
        self.blocks.append({"kind": "table", "columns": columns, "rows": rows, "caption": caption, "text": text})

    def figures(self, items: Iterable[tuple[str, str, str]]) -> None:
        """Charts side by side: (title, svg, caption)."""
        if found := [{"title": t, "svg": s, "caption": c} for t, s, c in items]:
            self.blocks.append({"kind": "figures", "items": found})


def columns(path: Path, names: Sequence[str], filters: Any = None) -> pa.Table | None:
    """Columns of a Parquet file; None where the file or a column is not there."""
    if not path.is_file() or set(names) - set(pq.read_schema(path).names):
        return None
    return pq.read_table(path, columns=list(names), filters=filters)


def ingest(data: Path, metrics: Mapping[str, Any]) -> Chapter:
    """Sources, their shapes, the splits, and what could not be read."""
    chapter = Chapter("ingest", "What was read")
    rows = pq.read_table(data / "rows.parquet", columns=["source", "use", "split"])
    counted = rows.group_by(["source", "use"]).aggregate([([], "count_all")]).to_pylist()
    body = []
    for r in counted:
        source = r["source"]
        read, bad = metrics.get(f"read.{source}"), metrics.get(f"quarantined.{source}", 0)
        shape = str(metrics.get(f"shape.{source}", "–"))
        body.append([source, r["use"], shape, number(read), count(r["count_all"]), number(bad)])
    chapter.lead = f"{plural(rows.num_rows, 'row')} from {plural(len({r['source'] for r in counted}), 'source')}."
    chapter.table(["source", "use", "shape", "read", "taken", "quarantined"], body, text=3)
    splits = rows.group_by(["split", "use"]).aggregate([([], "count_all")]).to_pylist()
    uses = [u for u in ("instructions", "prompts", "preferences", "evaluation") if any(r["use"] == u for r in splits)]
    cells = {(r["split"], r["use"]): r["count_all"] for r in splits}
    order = [s for s in ("sft", "preference", "rejection", "evaluation") if any(r["split"] == s for r in splits)]
    chapter.table(
        ["split", *uses],
        [[s, *(number(cells.get((s, u))) for u in uses)] for s in order],
        "Prompts of instruction and prompt sources are shared out by a hash of the normalised prompt; evaluation and "
        "preference sources are taken whole.",
    )
    bad_rows = columns(data / "quarantine.parquet", ["source", "file", "line", "reason", "text"])
    if bad_rows is not None and bad_rows.num_rows:
        found = bad_rows.to_pylist()
        reasons = Counter((r["source"], r["reason"]) for r in found)
        firsts: dict[tuple[str, str], dict[str, Any]] = {}
        for r in found:
            firsts.setdefault((r["source"], r["reason"]), r)
        most = reasons.most_common(20)
        listed = [
            [s, reason, f"{f['file']}:{f['line']}", shorten(f["text"], 120), count(n)]
            for (s, reason), n in most
            for f in [firsts[s, reason]]
        ]
        caption = f"Quarantined rows by reason{_rest(reasons, most)}."
        chapter.table(["source", "reason", "first at", "text", "rows"], listed, caption, 4)
    else:
        chapter.note("No row was quarantined.")
    return chapter


def _rest(all_: Mapping[Any, int], shown: Sequence[Any]) -> str:
    return f"; {len(all_) - len(shown)} further reasons are not listed" if len(all_) > len(shown) else ""


def funnel(filtered: Path, data: Path, metrics: Mapping[str, Any], examples: int) -> Chapter:
    """Rows in, dropped per rule with examples, kept; and how the kept differ from the read and from a random subset."""
    chapter = Chapter("filter", "What the filter kept")
    path = filtered / "rows.parquet"
    reasons = pq.read_table(path, columns=["kept", "reason"])
    read, kept = reasons.num_rows, pc.sum(reasons.column("kept")).as_py() or 0
    counted = Counter(reasons.filter(pc.invert(reasons.column("kept"))).column("reason").to_pylist())
    order = [k.removeprefix("dropped.") for k in metrics if k.startswith("dropped.")]
    rules = sorted(counted, key=lambda r: (order.index(r) if r in order else len(order), str(r)))
    share = percent(kept / read) if read else "–"
    chapter.lead = f"{count(kept)} of {plural(read, 'row')} kept ({share} %), {count(read - kept)} dropped."
    steps: list[Block] = [{"name": "read", "rows": read, "share": 1.0, "class": "read", "examples": []}]
    for rule in rules:
        found = pq.read_table(path, columns=TEXTS, filters=pc.field("reason") == rule)
        found = found.take(pc.select_k_unstable(found, examples, [("row_id", "ascending")])) if examples else found[:0]
        steps.append({"name": str(rule or "no reason given").replace("_", " "), "rows": counted[rule], "class": "drop",
                      "share": counted[rule] / read, "examples": _examples(found, data)})  # fmt: skip
    steps.append({"name": "kept", "rows": kept, "share": kept / read if read else 0, "class": "keep", "examples": []})
    chapter.blocks.append({"kind": "funnel", "steps": steps})
    told = [(k, v) for k, v in metrics.items() if k not in ("read", "kept") and not k.startswith("dropped.")]
    chapter.facts([(k.replace("_", " ").replace(".", ", "), number(v)) for k, v in told])
    _before_after(chapter, filtered)
    return chapter


def _examples(dropped: pa.Table, data: Path) -> list[Block]:
    """Dropped rows with their evidence, and the row that the evidence names: what it duplicates, or leaks."""
    shown = []
    for r in dropped.to_pylist():
        told = as_dict(r["evidence"])
        named = told.get("duplicate_of") or told.get("leaks")
        other = by_id(data, [named]).get(named, {}) if isinstance(named, str) else {}
        shown.append({
            "id": r["row_id"], "prompt": shorten(r["prompt"], 280), "response": shorten(r["response"], 280),
            "evidence": evidence(told),
            "other": "\n".join(shorten(other[k], 280) for k in ("prompt", "response", "reference") if other.get(k)),
        })  # fmt: skip
    return shown


def by_id(data: Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the ingest artifact by id."""
    names = ["row_id", "prompt", "response", "reference"]
    table = pq.read_table(data / "rows.parquet", columns=names, filters=pc.field("row_id").isin(list(ids)))
    return {r["row_id"]: r for r in table.to_pylist()}


def _before_after(chapter: Chapter, filtered: Path) -> None:
    path = filtered / "rows.parquet"
    control = columns(filtered / "control.parquet", ["row_id"])
    if control is None:
        chapter.note("There is no random subset to compare with: control.parquet is missing.")
    random = Counter(control.column("row_id").to_pylist() if control is not None else [])
    scores = [f.name for f in pq.read_schema(path) if f.name not in FILTERED.names and pa.types.is_floating(f.type)]
    table = pq.read_table(path, columns=["row_id", "source", "kept", *scores])
    table = table.append_column("length", pc.utf8_length(pq.read_table(path, columns=["response"]).column("response")))
    groups = {"read": table, "kept": table.filter(table.column("kept"))}
    groups["random"] = table.filter(pa.array(_occurrences(table.column("row_id").to_pylist(), random)))
    groups = {name: group for name, group in groups.items() if group.num_rows}
    colours = {"read": charts.GREY, "kept": charts.BLUE, "random": charts.ORANGE}
    figures = []
    for name in ["length", *scores]:
        values = {g: t.column(name).drop_null().to_numpy() for g, t in groups.items()}
        values = {g: v for g, v in values.items() if len(v)}
        if values:
            label = "response length in characters" if name == "length" else name.replace("_", " ")
            figures.append((
                "Response length" if name == "length" else f"Score: {label}",
                charts.distribution(values, x=label, key=f"filter-{name}", colours=colours, clip=0.99),
                "Share of rows per bin; the longest 1 % count in the last bin." if name == "length" else
                "Share of the rows that have this score, by bin.",
            ))  # fmt: skip
    if languages := _languages(path, groups):
        figures.append((
            "Writing system of the response", charts.bars(languages, key="filter-language", colours=colours),
            f"By the letters of the response; of at most {count(SAMPLED)} rows per group.",
        ))  # fmt: skip
    chapter.figures(figures)
    if "random" in groups:
        chapter.note(
            "Random is what a control arm trains on: as many rows as were kept, drawn from all with a response."
        )
    sources = {g: Counter(t.column("source").to_pylist()) for g, t in groups.items()}
    names = sorted({s for c in sources.values() for s in c})
    if len(names) > 1:
        chapter.table(["source", *groups], [[s, *(count(sources[g][s]) for g in groups)] for s in names])


def _occurrences(ids: Sequence[str], wanted: Counter[str]) -> list[bool]:
    """Which positions make up `wanted`, where equal rows have equal ids."""
    left = Counter(wanted)
    found = []
    for i in ids:
        found.append(left[i] > 0)
        if left[i] > 0:
            left[i] -= 1
    return found


def _languages(path: Path, groups: Mapping[str, pa.Table]) -> dict[str, dict[str, float]]:
    """Writing system -> group -> share."""
    wanted = {
        name: t.take(pc.select_k_unstable(t.select(["row_id"]), min(SAMPLED, t.num_rows), [("row_id", "ascending")]))
        for name, t in groups.items()
    }
    ids = pa.array(sorted({i for t in wanted.values() for i in t.column("row_id").to_pylist()}), pa.string())
    texts = pq.read_table(path, columns=["row_id", "response"], filters=pc.field("row_id").isin(ids))
    of = {r["row_id"]: script(r["response"] or "") for r in texts.to_pylist()}
    shares = {}
    for name, t in wanted.items():
        counted = Counter(of[i] for i in t.column("row_id").to_pylist())
        shares[name] = {s: n / counted.total() for s, n in counted.items()}
    found = sorted({s for v in shares.values() for s in v}, key=lambda s: (-shares["read"].get(s, 0), s))
    return {s: {name: round(v.get(s, 0.0), 6) for name, v in shares.items()} for s in found}


def script(text: str) -> str:
    """The writing system that most letters of a text belong to."""
    counted: Counter[str] = Counter()
    for char in text[:400]:
        if char.isalpha():
            name = unicodedata.name(char, "OTHER").split()[0].capitalize()
            counted["Han" if name == "Cjk" else name] += 1
    return counted.most_common(1)[0][0] if counted else "no letters"
