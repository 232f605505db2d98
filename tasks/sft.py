"""Supervised fine-tuning with QLoRA (Dettmers et al., 2023): a new adapter, or one more round for an existing one."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from align import tables
from align.config import Metrics
from align.errors import StageError
from align.models import packing, trainable, training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig, load_chat
from align.models.chat import Chat
from align.models.control import broken
from align.models.tools import response_of
from align.models.trained import save_trained
from align.text import taken


class SftConfig(Training):
    """Settings of sft."""

    TRL: ClassVar[str] = "SFTConfig"

    packing: bool | Literal["auto"] = "auto"
    """Put the rows of a step side by side in blocks of at most max_length instead of padding each, in as few passes as
    hold them; a batch counts rows all the same. auto: on CUDA where it saves work; else like lengths go together."""
    train_on: Literal["all", "last"] = "all"
    """The assistant's turns that are trained on: all of a row, or only the last, its response."""

    def own(self) -> dict[str, Any]:
        return {"packing": False, "padding_free": False, "dataset_kwargs": {"skip_prepare_dataset": True}}


class SftRsConfig(SftConfig):
    """Settings of sft_rs and its control: only the response was selected, so nothing else is trained on."""

    train_on: Literal["last"] = "last"
    """Only the response; nobody scored the assistant's earlier turns."""


def sft(
    config: SftConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    adapter: Path | None = None,
    checkpoints: Path | None = None,
) -> Metrics:
    """Train on the responses of `rows` (KEPT); `adapter` is the training artifact whose adapter is continued.

    Writes adapter/ (or model/), training_log.parquet, dropped.parquet, and altered.parquet where rows hold control
    tokens. The loss covers the assistant's words and the end-of-turn tokens only. Raises StageError where a check on
    the template, the lengths or the base fails.
    """
    config.check()
    chat = load_chat(base)
    chat.check()
    table = tables.read(rows)
    table = [table[at] for at in taken([r["row_id"] for r in table], config.limit, config.seed)]
    if not table:
        raise StageError("There are 0 rows to train on.")
    empty = [r["row_id"] for r in table if not r["response"]]
    if empty:
        raise StageError(f"{len(empty)} rows have no response to train on, such as {empty[0]}.")
    said = [response_of(r) for r in table]
    faulty = [
        (r["row_id"], why, None) for r, s in zip(table, said, strict=True) if (why := chat.lost(r["messages"], s))
    ]
    gone = {row_id for row_id, _, _ in faulty}
    sound = [at for at, r in enumerate(table) if r["row_id"] not in gone]
    if not sound:
        raise StageError(f"There are 0 rows to train on: of row {faulty[0][0]}, {faulty[0][1]}.")
    ids = [table[at]["row_id"] for at in sound]
    conversations, responses = [table[at]["messages"] for at in sound], [table[at]["response"] for at in sound]
    examples = chat.examples(conversations, [said[at] for at in sound], config.train_on)
    calls = {i for i, at in zip(ids, sound, strict=True) if isinstance(said[at], dict)}
    training.check_ends(chat, [e.ids[-1] for e in examples], ids, calls)
    kept = training.within_length(ids, [len(e.ids) for e in examples], config, "rows", out, faulty)

    from datasets import Dataset

    data = Dataset.from_dict(
        {
            "input_ids": [examples[i].ids for i in kept],
            "labels": [
                [t if m else -100 for t, m in zip(examples[i].ids, examples[i].mask, strict=True)] for i in kept
            ],
            "length": [len(examples[i].ids) for i in kept],
        }
    )
    with arguments(config, base, len(kept)) as args:
        model = trainable.start(config, base, adapter)
        start = trainable.weights(model)
        trainer = _trainer(config, model, chat, data, args)
        trainable.restore(model, start)
        log = training.run(trainer, "sft", out, config, checkpoints)
    save_trained(model, chat, base, out)
    return {
        "rows": len(kept),
        "rows.read": len(table),
        "rows.too_long": len(sound) - len(kept),
        **({"rows.faulty": len(faulty)} if faulty else {}),
        "tokens.trained": sum(sum(examples[i].mask) for i in kept),
        **broken(chat.control, ids, conversations, responses, out=out),
        **training.facts(log),
    }


def _trainer(config: SftConfig, model: Any, chat: Chat, data: Any, args: Any) -> Any:
    """trl's SFTTrainer, with rows packed where the settings, the device and the rows ask for it."""
    from trl import SFTTrainer

    class Packed(SFTTrainer):
        """Counts the tokens of all blocks: trl takes the width of one for them."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            before, tokens = self._total_train_tokens, packing.real_tokens(inputs["position_ids"])
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            if model.training:
                self._total_train_tokens = before + int(self.accelerator.gather_for_metrics(tokens).sum())
                self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            return loss

    size, passes = args.per_device_train_batch_size, args.gradient_accumulation_steps  # of this process
    together = packing.decide(config.packing, model, list(data["length"]), size, passes, config.max_length)
    if not together:
        return SFTTrainer(model=model, args=args, train_dataset=data, processing_class=chat.tokenizer)
    args.per_device_train_batch_size, args.gradient_accumulation_steps = size * together, passes // together
    # Without the column length rows are shuffled: steps of like lengths would differ most in size, and save nothing.
    return Packed(
        model=model, args=args, train_dataset=data.remove_columns("length"), processing_class=chat.tokenizer,
        data_collator=packing.Collator(model, chat.pad_id, config.max_length),
    )  # fmt: skip
