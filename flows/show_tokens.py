"""A training row as the model saw it: which of its tokens are trained on, and which are only read."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from align import tables
from align.errors import InputError
from align.text import printable
from flows import show
from flows.rounds import of_round, round_of
from storage import runs
from storage.store import Store

if TYPE_CHECKING:
    from align.models.chat import Chat
    from align.models.example import Example

# stage that trains, stage and file that its rows are from; those of the second are of each round
STAGES = (("sft", "filter", "kept.parquet"), ("sft_rs", "select", "kept.parquet"))
TRAINED, READ = "bold green", "dim"
OPEN, CLOSE = "⟦", "⟧"  # around what is trained on, where there are no colours


@dataclass(frozen=True)
class Seen:
    """A row in the training of a stage."""

    stage: str
    chat: "Chat"
    example: "Example"
    max_length: int | None

    def about(self) -> str:
        """One line: how many tokens, how many of them trained on."""
        n, trained = len(self.example.ids), sum(self.example.mask)
        long = self.max_length is not None and n > self.max_length
        fate = f"; longer than max_length {self.max_length}, so it was dropped" if long else ""
        return f"{self.stage}: {n} tokens, {trained} of them trained on{fate}"

    def parts(self) -> Iterator[tuple[bool, str]]:
        """The row's text in parts, and whether each is trained on."""
        tokens = zip(self.example.mask, self.example.ids, strict=True)
        for trained, run in groupby(tokens, key=lambda pair: bool(pair[0])):
            yield trained, str(self.chat.tokenizer.decode([i for _, i in run]))


def seen(store: Store, row_id: str, run_id: str | None) -> list[Seen]:
    """The row in every SFT stage of a run (None: the latest with a filter) that trains on it. Raises InputError if
    there is none."""
    from align.models.base import BaseConfig, load_chat
    from align.models.tools import response_of

    run = show.latest_run(store, run_id, "filter")
    source = runs.source(store, run["run_id"])
    done = sorted((s["stage"] for s in runs.stages(store, run["run_id"]) if s["artifact"]), key=round_of)
    found: list[Seen] = []
    rounds = [(*at, round_of(name)) for at in STAGES for name in done if name == of_round(at[1], round_of(name))]
    for stage, before, file, k in rounds:
        path = show.artifact_of(store, run["run_id"], of_round(before, k)) / file
        for row in tables.read(path, row_id=row_id):
            chat = load_chat(BaseConfig.model_validate(source["base"]))
            settings: dict[str, Any] = source.get(stage) or {}
            train_on: Literal["all", "last"] = "last" if stage == "sft_rs" else settings.get("train_on", "all")
            said = response_of(row)
            if why := chat.lost(row["messages"], said):
                raise InputError(f"{row_id}: {stage} set the row aside; {why}.")
            (example,) = chat.examples([row["messages"]], [said], train_on)
            found.append(Seen(of_round(stage, k), chat, example, settings.get("max_length")))
    if not found:
        raise InputError(
            f"{row_id}: no SFT stage of run {run['run_id']} trains on a row of this id; `align trace {row_id}` says "
            "what became of it."
        )
    return found


def print_tokens(rows: list[Seen]) -> None:
    """Print rows, in colours on a terminal, else with ⟦ ⟧ around what is trained on."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for row in rows:
        show.say(row.about())
        if coloured:
            from rich.console import Console
            from rich.text import Text

            parts = ((printable(text), TRAINED if trained else READ) for trained, text in row.parts())
            Console(force_terminal=True).print(Text.assemble(*parts), soft_wrap=True)
        else:
            show.say("".join(f"{OPEN}{text}{CLOSE}" if trained else text for trained, text in row.parts()))
