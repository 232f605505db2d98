"""A comparison as a page of its own, in the report's style and complete in itself."""

from collections.abc import Sequence
from typing import Any

from align.comparison import words
from align.comparison.found import Answers, Comparison, Difference
from align.report import charts, page
from align.report.chapters import Chapter
from align.report.evidence import VERDICTS
from align.report.wording import as_dict, count, evidence, number, shorten

TEMPLATE = "templates/compare.html.jinja"
PROMPT, TEXT = 600, 400  # characters of what is shown
FIELDS = ("response", "chosen", "rejected", "reference")


def html(c: Comparison) -> str:
    """The page. It holds what the runs hold and no time or path of its own; everything is escaped."""
    body = [_runs(c), _scores(c), _answers(c), _settings(c), _stages(c), _rows(c), _verdicts(c), _pairs(c)]
    return page.render(TEMPLATE, title=f"{c.before.name} → {c.after.name}", lead=words.headline(c), chapters=body)


def _runs(c: Comparison) -> Chapter:
    chapter = Chapter("runs", "The two runs")
    names = ["", "run", "recipe", "status", "started", "final policy"]
    chapter.table(names, [
        [side, run.run_id, run.recipe, run.status, run.started_at[:19].replace("T", " "), run.final or "–"]
        for side, run in (("before", c.before), ("after", c.after))
    ], text=len(names))  # fmt: skip
    return chapter


def _scores(c: Comparison) -> Chapter:
    chapter = Chapter("scores", "Scores on shared items")
    _notes(chapter, c.said("scores"))
    if not c.differences:
        return chapter
    chapter.lead = (
        "Points are after − before, paired by item, with 95 % intervals, over the items that both runs graded; an item "
        "is shared where its prompt and its reference are the same. Better or worse: the interval excludes 0 and, "
        "where fewer than 25 items differ, an exact test agrees; not shown: it includes 0; too few to tell: too few "
        "items differ. No figure is drawn where no score differs."
    )
    for suite, grader in {d.suite: d.grader for d in c.differences if d.grader}.items():
        chapter.note(
            f"{suite} is graded by different graders: {grader}. Its scores are of different measures, and their "
            "difference says nothing about the policies.",
            warn=True,
        )
    figures = []
    for i, suite in enumerate(dict.fromkeys(d.suite for d in c.differences)):
        for mode in sorted({d.mode for d in c.differences}, key=lambda m: m != (c.after.primary or "greedy")):
            found = [d for d in c.differences if (d.suite, d.mode) == (suite, mode) and d.diff is not None]
            if any(d.differ for d in found):
                svg = charts.forest([_line(d) for d in found], x="percentage points", key=f"forest-{i}-{mode}")
                primary = " (primary)" if mode == c.after.primary else ""
                figures.append((f"{suite}, {mode}{primary}", svg, ""))
    chapter.figures(figures)
    chapter.table(words.SCORES, [_cells(words.scores(d)) for d in c.differences], text=3)
    return chapter


def _line(d: Difference) -> dict[str, Any]:
    kind = next(kind for kind, word in VERDICTS.items() if word == d.verdict)
    ends = {name: round(100 * (getattr(d, name) or 0), 3) for name in ("diff", "low", "high")}
    return {"label": words.policy(d), "kind": "open" if kind == "unknown" else kind, **ends}


def _answers(c: Comparison) -> Chapter:
    chapter = Chapter("answers", "Answers that changed")
    if not c.answers:
        chapter.note("No policy is evaluated in both runs.")
        return chapter
    chapter.lead = "Greedy answers to the items that both runs asked. Unreadable answers count as wrong."
    chapter.table(words.ANSWERS, [_cells(row) for row in words.answers(c)])
    if again := words.regraded(c):
        chapter.note(again, warn=True)
    for a in sorted(c.answers, key=lambda a: (a.before, a.after) != c.final):
        if a.examples:
            open_ = (a.before, a.after) == c.final
            _examples(chapter, [_answer(a, e) for e in a.examples], "" if open_ else words.policy(a), a.examples)
    return chapter


def _answer(a: Answers, e: dict[str, Any]) -> dict[str, Any]:
    replies = []
    for side in ("before", "after"):
        said, policy = e[side], getattr(a, side)
        cut = said["finish_reason"] == "truncated"
        replies.append(_reply(f"{side}, {policy}", said["response"], said["status"], said["detail"], cut))
    return _item(e["kind"], f"{e['suite']} {e['row_id']}", e["prompt"], replies, e["reference"])


def _settings(c: Comparison) -> Chapter:
    chapter = Chapter("settings", "Settings")
    if c.settings:
        chapter.table(words.SETTINGS, [words.setting(s) for s in c.settings], text=3)
    else:
        chapter.note("No setting differs.")
    return chapter


