"""The report's chapters on data: what was read, kept, drawn and labelled. Each is a title and blocks for the page."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from align.report import charts
from align.report.wording import as_dict, count, evidence, number, percent, shorten
from align.report.words import say

Block = dict[str, Any]
TEXTS = ["row_id", "prompt", "response", "evidence"]
SHOWN = 5  # languages in a chart
GROUPS = {"before": "read", "after": "kept", "random": "random"}
MEASURES = {
    "prompt_chars": ("Prompt length", "characters"), "response_chars": ("Response length", "characters"),
    "prompt_language": ("Language of the prompt", ""), "response_language": ("Language of the response", ""),
    "source": ("Source", ""),
}  # fmt: skip


@dataclass
class Chapter:
    """One section of the page."""

    id: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)

    def note(self, text: str, warn: bool = False) -> None:
        self.blocks.append({"kind": "note", "text": text, "warn": warn})

    def code(self, text: str, fold: str = "") -> None:
        """What somebody types, as it is; with a title `fold` folded beneath it."""
        self.blocks.append({"kind": "code", "text": text, "fold": fold})

    def facts(self, items: Iterable[tuple[str, str]]) -> None:
        self.blocks.append({"kind": "facts", "items": list(items)})

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", text: int = 1,
        foreign: Sequence[int] = (), fold: str = "",
    ) -> None:  # fmt: skip
        """A table whose first `text` columns are words and whose others are numbers; columns `foreign` hold English
        in any language. One with a title `fold` is folded beneath it."""
        self.blocks.append({
            "kind": "table", "columns": list(columns), "rows": rows, "caption": caption, "text": text,
            "foreign": list(foreign), "fold": fold,
        })  # fmt: skip

    def figures(self, items: Iterable[tuple[str, str, str]], wide: bool = False) -> None:
        """Charts side by side: (title, svg, caption); `wide` ones have more room."""
        if found := [{"title": t, "svg": s, "caption": c} for t, s, c in items]:
            self.blocks.append({"kind": "figures", "items": found, "wide": wide})


def columns(path: Path, names: Sequence[str], filters: Any = None) -> pa.Table | None:
    """Columns of a Parquet file; None where the file or a column is not there."""
    if not path.is_file() or set(names) - set(pq.read_schema(path).names):
        return None
    return pq.read_table(path, columns=list(names), filters=filters)


def ingest(data: Path, metrics: Mapping[str, Any]) -> Chapter:
    """Sources, their shapes, the splits, and what could not be read."""
    chapter = Chapter("ingest", say("What was read"))
    rows = pq.read_table(data / "rows.parquet", columns=["source", "use", "split"])
    counted = rows.group_by(["source", "use"]).aggregate([([], "count_all")]).to_pylist()
    body = []
    for r in counted:
        source = r["source"]
        read, bad = metrics.get(f"read.{source}"), metrics.get(f"quarantined.{source}", 0)
        shape = str(metrics.get(f"shape.{source}", "–"))
        body.append([source, say(r["use"]), shape, number(read), count(r["count_all"]), number(bad)])
    sources = len({r["source"] for r in counted})
    chapter.lead = say("{rows:row} from {sources:source}.", rows=rows.num_rows, sources=sources)
    names = ["source", "use", "shape", "read", "taken", "quarantined"]
    chapter.table([say(name) for name in names], body, text=3)
    splits = rows.group_by(["split", "use"]).aggregate([([], "count_all")]).to_pylist()
    uses = [u for u in ("instructions", "prompts", "preferences", "evaluation") if any(r["use"] == u for r in splits)]
    cells = {(r["split"], r["use"]): r["count_all"] for r in splits}
    order = [s for s in ("sft", "preference", "rejection", "evaluation") if any(r["split"] == s for r in splits)]
    chapter.table(
        [say("split"), *(say(u) for u in uses)],
        [[s, *(number(cells.get((s, u))) for u in uses)] for s in order],
        say(
            "Prompts of instruction and prompt sources are shared out by a hash of the normalised prompt; all rows of "
            "evaluation and preference sources go to the split of that name."
        ),
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
        more = len(reasons) - len(most)
        caption = say("Quarantined rows by reason; {n:further reason} not listed.", n=more) if more else say(
            "Quarantined rows by reason.")  # fmt: skip
        names = ["source", "reason", "first at", "text", "rows"]
        chapter.table([say(name) for name in names], listed, caption, 4, foreign=(1,))
    else:
        chapter.note(say("No row was quarantined."))
    return chapter


def funnel(filtered: Path, data: Path, metrics: Mapping[str, Any], examples: int) -> Chapter:
    """Rows in, dropped per rule with examples, kept; and how the kept differ from the read and from a random subset."""
    chapter = Chapter("filter", say("What the filter kept"))
    table = pq.read_table(filtered / "instructions.parquet", columns=["row_id", "kept", "reason"])
    read, kept = table.num_rows, pc.sum(table.column("kept")).as_py() or 0
    gone = table.filter(pc.invert(table.column("kept")))
    counted = Counter(gone.column("reason").to_pylist())
    rules = dict.fromkeys([*str(metrics.get("rules", "")).split(", "), *sorted(counted, key=str)])
    shown = _examples(filtered, data, gone, examples)
    share = percent(kept / read) if read else "–"
    told = {"kept": kept, "read": read, "share": share, "dropped": read - kept}
    chapter.lead = say("{kept} of {read:row} kept ({share} %), {dropped} dropped.", **told)
    steps: list[Block] = [{"name": say("read"), "rows": read, "share": 1.0, "class": "read", "examples": []}]
    steps += [
        {"name": str(rule or say("no reason given")).replace("_", " "), "rows": counted[rule], "class": "drop",
         "share": counted[rule] / max(1, read), "examples": shown.get(rule, [])}
        for rule in rules if rule in counted or rule
    ]  # fmt: skip
    steps.append({"name": say("kept"), "rows": kept, "share": kept / max(1, read), "class": "keep", "examples": []})
    chapter.blocks.append({"kind": "funnel", "steps": steps})
    more = [(k, v) for k, v in metrics.items() if k not in ("read", "kept", "rules") and not k.startswith("dropped.")]
    chapter.facts([(k.replace("_", " ").replace(".", ", "), number(v)) for k, v in more])
    _before_after(chapter, filtered)
    return chapter


def _examples(filtered: Path, data: Path, gone: pa.Table, examples: int) -> dict[str | None, list[Block]]:
    """Dropped rows by rule with their evidence, and the row that the evidence names: what it duplicates, or leaks."""
    first: dict[str | None, list[str]] = {}
    for row_id, reason in sorted(
        zip(*(gone.column(c).to_pylist() for c in ("row_id", "reason")), strict=True), key=str
    ):
        if len(first.setdefault(reason, [])) < examples:
            first[reason].append(row_id)
    wanted = is_in(sorted({i for ids in first.values() for i in ids})) & ~pc.field("kept")
    texts = pq.read_table(filtered / "instructions.parquet", columns=[*TEXTS, "reason"], filters=wanted).to_pylist()
    found = {(r["row_id"], r["reason"]): r | {"told": as_dict(r["evidence"])} for r in texts}
    named = {k: r["told"].get("duplicate_of") or r["told"].get("leaks") for k, r in found.items()}
    others = by_id(data, sorted({i for i in named.values() if isinstance(i, str)}))
    shown: dict[str | None, list[Block]] = {}
    for reason, ids in first.items():
        for r in (found[i, reason] for i in ids):
            other = others.get(named[r["row_id"], reason], {})
            shown.setdefault(reason, []).append({
                "id": r["row_id"], "prompt": shorten(r["prompt"], 280), "response": shorten(r["response"], 280),
                "evidence": evidence(r["told"]),
                "other": "\n".join(shorten(other[k], 280) for k in ("prompt", "response", "reference") if other.get(k)),
            })  # fmt: skip
    return shown


def is_in(ids: Sequence[str]) -> Any:
    """The filter for rows with these ids; typed, because a list may be empty."""
    return pc.field("row_id").isin(pa.array(ids, pa.string()))


def by_id(data: Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the ingest artifact by id."""
    names = ["row_id", "prompt", "response", "reference"]
    table = pq.read_table(data / "rows.parquet", columns=names, filters=is_in(ids))
    return {r["row_id"]: r for r in table.to_pylist()}


