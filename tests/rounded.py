"""A chain of several rounds in a real store, whose gates a grader decides: what rounds are tested on."""

from pathlib import Path
from typing import Any

from served import TINY

from flows.recipe import load
from flows.run import Outcome, run
from storage.store import Store

# A prompt's first two distinct responses are bad, all later ones good: what a gate grades first is what the round began
# with. Grades are kept, so that the policy of round 1, good beside that of sft, is good beside that of round 2, too.
GRADER = """
seen = {}

def grade(prompt, response, reference, meta):
    seen.setdefault(prompt, set()).add(response)
    return float(len(seen[prompt]) > 2)

def same(prompt, response, reference, meta):
    return 1.0
"""


class Chain:
    """A store in which a recipe of three rounds ran: the first helps, the second is shown not to."""

    def __init__(self, folder: Path):
        (folder / "grader.py").write_text(GRADER)
        self.store = Store(folder / "store")
        self.overrides = [
            "chain.rounds=3", "chain.reward_each_round=false", f"chain.gate.grader.file={folder / 'grader.py'}",
            "chain.gate.grader.kind=python", "chain.gate.grader.function=grade",
            "controls.random_of_n=false", "sample.limit=48", "resample.limit=16", "select.grader={kind: none}",
            "ingest.split={sft: 0.6, preference: 0.2, rejection: 0.1, evaluation: 0.1}",
            "sample.use=[prompts]", "pairs.held_out=0.6", "dpo.learning_rate=2e-3", "sample.max_new_tokens=16",
            "resample.max_new_tokens=16", "evaluate.max_new_tokens=16", "evaluate.suites.questions.limit=6",
        ]  # fmt: skip
        self.outcome = self.run()

    @property
    def words(self) -> list[str]:
        """What follows the recipe on the command line."""
        return [*(w for o in self.overrides for w in ("--set", o)), "--store", str(self.store.root)]

    def recipe(self, *more: str) -> Any:
        return load(TINY, [*self.overrides, *more])

    def run(self, *more: str) -> Outcome:
        return run(str(TINY), [*self.overrides, *more], self.store)

    def folder(self, stage: str) -> Path:
        (found,) = [s.artifact for s in self.outcome.stages if s.stage == stage]
        assert found is not None
        return self.store.root / "artifacts" / found