def _stages(c: Comparison) -> Chapter:
    chapter = Chapter("stages", "Stages")
    _notes(chapter, c.said("stages"))
    if c.stages:
        caption = "Made again: another attempt, for the reasons that stand beside it, whose contents are equal."
        chapter.table(["stage", "", "why"], [words.stage(s, 12) for s in c.stages], caption, text=3)
    return chapter


def _rows(c: Comparison) -> Chapter:
    chapter = Chapter("rows", "Rows")
    _notes(chapter, c.said("rows"))
    if c.rows:
        caption = (
            "Changed: the same prompt with another response, preference or reference. Moved: the same row in another "
            "split."
        )
        chapter.table(words.GROUPS, [_cells(words.group(g)) for g in c.rows.groups], caption, text=2)
        items = []
        for e in c.rows.examples:
            there = e["after"] or e["before"]
            fields = [f for f in FIELDS if e["kind"] == "changed" or there[f] is not None]
            same = e["kind"] == "changed"
            sides = ("before", "after") if same else ("after" if e["after"] else "before",)
            replies = [
                _reply(f"{f} {side}" if same else f, e[side][f]) for f in fields for side in sides
                if not same or e["before"][f] != e["after"][f]
            ]  # fmt: skip
            place = e["split_after"] or e["split_before"]
            if e["kind"] == "moved":
                place = f"{e['split_before']} → {e['split_after']}"
            items.append(_item(e["kind"], f"{e['use']} · {place} · {there['row_id']}", there["prompt"], replies))
        _examples(chapter, items, "Examples", c.rows.examples)
    return chapter


def _verdicts(c: Comparison) -> Chapter:
    chapter = Chapter("verdicts", "Filter verdicts")
    _notes(chapter, c.said("verdicts"))
    if v := c.verdicts:
        chapter.lead = (
            f"Of {count(v.shared)} rows that both runs judged, {count(v.kept_before)} were kept before and "
            f"{count(v.kept_after)} after."
        )
        if v.changes:
            body = [[*(words.verdict(r[s]) for s in ("before", "after")), count(r["rows"])] for r in v.changes]
            chapter.table(["before", "after", "rows"], body, text=2)
        items = []
        for e in v.examples:
            seen = ", ".join(f"{k}: {value}" for k, value in evidence(as_dict(e["evidence"])))
            kind = f"{words.verdict(e['before'])} → {words.verdict(e['after'])}"
            items.append(_item(kind, e["row_id"], e["prompt"], [_reply("response", e["response"], detail=seen)]))
        _examples(chapter, items, f"Examples: {len(items)}", [])
    return chapter


def _pairs(c: Comparison) -> Chapter:
    chapter = Chapter("pairs", "Preference pairs")
    _notes(chapter, c.said("pairs"))
    if c.pairs:
        caption = (
            "Flipped: the same two responses, the other preferred. Replaced: the same prompt, another pair of "
            "responses."
        )
        body = [[p.stage, *(count(getattr(p, name)) for name in words.PAIRS[1:])] for p in c.pairs]
        chapter.table(words.PAIRS, body, caption)
    for p in c.pairs:
        items = []
        for e in p.examples:
            sides = [side for side in ("before", "after") if e[side]]
            replies = [
                _reply(f"{what} {side}", e[side][what], detail=f"labelled by {e[side]['labelled_by']}")
                for side in sides for what in ("chosen", "rejected")
            ]  # fmt: skip
            items.append(_item(e["kind"], e[sides[-1]]["row_id"], e["prompt"], replies))
        _examples(chapter, items, f"Examples, {p.stage}", p.examples)
    return chapter


def _notes(chapter: Chapter, said: Sequence[str]) -> None:
    for text in said:
        chapter.note(text, warn=True)


def _cells(row: Sequence[Any]) -> list[str]:
    return [number(cell) for cell in row]


def _reply(
    who: str, text: str | None, status: str = "", detail: str | None = None, cut: bool = False
) -> dict[str, Any]:
    shown, said = shorten(text, TEXT), shorten(detail, 160)
    return {"models": [who], "text": shown, "status": status, "cut": cut, "detail": said}


def _item(
    kind: str, id_: str, prompt: str | None, replies: list[dict[str, Any]], reference: str | None = None
) -> dict[str, Any]:
    asked = shorten(prompt, PROMPT) or "(the prompt is not known)"
    kind = {"gained": "now right", "lost": "now wrong"}.get(kind, kind)
    return {
        "kind": kind,
        "suite": "",
        "id": id_,
        "prompt": asked,
        "reference": shorten(reference, TEXT),
        "replies": replies,
    }


def _examples(chapter: Chapter, items: list[dict[str, Any]], title: str, counted: Sequence[dict[str, Any]]) -> None:
    """Examples, folded beneath a title where there is one."""
    if items:
        of = words.kinds(counted)
        fold = f"{title}: {of}" if title and of else title
        chapter.blocks.append({"kind": "answers", "items": items, "fold": fold})
