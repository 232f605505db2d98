"""Log-probabilities of whole responses under a policy: what DPO compares between policy and reference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.models.example import pad
from align.models.pairs import Pair
from align.models.shards import gather, share
from align.progress import Progress

if TYPE_CHECKING:
    import torch


def logps(
    model: Any, pairs: Sequence[Pair], pad_id: int, *, batch_size: int, label: str = "scoring pairs"
) -> "torch.Tensor":
    """Summed log-probabilities of the responses, [N, 2] (chosen, rejected), fp32 on the CPU, without dropout.

    `model` has trl's fused LM head. Its weights stay as training has them, quantised and with the adapter beside them:
    merged ones would round differently. `batch_size` sequences are scored together, the shortest first; several
    processes share them, unless they share the model.
    """
    import torch

    examples = [e for p in pairs for e in (p.chosen, p.rejected)]
    order = share(sorted(range(len(examples)), key=lambda i: len(examples[i].ids)), model)
    found, training = torch.zeros(len(examples)), model.training
    half = torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32)
    model.eval()
    with torch.no_grad(), half, Progress(len(order), label) as progress:
        for at in range(0, len(order), batch_size):
            batch = order[at : at + batch_size]
            ids, mask, response = (x.to(model.device) for x in pad([examples[i] for i in batch], pad_id))
            labels = ids.masked_fill(response == 0, -100)
            output = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True)
            found[batch] = output.log_probs.float().sum(1).cpu()
            progress.advance(len(batch))
    model.train(training)
    for theirs, values in gather((order, found[order])):
        found[theirs] = values
    return found.view(-1, 2)
