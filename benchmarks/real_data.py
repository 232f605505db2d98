"""The whole chain on data and weights that nobody here made, on a CPU: how long each stage takes and what it counted.

    .venv/bin/python benchmarks/real_data.py [--data DIR] [--store DIR]

Base: stories260K (a real pretrained Llama of 260k parameters). Instructions: LIMA and Alpaca. Preferences: HH-RLHF, and
the English, Chinese, KTO and ranked-list files. Evaluation: GSM8K and IFEval. Nothing is claimed about quality.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ALIGN_TEST_DATA", HERE.parent.parent / "shared" / "data"))

RECIPE = """
name: real-data
base: {{path: {data}/stories260K, chat_template: {recipes}/plain.jinja}}

ingest:
  sources:
    lima: {{path: {data}/lima/lima.json}}
    alpaca: {{path: {data}/alpaca/alpaca_5000.json, limit: 1500}}
    hh: {{path: {data}/hh_rlhf/test.jsonl.gz, use: preferences, limit: 600}}
    english: {{path: {data}/preferences/dpo_en_demo.json, use: preferences}}
    chinese: {{path: {data}/preferences/dpo_zh_demo.json, use: preferences}}
    ranked: {{path: {data}/preferences/oaast_rm_zh.json, use: preferences}}
    kto: {{path: {data}/preferences/kto_en_demo.json, use: preferences}}
    gsm8k: {{path: {data}/gsm8k/test.jsonl, use: evaluation, limit: 100}}
    ifeval: {{path: {data}/ifeval/input_data.jsonl, use: evaluation, limit: 100}}
  split: {{sft: 0.6, preference: 0.1, rejection: 0.1, evaluation: 0.2}}

filter:
  rules:
    - {{rule: empty}}
    - {{rule: refusal}}
    - {{rule: truncated}}
    - {{rule: repetition}}
    - {{rule: wrong_language}}
    - {{rule: duplicate}}
    - {{rule: near_duplicate}}
    - {{rule: ifd, max: 1.0}}
    - {{rule: budget, rows: 300}}

sft: {{num_train_epochs: 1, per_device_train_batch_size: 8, max_length: 448, max_truncated_share: 0.9}}
sample: {{split: preference, n: 2, limit: 40, max_new_tokens: 48}}
pairs: {{origin: imported}}
reward: {{num_train_epochs: 1, per_device_train_batch_size: 8, max_length: 448, max_truncated_share: 0.9, limit: 400}}
resample: {{split: rejection, n: 4, limit: 60, max_new_tokens: 48}}
select: {{skip_truncated: false}}
sft_rs: {{num_train_epochs: 1, per_device_train_batch_size: 8, max_length: 448, max_truncated_share: 0.9}}
dpo: {{num_train_epochs: 1, per_device_train_batch_size: 4, max_length: 448, max_truncated_share: 0.9, limit: 400}}
evaluate:
  suites:
    gsm8k: {{grader: {{kind: number}}, limit: 60}}
    ifeval: {{grader: {{kind: ifeval}}, limit: 60}}
  n: 2
  max_new_tokens: 48
"""


def write_recipe(path: Path, data: Path = DATA) -> Path:
    """Write the recipe for the data in `data` to `path`."""
    path.write_text(RECIPE.format(data=data, recipes=HERE.parent / "recipes"), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there; give --data the directory with the test data.")
    folder = Path(tempfile.mkdtemp(prefix="align-real-"))
    recipe = write_recipe(folder / "real.yaml", options.data.resolve())
    store = options.store or folder / "store"
    align = str(Path(sys.executable).with_name("align"))
    subprocess.run([align, "run", str(recipe), "--store", str(store)], check=True)
    for query in (
        "SELECT source, reason, count(*) AS rows FROM quarantine GROUP BY ALL ORDER BY ALL",
        "SELECT coalesce(reason, 'kept') AS outcome, count(*) AS n FROM instructions GROUP BY ALL ORDER BY n DESC",
        "SELECT stage, name, value FROM metrics WHERE name LIKE '%too_long%' OR name LIKE '%dropped%' ORDER BY ALL",
    ):
        subprocess.run([align, "sql", query, "--store", str(store)], check=True)


if __name__ == "__main__":
    main()