def _before_after(chapter: Chapter, filtered: Path) -> None:
    """Lengths, scores, languages and sources of what was read, what was kept, and a random subset of that size."""
    path = filtered / "distributions.parquet"
    if not path.is_file():
        text = "How the kept rows differ from the read ones is not known: distributions.parquet is missing."
        chapter.note(say(text))
        return
    measures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in pq.read_table(path).to_pylist():
        groups = measures.setdefault(row["measure"], {say(name): [] for name in GROUPS.values()})
        groups[say(GROUPS[row["which"]])].append(row)
    colours = {say("read"): charts.GREY, say("kept"): charts.BLUE, say("random"): charts.ORANGE}
    figures = []
    for measure, groups in measures.items():
        buckets = {b["bucket"]: b["low"] for rows in groups.values() for b in rows}
        known = MEASURES.get(measure)
        title, x = (say(w) if w else w for w in known) if known else (say("Score: {measure}", measure=measure), measure)
        shares = {
            g: {b["bucket"]: b["count"] / sum(b["count"] for b in rows) for b in rows}
            for g, rows in groups.items()
            if rows
        }
        if measure == "source":
            continue
        if None not in buckets.values():
            octaves = measure.endswith("_chars")
            points = {g: {low: of.get(b, 0.0) for b, low in buckets.items()} for g, of in shares.items()}
            svg = charts.steps(points, x=x, key=f"filter-{measure}", colours=colours, octaves=octaves)
            told = (
                say("Share of rows; the steps are powers of 2.") if octaves
                else say("Share of rows; of those that have this score, the outer 1 % in the end bins.")
            )  # fmt: skip
            figures.append((title, svg, told))
        elif len(buckets) > 1:
            top = sorted(buckets, key=lambda b: (-shares[say("read")].get(b, 0), b))[:SHOWN]
            values = {b: {g: of.get(b, 0.0) for g, of in shares.items()} for b in top}
            more = len(buckets) - SHOWN
            told = (
                say("Share of rows, as guessed from the text; {n:rarer one} not shown.", n=more) if more > 0
                else say("Share of rows, as guessed from the text.")
            )  # fmt: skip
            svg = charts.bars(values, key=f"filter-{measure}", colours=colours)
            figures.append((title, svg, told))
        else:
            chapter.note(say("{title}: all rows are {bucket}.", title=title, bucket=next(iter(buckets))))
    chapter.figures(figures)
    text = "Random is what a control arm trains on: as many rows as were kept, drawn from all with a response."
    chapter.note(say(text))
    if len({b["bucket"] for b in measures.get("source", {}).get(say("read"), [])}) > 1:
        counts = {g: {b["bucket"]: b["count"] for b in rows} for g, rows in measures["source"].items()}
        read = counts[say("read")]
        names = sorted(read, key=lambda s: (-read[s], s))
        body = [[s, *(count(counts[g].get(s, 0)) for g in counts)] for s in names]
        chapter.table([say("source"), *counts], body)
