"""A store with samples to label, and a real `align label` on it."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

from served import ALIGN, PATIENCE, own_environment
from test_store import Knob, made

from align import tables
from storage.build import Output
from storage.runs import Run, StageRun
from storage.store import Store

PROMPTS = 12
HOSTILE = "</textarea><script>window.ran=1</script><img src=x onerror='window.ran=1'><b>&amp; {{ 7 * 7 }} \u202eabc"
SYSTEM = "You answer in one word. <i>"


def rows(config: Knob, out: Path) -> dict:
    """Prompts, half of them with instructions to the model."""
    system = {"role": "system", "content": SYSTEM}
    found = []
    for i in range(PROMPTS):
        turns = [*([system] if i % 2 else []), {"role": "user", "content": f"질문 {i}: {HOSTILE}"}]
        found.append({"row_id": f"row{i}", "messages": turns, "prompt": f"질문 {i}", "use": "prompts"})
    return {"rows": tables.write(out / "rows.parquet", found, tables.ROWS)}


def samples(config: Knob, out: Path, *, rows: Path) -> dict:
    """Three samples of each prompt, one of them cut off, or with `value` 0 all the same."""
    texts = ["Yes. {}\n\n  a  b " + HOSTILE, "No. {} \"quoted\" 'too'", "Cut {}"]
    found = [
        {
            "row_id": f"row{i}",
            "sample_id": f"drawn-row{i}-{k}",
            "sample_index": k,
            "text": text.format(i) if config.value else "same",
            "finish_reason": "truncated" if k == 2 else "stop",
            "n_tokens": 7,
        }
        for i in range(PROMPTS)
        for k, text in enumerate(texts)
    ]
    return {"samples": tables.write(out / "samples.parquet", found, tables.SAMPLES)}


def run_of(store: Store, value: int = 1, stages: tuple[str, ...] = ("ingest", "sample")) -> str:
    """A run that made rows, and samples of them; of its record only `stages` are there."""
    run = Run(store, "r", {"name": "r"})
    read, _ = made(store, "ingest", rows, Knob())
    drawn, _ = made(store, "sample", samples, Knob(value=value), rows=Output(read.artifact, "rows.parquet"))
    for attempt in (read, drawn):
        if attempt.stage in stages:
            run.stage(StageRun(attempt.stage, attempt.key, attempt.artifact, "ran", 1.0, "", {}))
    run.finish("done")
    return run.id


class Labelling:
    """An `align label` that is up."""

    def __init__(self, store: Store, file: Path, *words: str):
        command = [*ALIGN, "label", "--to", file.name, "--store", str(store.root), *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=file.parent, env=own_environment()
        )
        assert self.process.stdout is not None
        found = re.search(r"Label here: (\S+)", self.process.stdout.readline())
        assert found, self.process.stderr and self.process.stderr.read()
        self.url = found[1]

    def end(self, signum: int = signal.SIGINT) -> str:
        """What it prints when it is told to end."""
        self.process.send_signal(signum)
        printed, complaints = self.process.communicate(timeout=PATIENCE)
        assert signum == signal.SIGKILL or (self.process.returncode == 0 and not complaints), complaints
        return printed


def said(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
