"""The artifact of the stage reference: log-probabilities of pairs, and of which adapter and which pairs they are.

`reference.json` holds digests of the files that decide them. A stage that reads the log-probabilities compares these
with its own inputs, since numbers of another adapter would train silently towards another policy.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align import tables
from align.errors import StageError
from align.models.chat import Chat
from align.models.files import read_json
from align.models.pairs import Pair
from align.models.trained import files

if TYPE_CHECKING:
    import torch

FACTS = "reference.json"


def write(out: Path, pairs: Sequence[Pair], values: "torch.Tensor", facts: dict[str, str]) -> None:
    """Write `values` [N, 2] (chosen, rejected) as reference.parquet, and `facts` beside it."""
    tables.write(
        out / "reference.parquet",
        (
            {
                "pair_id": p.pair_id,
                "chosen_logps": chosen,
                "rejected_logps": rejected,
                "chosen_tokens": p.chosen.tokens,
                "rejected_tokens": p.rejected.tokens,
            }
            for p, (chosen, rejected) in zip(pairs, values.tolist(), strict=True)
        ),
        tables.REFERENCE,
    )
    (out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def facts_of(chat: Chat, pairs: Path, adapter: Path) -> dict[str, str]:
    """Digests of what log-probabilities are computed from: what was trained, the pairs and the template."""
    return {"adapter": _digest(*files(adapter)), "pairs": _digest(pairs), "chat_template": chat.digest}


def check(reference: Path, chat: Chat, pairs: Path, adapter: Path) -> None:
    """StageError unless the artifact was computed with this adapter and template, on these pairs."""
    told = read_json(reference / FACTS, StageError)
    others = {
        "adapter": f"another adapter than {adapter.name}",
        "pairs": f"other pairs than {'/'.join(pairs.parts[-2:])}",
        "chat_template": "another chat template",
    }
    for what, value in facts_of(chat, pairs, adapter).items():
        if told.get(what) != value:
            raise StageError(
                f"The reference {reference.name} was computed with {others[what]}; run the stage reference again, "
                "with what dpo gets."
            )


def read(reference: Path, pairs: Sequence[Pair]) -> "torch.Tensor":
    """The log-probabilities of the pairs, [N, 2] (chosen, rejected). StageError where the artifact lacks a pair."""
    import torch

    rows = {r["pair_id"]: r for r in tables.read(reference / "reference.parquet")}
    for p in pairs:
        row = rows.get(p.pair_id)
        if row is None or (row["chosen_tokens"], row["rejected_tokens"]) != (p.chosen.tokens, p.rejected.tokens):
            what = "no log-probabilities" if row is None else "log-probabilities of other tokens"
            raise StageError(
                f"The reference {reference.name} has {what} for the pair {p.pair_id}; run the stage reference with "
                "dpo's max_length and limit."
            )
    return torch.tensor([[rows[p.pair_id][f"{side}_logps"] for side in ("chosen", "rejected")] for p in pairs])


def _digest(*files: Path) -> str:
    """One sha256 over files. Raises StageError if one is missing."""
    h = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as f:
                h.update(hashlib.file_digest(f, "sha256").digest())
        except FileNotFoundError:
            raise StageError(f"{file} is missing; run the stage that made it again.") from None
    return h.hexdigest()
