"""Rows of a step side by side in blocks, instead of each padded to the longest.

A step has as many rows as without, so that its loss and gradient are those of padded rows. What goes is padding, and
passes: where rows are short, several passes of a step fit into one of the tokens that the longest rows would take.
Positions restart with each row and no attention mask is given: transformers tells from the positions which tokens
belong together, and masks all others (`masking_utils.find_packed_sequence_indices`), in sdpa and eager attention alike.
"""

import heapq
import random
from collections.abc import Sequence
from typing import Any

from align.errors import InputError

LOOK = 200  # batches that decide whether packing pays
SAVING = 0.02  # share of the work that it must save
ROW = 8  # tokens of a row of the check
SMALL = 0.05  # change of a logit, in standard deviations, that rounding explains and another row does not


def blocks(lengths: Sequence[int], longest: int, hidden: int) -> list[list[int]]:
    """Positions of the rows in each block, rows of `lengths` tokens in blocks of at most `longest`.

    Of all numbers of blocks the one with the least work is taken. A token of a block W wide costs 24 H^2 operations in
    the linear maps of a layer H wide and 4 H W in its attention (Kaplan et al., 2020, table 1): 6 H + W, in units of
    4 H. Rows go longest first to the block with the most room, which fills blocks evenly.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    total, widest = sum(lengths), max(lengths)
    best, least = [[i] for i in order], _work(len(lengths), widest, hidden)
    for n in range(max(1, -(-total // longest)), len(lengths)):
        if _work(n, max(widest, -(-total // n)), hidden) >= least:
            continue
        room = [(0, k) for k in range(n)]
        found: list[list[int]] = [[] for _ in range(n)]
        for i in order:
            used, k = heapq.heappop(room)
            found[k].append(i)
            heapq.heappush(room, (used + lengths[i], k))
        width = max(used for used, _ in room)
        work = _work(n, width, hidden)
        if width <= longest and work < least:
            best, least = found, work
    return best


def saves(lengths: Sequence[int], rows: int, longest: int, hidden: int) -> bool:
    """Whether packing batches of so many random rows is less work than padding batches of rows of like length."""
    draw = random.Random(0)
    packed = padded = 0
    mega = rows * max(1, min(50, len(lengths) // (4 * rows)))  # what transformers sorts by length at a time
    for _ in range(max(1, LOOK * rows // mega)):
        group = sorted(draw.sample(lengths, min(mega, len(lengths))))
        padded += sum(_work(len(b), max(b), hidden) for b in _parts(group, rows))
        draw.shuffle(group)
        for batch in _parts(group, rows):
            found = blocks(batch, longest, hidden)
            packed += _work(len(found), max(sum(batch[i] for i in block) for block in found), hidden)
    return packed < (1 - SAVING) * padded


def _parts(values: Sequence[int], size: int) -> list[Sequence[int]]:
    return [values[at : at + size] for at in range(0, len(values), size)]


def _work(n: int, width: int, hidden: int) -> int:
    return n * width * (6 * hidden + width)


class Collator:
    """Makes a batch of rows {input_ids, labels}: ids, labels and positions, [blocks, width] each.

    The first token of a row is never a label: the last token of the row before it would be asked for it.
    """

    def __init__(self, model: Any, pad_id: int, longest: int):
        self.pad_id, self.longest, self.hidden = pad_id, longest, _hidden(model)
        self.flat = _flat(model)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import torch

        lengths = [len(r["input_ids"]) for r in rows]
        found = [list(range(len(rows)))] if self.flat else blocks(lengths, self.longest, self.hidden)
        shape = (len(found), max(sum(lengths[i] for i in block) for block in found))
        ids, labels = torch.full(shape, self.pad_id), torch.full(shape, -100)
        positions = torch.zeros(shape, dtype=torch.long)  # padding: each token a row of its own
        for k, block in enumerate(found):
            at = 0
            for i in block:
                end = at + lengths[i]
                ids[k, at:end] = torch.tensor(rows[i]["input_ids"])
                labels[k, at + 1 : end] = torch.tensor(rows[i]["labels"])[1:]
                positions[k, at:end] = torch.arange(end - at)
                at = end
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def _flat(model: Any) -> bool:
    """Whether all rows go into one block: flash attention tells rows apart by positions in a single block only, where
    its work does not grow with the block."""
    return "flash" in str(model.config._attn_implementation)


def real_tokens(positions: Any) -> Any:
    """How many tokens of packed rows are no padding: those after a row's first, and one for each row (of two or more
    tokens). A tensor of one number."""
    return (positions > 0).sum() + (positions == 1).sum()


def keeps_apart(model: Any) -> bool:
    """Whether a row's logits do not depend on the row before it in its block.

    Architectures that carry a state along the sequence (Mamba, linear attention), and attention that does not look at
    positions, would let rows see each other.
    """
    import torch

    size, device = model.config.get_text_config().vocab_size, model.device
    row, one, other = (torch.arange(at, at + ROW, device=device) % size for at in (0, ROW, 2 * ROW))
    ids = torch.stack([torch.cat([one, row]), torch.cat([other, row])])
    positions = torch.arange(ROW, device=device).repeat(2)[None]
    training, found = model.training, []
    with torch.no_grad(), torch.autocast(device.type, model.dtype, enabled=model.dtype != torch.float32):
        for part in ids[:, None] if _flat(model) else [ids]:
            logits = model.eval()(input_ids=part, position_ids=positions.expand_as(part), use_cache=False).logits
            found.append(logits[:, ROW:].float())
    model.train(training)
    logits = torch.cat(found)
    return bool((logits[0] - logits[1]).abs().max() <= SMALL * logits.std())


def merged(lengths: Sequence[int], rows: int, passes: int, longest: int) -> int:
    """How many of a step's `passes` of `rows` rows fit into one of at most rows x longest tokens: a divisor of them."""
    draw = random.Random(0)
    for n in range(passes, 1, -1):
        if passes % n == 0 and max(sum(draw.choices(lengths, k=n * rows)) for _ in range(LOOK)) <= rows * longest:
            return n
    return 1


def decide(asked: bool | str, model: Any, lengths: Sequence[int], rows: int, passes: int, longest: int) -> int:
    """How many of a step's `passes` of `rows` rows each become one packed pass; 0 where rows are padded.

    `auto` packs on CUDA where that merges passes or saves work, and the architecture keeps rows apart; on a CPU fewer
    and larger passes gain little. Raises InputError where packing is asked for and rows would see each other.
    """
    if asked is False or (asked == "auto" and model.device.type != "cuda"):
        return 0
    together = merged(lengths, rows, passes, longest)
    if asked == "auto" and together == 1 and not saves(lengths, rows, longest, _hidden(model)):
        return 0
    if keeps_apart(model):
        return together
    if asked is True:
        what = model.config.model_type
        raise InputError(f"packing: rows of a {what} model would see each other in a block; set it to false.")
    return 0


def _hidden(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)
