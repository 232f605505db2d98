"""SFT through this pipeline against a bare trl script doing the same training.

    .venv/bin/python benchmarks/sft_overhead.py [--rows 400] [--rounds 3]

Both train the quickstart's base with NF4 QLoRA on the same rows and settings, grouped by length (fp32 compute
on a CPU), and save the adapter. Contenders alternate; the medians over the rounds are compared. What is timed is the
whole of it: loading, tokenising, training, saving. The aim is a ratio of at most 1.05.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from align import tables
from align.models.base import BaseConfig
from align.text import taken
from flows.recipe import load
from tasks.filter import filter
from tasks.ingest import ingest
from tasks.sft import SftConfig, sft


def bare(config: SftConfig, out: Path, base: BaseConfig, kept: Path) -> None:
    """What a user of trl would write for the same training."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    assert config.lora is not None and base.path is not None and base.chat_template is not None
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    tokenizer.chat_template = base.chat_template.read_text()
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=["lm_head"],
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, quantization_config=four_bit)
    model.config.use_cache = False
    lora = LoraConfig(
        r=config.lora.r, lora_alpha=config.lora.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    read = tables.read(kept)
    read = [read[at] for at in taken([r["row_id"] for r in read], config.limit, config.seed)]
    rows = [{"messages": [*r["messages"], {"role": "assistant", "content": r["response"]}]} for r in read]
    args: dict[str, Any] = {
        "output_dir": str(out / "trainer"), "learning_rate": config.learning_rate,
        "num_train_epochs": config.num_train_epochs,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "max_length": config.max_length, "bf16": False,
        "assistant_only_loss": True, "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(), "disable_tqdm": True, "logging_steps": 10,
        "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=SFTConfig(**args), train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    for parameter in model.parameters():  # trl casts the adapters of a quantised model to bf16, which a CPU is slow at
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train()
    model.save_pretrained(out / "adapter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = load("quickstart")
    config = recipe.sft.model_copy(update={"limit": options.rows, "num_train_epochs": 1.0})
    folder = Path(tempfile.mkdtemp(prefix="align-sft-"))

    def fresh(name: str) -> Path:
        path = folder / name
        path.mkdir(parents=True)
        return path

    ingest(recipe.ingest, fresh("ingest"))
    rules = tuple(r for r in recipe.filter.rules if r.rule in ("empty", "refusal", "parses", "duplicate"))
    quick = recipe.filter.model_copy(update={"rules": rules})
    filter(quick, fresh("filter"), rows=folder / "ingest" / "rows.parquet", base=recipe.base)
    kept = folder / "filter" / "kept.parquet"
    times: dict[str, list[float]] = {"bare trl": [], "align": []}
    for i in range(options.rounds + 1):  # the first round warms imports and caches up
        for name in times:
            out = fresh(f"{name.split()[0]}{i}")
            started = time.monotonic()
            if name == "align":
                sft(config, out, base=recipe.base, rows=kept)
            else:
                bare(config, out, recipe.base, kept)
            if i:
                times[name].append(time.monotonic() - started)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        print(f"{name:10} {medians[name]:7.2f} s   ({', '.join(f'{s:.2f}' for s in seconds)})")
    print(f"align / bare trl = {medians['align'] / medians['bare trl']:.3f}")


if __name__ == "__main__":
    main()
