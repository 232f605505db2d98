"""Training examples: a conversation's token ids, which of them are trained on, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation up to the end-of-turn token; `mask[i]` is 1 where token i is trained on."""

    ids: list[int]
    mask: list[int]
    prompt: int
    """Number of leading tokens that the generation prompt has as well: where the response starts."""

    @property
    def tokens(self) -> int:
        """Tokens of the response, the end-of-turn token among them."""
        return len(self.ids) - self.prompt


def together(parts: Sequence[Any]) -> Any:
    """What was made of conversations one by one, lists or mappings to lists, as if it were made at once."""
    if isinstance(parts[0], list):
        return [text for part in parts for text in part]
    return {name: [x for part in parts for x in part[name]] for name in parts[0]}


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of leading elements that are the same."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def without_prefix(ids: Sequence[int], mask: list[int], prefix: Sequence[int]) -> None:
    """Unmask `prefix` at the beginning of every masked run: a generation prompt is given, not said."""
    n = len(prefix)
    for i, m in enumerate(mask):
        if n and m and not (i and mask[i - 1]) and list(ids[i : i + n]) == list(prefix):
            mask[i : i + n] = [0] * n


def pad(examples: Sequence[Example], pad_id: int) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Right-padded token ids, attention mask and response mask, [B, T] each."""
    import torch

    shape = (len(examples), max(len(e.ids) for e in examples))
    ids = torch.full(shape, pad_id, dtype=torch.long)
    mask, response = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = 1
        response[row, e.prompt : len(e.ids)] = 1
    return ids, mask, response
