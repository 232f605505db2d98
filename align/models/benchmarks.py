"""Public benchmarks, as lm-evaluation-harness (EleutherAI; Gao et al., 2021) defines and grades them.

The harness asks the policy's own merged weights in this process; what it makes of every item becomes an answer that is
graded already, so that benchmarks stand beside the recipe's own suites in every table and comparison.
"""

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from align.config import Config
from align.digests import file_digest
from align.errors import StageError
from align.kept import Kept, code_of, key
from align.models.engine import Policy, Sampling
from align.models.shards import of_first, rank
from align.text import digest

EXTRA = "pip install 'align-pipeline[lm-eval]'"
PREFERRED = ("acc_norm", "acc", "exact_match")


class Benchmarks(Config):
    """Tasks of lm-evaluation-harness, which every policy is asked; the extra lm-eval installs it."""

    tasks: tuple[str, ...] = ()
    """Names of tasks, such as arc_easy or kmmlu; each is a suite of that name."""
    include: Path | None = None
    """Directory with task files (YAML) of one's own; its contents count for caching, those of the Hub's data do not."""
    limit: int | None = Field(default=None, ge=1)
    """Ask only the first so many items of each task."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples before each question; null: as the task says."""
    chat_template: bool = True
    """Ask in the model's chat template, as it was trained; false: plain text, as leaderboards of base models do."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences that are asked together."""

    def contradictions(self) -> Iterator[str]:
        for name in self.changed("include", "limit", "num_fewshot", "chat_template") if not self.tasks else ():
            yield f"{name}: has no effect where tasks is empty; leave it out, or name tasks."
        if self.tasks and importlib.util.find_spec("lm_eval") is None:
            yield f"tasks: need lm-evaluation-harness, which is not installed; {EXTRA}."


def benchmarked(config: Benchmarks, policy: Policy, sampling: Sampling) -> list[dict[str, Any]]:
    """ANSWERS rows without their mode, with `score` and `detail`, of a policy, whose own weights `sampling` draws from.

    The score is the task's metric by item: acc_norm, acc or exact_match, else its first that lies in [0, 1] and of
    which more is better; of several filters the first. What came of a task is kept beside the policy's draws: where a
    task is added, that one is asked. Raises StageError where the harness fails, or a task has no such metric.
    """
    return of_first(_known(config, policy, sampling) if rank() == 0 else []) if config.tasks else []


def _known(config: Benchmarks, policy: Policy, sampling: Sampling) -> list[dict[str, Any]]:
    kept = Kept(policy.folder("benchmarks"), {"rows": pa.string()})
    keys = {task: _key(config, task) for task in config.tasks}
    if missing := [task for task in config.tasks if keys[task] not in kept.read()]:
        ask = _harness(config, policy.engine(sampling))
        for task in missing:
            kept.add({keys[task]: (json.dumps(ask(task)),)})
    found: dict[str, list[dict[str, Any]]] = {}  # by suite: a task may be named beside its group
    for task in config.tasks:
        rows = json.loads(kept.read()[keys[task]][0])
        for suite in dict.fromkeys(row["suite"] for row in rows):
            found.setdefault(suite, [row for row in rows if row["suite"] == suite])
    return [row for rows in found.values() for row in rows]


def _key(config: Benchmarks, task: str) -> bytes:
    """What the answers to a task depend on beside the policy, but for the Hub's data."""
    folder = config.include
    own = sorted(p for p in folder.rglob("*") if p.is_file()) if folder else []
    files = [[p.relative_to(folder).as_posix(), file_digest(p)] for p in own if folder]
    asked = config.model_dump(exclude={"tasks", "include", "batch_size"})
    return key(task, json.dumps([asked, files, _version(), code_of(Path(__file__).parent)], sort_keys=True))


def _version() -> str:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("lm_eval")
    return ""


def _harness(config: Benchmarks, engine: Any) -> Callable[[str], list[dict[str, Any]]]:
    """What asks the policy in `engine` (a Sampler) a task, or the tasks of a group."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise StageError(f"evaluate.benchmarks needs lm-evaluation-harness ({error}); {EXTRA}.") from error

    def ask(task: str) -> list[dict[str, Any]]:
        try:
            asked = HFLM(pretrained=engine.model, tokenizer=engine.chat.tokenizer, batch_size=config.batch_size)
            found = simple_evaluate(
                asked, tasks=[task], num_fewshot=config.num_fewshot, limit=config.limit, bootstrap_iters=0,
                log_samples=True, apply_chat_template=config.chat_template,
                task_manager=_manager(config.include),
            )  # fmt: skip
        except Exception as error:  # it raises anything, also where a data set cannot be had
            reason = " ".join(str(error).split())[:300]
            raise StageError(f"lm-evaluation-harness failed on {task}: {type(error).__name__}: {reason}") from error
        more = {name: known or {} for name, known in found["higher_is_better"].items()}
        return [row for name, some in found["samples"].items() for row in _rows(name, some, more.get(name, {}))]

    return ask


@cache
def _manager(include: Path | None) -> Any:
    """What knows all tasks by name: it reads thousands of files."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include)


def _rows(task: str, samples: Sequence[Mapping[str, Any]], higher: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one task; `higher` says of which metrics more is better."""
    first = [s for s in samples if s["filter"] == samples[0]["filter"]]
    metric = metric_of(task, first, higher)
    for s in sorted(first, key=lambda s: int(s["doc_id"])):
        yield {
            "suite": task, "row_id": digest(task, str(s["doc_id"]), str(s["doc_hash"])), "turn": 1, "sample_index": 0,
            "response": _response(s, metric), "score": float(s[metric]),
            "detail": f"{metric} {float(s[metric]):g}; expected: {str(s['target'])[:200]}", "n_tokens": 0,
        }  # fmt: skip


def metric_of(task: str, samples: Sequence[Mapping[str, Any]], higher: Mapping[str, Any]) -> str:
    """The metric of samples that becomes their score. Raises StageError where none lies in [0, 1] for each."""
    names = samples[0]["metrics"]
    for name in (*(n for n in PREFERRED if n in names), *names):
        values = [s.get(name) for s in samples]
        if higher.get(name, True) and all(isinstance(v, int | float) and 0 <= v <= 1 for v in values):
            return str(name)
    raise StageError(
        f"The task {task} has no metric from 0 to 1 by item of which more is better (it has {', '.join(names)}), and "
        "cannot be compared; leave it out of evaluate.benchmarks.tasks."
    )


def _response(sample: Mapping[str, Any], metric: str) -> str:
    """What the model said; of a choice the option that the metric took, the likeliest."""
    given = sample["filtered_resps"]
    if all(isinstance(r, tuple | list) and len(r) == 2 and isinstance(r[0], int | float) for r in given):
        arguments = sample["arguments"]
        texts = [str(a["arg_1"] if isinstance(a, dict) else a[1]).strip()
                 for a in (arguments.values() if isinstance(arguments, dict) else arguments)]  # fmt: skip
        size = [max(1, len(t)) if metric == "acc_norm" else 1 for t in texts]
        return max(zip(given, texts, size, strict=False), key=lambda known: known[0][0] / known[2])[1]
    return str(given[0]) if given else ""
