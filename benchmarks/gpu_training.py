"""QLoRA training through this project and through a bare trl script, timed alike: for gpu.py and trainers.py."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from align import tables
from align.models.base import BaseConfig, compute_dtype, load_chat
from align.models.tools import Message
from tasks.dpo import DpoConfig, dpo
from tasks.reference import ReferenceConfig, reference
from tasks.reward import RewardConfig, reward
from tasks.sft import SftConfig, sft

Kind = Literal["sft", "reward", "dpo"]
Settings = SftConfig | RewardConfig | DpoConfig
HEAD = {"num_labels": 1}
WORDS = ["orders", "from", "Seoul", "in", "March,", "their", "products,", "prices", "and", "the", "fees", "paid;"]


@dataclass
class Measured:
    """What one training took: seconds within `Trainer.train`, bytes at the peak (0 without CUDA), steps."""

    seconds: float = 0.0
    before: float = 0.0
    """Seconds of the stage reference, loading included, which a sweep of DPO pays once."""
    peak: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)


@contextmanager
def measured() -> Iterator[Measured]:
    """Time every `Trainer.train` within, whoever calls it, so that loading and saving count for nobody."""
    import torch
    from transformers import Trainer

    found, train, cuda = Measured(), Trainer.train, torch.cuda.is_available()
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        result = train(self, *args, **kwargs)
        if cuda:
            torch.cuda.synchronize()
        found.seconds, found.steps = time.monotonic() - started, self.state.global_step
        found.losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return result

    Trainer.train = timed  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Trainer.train = train  # type: ignore[method-assign]
        found.peak = torch.cuda.max_memory_allocated() if cuda else 0


def conversations(base: BaseConfig, rows: int, longest: int) -> list[tuple[list[Message], str]]:
    """Prompts and responses of many lengths, none above `longest` tokens and every fourth near it."""
    chat = load_chat(base)
    prompt: list[Message] = [{"role": "user", "content": "Tell me about the shop."}]
    text = " ".join(WORDS * longest)
    width = [len(" ".join(text.split()[:n])) for n in (len(WORDS), 2 * len(WORDS))]
    empty, one, two = (len(e.ids) for e in chat.examples([prompt] * 3, ["", *(text[:w] for w in width)]))
    per_word = (two - one) / len(WORDS)
    shares = (0.97, 0.2, 0.45, 0.1)
    counts = [int((longest - empty) * shares[i % 4] / per_word) - i // 4 % 3 for i in range(rows)]
    return [(prompt, " ".join(text.split()[: max(1, n)])) for n in counts]


def write_rows(base: BaseConfig, file: Path, rows: int, longest: int) -> list[int]:
    """KEPT rows for sft; returns their lengths in tokens."""
    found = conversations(base, rows, longest)
    same = {"source": "made", "use": "instructions", "split": "sft"}
    table = [
        {**same, "row_id": f"r{i}", "messages": m, "prompt": m[0]["content"], "response": r}
        for i, (m, r) in enumerate(found)
    ]
    tables.write(file, table, tables.KEPT)
    return [len(e.ids) for e in load_chat(base).examples([m for m, _ in found], [r for _, r in found])]


def write_pairs(base: BaseConfig, file: Path, pairs: int, longest: int) -> list[int]:
    """PAIRS for dpo; returns the lengths of both of each in tokens."""
    found = conversations(base, 2 * pairs, longest)
    same = {"margin": 1.0, "labelled_by": "made", "held_out": False}
    table = [
        {**same, "pair_id": f"q{i}", "row_id": f"r{i}", "messages": a[0], "chosen": a[1], "rejected": b[1]}
        for i, (a, b) in enumerate(zip(found[::2], found[1::2], strict=True))
    ]
    tables.write(file, table, tables.PAIRS)
    return [len(e.ids) for e in load_chat(base).examples([m for m, _ in found], [r for _, r in found])]


def ours(kind: Kind, config: Settings, out: Path, base: BaseConfig, data: Path, adapter: Path | None) -> Measured:
    """The stage itself."""
    out.mkdir(parents=True)
    with measured() as found:
        if isinstance(config, SftConfig):
            sft(config, out, base=base, rows=data)
        elif isinstance(config, RewardConfig):
            reward(config, out, base=base, pairs=data)
        else:
            assert adapter is not None
            frozen = out.with_name(f"{out.name}-reference")
            frozen.mkdir()
            started = time.monotonic()
            reference(ReferenceConfig(max_length=config.max_length), frozen, base=base, pairs=data, adapter=adapter)
            found.before = time.monotonic() - started
            dpo(config, out, base=base, pairs=data, adapter=adapter, reference=frozen)
    return found


def bare(kind: Kind, config: Settings, out: Path, base: BaseConfig, data: Path, adapter: Path | None) -> Measured:
    """What a user of trl would write for the same training."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

    assert base.path is not None and base.chat_template is not None
    cuda, dtype = torch.cuda.is_available(), compute_dtype(base)
    out.mkdir(parents=True)
    with measured() as found:
        tokenizer = AutoTokenizer.from_pretrained(base.path)
        tokenizer.chat_template = base.chat_template.read_text()
        four_bit = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "score"],
        )  # fmt: skip
        loader, heads = (AutoModelForCausalLM, {}) if kind != "reward" else (AutoModelForSequenceClassification, HEAD)
        model: Any = loader.from_pretrained(
            base.path, dtype=dtype, quantization_config=four_bit, device_map={"": "cuda" if cuda else "cpu"}, **heads
        )
        model.config.use_cache = False
        if kind == "reward":
            model.config.pad_token_id = tokenizer.pad_token_id
        if adapter is None:
            task = "SEQ_CLS" if heads else "CAUSAL_LM"
            lora = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type=task)
            model = get_peft_model(model, lora)
        else:
            model = PeftModel.from_pretrained(model, str(adapter / "adapter"), is_trainable=True)
        args: dict[str, Any] = {
            "output_dir": str(out / "trainer"), "learning_rate": config.learning_rate,
            "num_train_epochs": config.num_train_epochs,
            "per_device_train_batch_size": config.per_device_train_batch_size, "max_length": config.max_length,
            "bf16": cuda, "optim": "paged_adamw_8bit" if cuda else "adamw_torch_fused", "report_to": "none",
            "save_strategy": "no", "gradient_checkpointing": cuda, "use_cpu": not cuda, "disable_tqdm": True,
            "logging_steps": 1, "dataloader_pin_memory": cuda,
        }  # fmt: skip
        table = tables.read(data)
        maker: Any = trl
        if kind == "sft":
            rows = [{"messages": [*r["messages"], {"role": "assistant", "content": r["response"]}]} for r in table]
            args |= {"assistant_only_loss": True, "packing": getattr(config, "packing", False) is True}
            args |= {} if args["packing"] else {"train_sampling_strategy": "group_by_length"}
            settings, trainer_class = maker.SFTConfig(**args), maker.SFTTrainer
        else:
            said = [{k: [{"role": "assistant", "content": r[k]}] for k in ("chosen", "rejected")} for r in table]
            rows = [{"prompt": r["messages"], **both} for r, both in zip(table, said, strict=True)]
            name = "Reward" if kind == "reward" else "DPO"
            settings, trainer_class = getattr(maker, f"{name}Config")(**args), getattr(maker, f"{name}Trainer")
        trainer = trainer_class(
            model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        if not cuda:  # trl casts the adapters of a quantised model to bf16, which a CPU is slow at
            for parameter in model.parameters():
                parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
        trainer.train()
        model.save_pretrained(out / "adapter")
        del trainer, model
    return found
