"""Quality by the base model: how much the instruction helps to predict the response."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.models import BaseConfig, compute_dtype, dequantise, device, directory, load_model
from tasks.lib.pool import Drop, Pool
from tasks.lib.progress import track


class IFD(Config):
    """Instruction-following difficulty (Cherry LLM, Li et al. 2023): loss of the response after the prompt over its
    loss alone, per token. Near or above 1 the instruction does not help: the response answers something else."""

    rule: Literal["ifd"] = "ifd"
    template: str = "{prompt}\n"
    """What stands before the response; {prompt} is the prompt."""
    min: float = 0.0
    """Rows below it are dropped: the answer is all but given by the prompt."""
    max: float = Field(default=1.0, gt=0)
    """Rows above it are dropped: the prompt does not help to predict the answer."""
    max_tokens: int = Field(default=512, ge=8)
    """Tokens of prompt and response that are looked at."""
    batch_tokens: int = Field(default=4096, ge=64)
    """Padded tokens of a batch."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        if not len(live):
            return
        prompts = [self.template.format(prompt=p) for p in pool.column("prompt").to_pylist()]
        responses = [r or "" for r in pool.column("response").to_pylist()]
        score = np.full(pool.table.num_rows, np.nan)
        given, alone, n = losses(pool.base, prompts, responses, self.max_tokens, self.batch_tokens)
        with np.errstate(divide="ignore", invalid="ignore"):
            score[live] = given / alone
        pool.scores["ifd"] = score
        for at in live[(score[live] > self.max) | (score[live] < self.min) | np.isnan(score[live])]:
            yield int(at), {"ifd": round(float(score[at]), 4), "min": self.min, "max": self.max}


def losses(
    base: BaseConfig, prompts: Sequence[str], responses: Sequence[str], max_tokens: int, batch_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean loss per response token after its prompt, and alone, and the number of tokens. [rows] each"""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory(base))
    model = load_model(base)
    if base.quantization == "nf4":
        dequantise(model, compute_dtype(base))
    model.eval()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    head = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]
    tail = [tokenizer(r, add_special_tokens=False)["input_ids"][: max_tokens // 2] for r in responses]
    head = [[start, *h[-(max_tokens - len(t) - 1) :]] for h, t in zip(head, tail, strict=True)]
    given = response_loss(model, head, tail, batch_tokens, "IFD with prompts")
    alone = response_loss(model, [[start]] * len(tail), tail, batch_tokens, "IFD without prompts")
    return given, alone, np.array([len(t) for t in tail])


def response_loss(
    model: Any, heads: Sequence[list[int]], tails: Sequence[list[int]], batch_tokens: int, label: str
) -> np.ndarray:
    """Mean negative log-likelihood of each tail after its head, in nats; nan for an empty tail. [rows]"""
    import torch

    out = np.full(len(tails), np.nan)
    todo = sorted((i for i in range(len(tails)) if tails[i]), key=lambda i: (len(heads[i]) + len(tails[i]), i))
    batches: list[list[int]] = [[]]
    for i in todo:
        width = len(heads[i]) + len(tails[i])
        if batches[-1] and width * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    for batch in track([b for b in batches if b], label):
        width = max(len(heads[i]) + len(tails[i]) for i in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        wanted = torch.zeros((len(batch), width), dtype=torch.bool)
        for row, i in enumerate(batch):
            h, t = len(heads[i]), len(tails[i])
            ids[row, : h + t] = torch.tensor(heads[i] + tails[i])
            wanted[row, h : h + t] = True
        ids, wanted = ids.to(device()), wanted.to(device())
        with torch.inference_mode():
            # right padding under a causal mask: no real position sees the padding
            logits = model(input_ids=ids).logits[:, :-1]
            mask = wanted[:, 1:]
            loss = torch.nn.functional.cross_entropy(logits[mask].float(), ids[:, 1:][mask], reduction="none")
            total = torch.zeros(mask.shape, dtype=torch.float32, device=loss.device)
            total[mask] = loss
            mean = total.sum(1) / mask.sum(1)
        out[batch] = mean.cpu().numpy()
    return out
