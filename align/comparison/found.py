"""What two runs differ in, as values: `align compare --json` is these, and the table and the page are made of them.

The runs are `before` and `after`. Examples are at most N of each kind, in the order of the hashes that their ids are.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["same", "equal", "different", "before only", "after only"]
Part = Literal["stages", "rows", "verdicts", "pairs", "scores"]


@dataclass(frozen=True)
class Note:
    """A sentence about a part of the comparison."""

    part: Part
    text: str


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    run_id: str
    name: str
    """As it was asked for: an id, or a tag."""
    recipe: str
    status: str
    started_at: str
    final: str | None = None
    """The model that its recipe ends with; None where that is not known."""
    primary: str | None = None
    """The mode by which its recipe compares models."""


@dataclass(frozen=True)
class Setting:
    """A setting of the recipes that differs."""

    key: str
    """Dotted; an item of a list by its number."""
    before: Any
    after: Any
    only: Literal["before", "after"] | None = None
    """The run whose recipe has it, where the other's does not."""


@dataclass(frozen=True)
class Stage:
    """What became of a stage in both runs."""

    stage: str
    kind: Kind
    """same: the same attempt's artifact; equal: another attempt with equal contents; different; or finished in one."""
    before: str | None
    """Its artifact."""
    after: str | None
    settings: list[str] = field(default_factory=list)
    """Why it is another attempt, in words: its settings,"""
    inputs: list[str] = field(default_factory=list)
    """what it read,"""
    code: list[str] = field(default_factory=list)
    """its code,"""
    libraries: list[str] = field(default_factory=list)
    """and the versions of libraries, which make no other attempt and may yet make other contents."""
    note: str = ""
    """What else there is to say."""

    @property
    def why(self) -> list[str]:
        """Everything that differs, in words."""
        return [*self.settings, *self.inputs, *self.code, *self.libraries, *filter(None, [self.note])]


@dataclass(frozen=True)
class Group:
    """Rows of one use and split.

    before = same + moved_out + changed + removed; after = same + moved_in + changed + added.
    """

    use: str
    split: str
    before: int = 0
    after: int = 0
    same: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    """The same prompt with another response, preference or reference, which makes another row_id."""
    moved_in: int = 0
    """Rows of both runs that are in another split before."""
    moved_out: int = 0


@dataclass(frozen=True)
class Rows:
    """The rows that ingest read."""

    groups: list[Group]
    examples: list[dict[str, Any]]
    """kind, use, split_before, split_after, and the row `before` and `after` (null where it is not there)."""

    @property
    def differ(self) -> int:
        """Rows that were added, removed, changed or moved."""
        return sum(g.added + g.removed + g.changed + g.moved_in for g in self.groups)


@dataclass(frozen=True)
class Verdicts:
    """The filter's verdicts of the rows that both runs judged."""

    shared: int
    kept_before: int
    kept_after: int
    changes: list[dict[str, Any]]
    """`before` and `after`: the rule that dropped the row, null where it was kept; `rows`."""
    examples: list[dict[str, Any]]

    @property
    def differ(self) -> int:
        """Rows that were dropped or kept by one run only, or dropped for another reason."""
        return sum(change["rows"] for change in self.changes)


@dataclass(frozen=True)
class Pairs:
    """The preference pairs of a stage. before = same + flipped + replaced + removed; after has added for removed."""

    stage: str
    before: int
    after: int
    same: int
    flipped: int
    """The same two responses to the same prompt, the other preferred."""
    replaced: int
    """The same prompt, with another pair of responses."""
    added: int
    removed: int
    examples: list[dict[str, Any]]

    @property
    def differ(self) -> int:
        """Pairs that were flipped, replaced, added or removed."""
        return self.flipped + self.replaced + self.added + self.removed


@dataclass(frozen=True)
class Difference:
    """after - before of a policy on the items of a suite that both runs graded, with its 95 % interval."""

    suite: str
    mode: str
    before: str
    """The policy of the run before."""
    after: str
    """The policy of the run after; of another name only where the runs end with different ones."""
    shared: int
    """Items (row_id: the same prompt and reference) that both runs asked."""
    before_only: int
    after_only: int
    n: int
    """Of the shared ones those graded in both."""
    mean_before: float | None
    """Mean grade on these, a share in 0..1; None, like what follows, where there are none."""
    mean_after: float | None
    diff: float | None
    low: float | None
    high: float | None
    differ: int
    """Items whose scores differ."""
    p_exact: float | None
    """Two-sided p of the exact test; None where 25 or more items differ."""
    verdict: str
    """better, worse, not shown, too few to tell, or not measured: nothing is shared, or the graders differ."""
    grader: str | None
    """How the suite's graders differ, in words: the scores are then of different measures."""
    seeds: int = 1
    """Seeds of the policy, of the run that has more of them: scores are means over them."""
    seed_sd: float | None = None
    """Standard deviation of the seeds' means, which is in the interval; null where there is one seed."""


@dataclass(frozen=True)
class Answers:
    """The greedy answers of a policy to the items that both runs asked."""

    before: str
    after: str
    shared: int
    gained: int
    """Wrong or unreadable before, right after."""
    lost: int
    """Right before, wrong or unreadable after."""
    right_in_both: int
    wrong_in_both: int
    not_graded: int
    """In one run or both."""
    other_text: int
    """Answers that are not the same text, whatever their grades."""
    regraded: int
    """Answers of the same text with another grade: what the graders changed, and not the policy."""
    examples: list[dict[str, Any]]
    """kind (gained or lost), suite, row_id, prompt, reference, and the answer `before` and `after`: response, status,
    finish_reason, detail."""


@dataclass(frozen=True)
class Comparison:
    """Two runs, and everything that they differ in. A part is None where a note says why."""

    before: Side
    after: Side
    settings: list[Setting]
    stages: list[Stage]
    rows: Rows | None
    verdicts: Verdicts | None
    pairs: list[Pairs]
    differences: list[Difference]
    answers: list[Answers]
    notes: list[Note]
    """What could not be compared, and what must be known beside what was."""

    def said(self, part: Part) -> list[str]:
        """The notes about a part."""
        return [note.text for note in self.notes if note.part == part]

    @property
    def final(self) -> tuple[str, str] | None:
        """The policies that the runs end with, where both were evaluated in both; else the last that are compared."""
        pairs = list(dict.fromkeys((d.before, d.after) for d in self.differences))
        ends = (self.before.final, self.after.final)
        return next((p for p in pairs if p == ends), pairs[-1] if pairs else None)
