"""A training in two processes: the loss curve of one, the same adapter format, and one error where one rank fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from grouped import Call, doing
from safetensors.torch import load_file
from served import ALIGN, align, alive, next_line, own_environment
from test_resume import train
from trl.trainer.utils import add_fused_lm_head

from align import tables
from align.errors import InputError, StageError
from align.models.arguments import share
from align.models.base import BaseConfig, load_chat
from align.models.engine import Policy, Prompt, Sampling
from align.models.logps import logps
from align.models.pairs import encode
from align.models.reward_model import load_reward, score
from align.models.trained import unmerged
from flows.ranks import spread
from tasks.reference import ReferenceConfig

STAGES = ["sft", "reward", "dpo"]
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0}  # each process draws its own


def losses(out: Path) -> list[float]:
    return [e["value"] for e in tables.read(out / "training_log.parquet") if e["name"] == "loss"]


TRAININGS: list[tuple[str, dict[str, Any], float]] = [
    *((label, {}, 2e-3) for label in STAGES),
    ("grpo", {"max_steps": 3}, 2e-3),
    (
        "reward",
        {"rows": 39},
        0.05,
    ),  # one process has a row more than the other in the last step, which then weighs less
]


def trainings(config: Call, out: Path, base: BaseConfig, adapter: Path) -> Any:
    """The steps of each training, whose artifact is the folder out in one named by its number."""
    found = [
        train(label, out / str(i) / "out", base, adapter, None, **NO_DROPOUT, **settings)
        for i, (label, settings, _) in enumerate(TRAININGS)
    ]
    return {str(i): metrics["steps"] for i, metrics in enumerate(found)}


@pytest.fixture(scope="module")
def both(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """All trainings in two processes."""
    out = tmp_path_factory.mktemp("both") / "out"
    out.mkdir()
    return out, spread(trainings, Call(), out, {"base": base, "adapter": adapter}, 2)


@pytest.mark.parametrize("number", range(len(TRAININGS)), ids=["sft", "reward", "dpo", "grpo", "reward-odd"])
def test_two_processes_follow_the_curve_of_one(
    number: int, base: BaseConfig, adapter: Path, both: tuple[Path, Any], tmp_path: Path
) -> None:
    label, settings, apart = TRAININGS[number]
    one, two = tmp_path / "one" / "out", both[0] / str(number) / "out"
    alone = train(label, one, base, adapter, None, **NO_DROPOUT, **settings)
    worst = max(abs(a - b) / max(abs(a), 0.01) for a, b in zip(losses(one), losses(two), strict=True))
    print(f"{label}: losses differ by {worst:.1e} at most, {losses(one)[0]:.4f} to {losses(one)[-1]:.4f}")
    assert worst < apart and both[1][str(number)] == alone["steps"]
    shapes = [
        {name: tuple(t.shape) for name, t in load_file(next(out.rglob("adapter_model.safetensors"))).items()}
        for out in (one, two)
    ]
    assert shapes[0] == shapes[1]
    assert sorted(p.name for p in one.rglob("*")) == sorted(p.name for p in two.rglob("*"))


def test_rank_0_answers(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert spread(doing, Call(), tmp_path / "out", {}, 2) == {"world": 2, "rank": 0}


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [("fail", InputError, "row 7 is wrong"), ("exit", StageError, "Process 1 of the stage ended without a word")],
)
def test_one_that_fails_ends_all_with_its_own_error(what: str, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    begun = time.monotonic()
    with pytest.raises(error, match=message):
        spread(doing, Call(what=what), tmp_path / "out", {}, 2)
    print(f"{what}: {time.monotonic() - begun:.1f} s")
    assert not any(alive(int(p.read_text())) for p in tmp_path.glob("*.pid"))


def test_a_step_has_the_same_rows_for_any_number_of_processes() -> None:
    assert [share(16, 1, n) for n in (1, 2, 4, 16)] == [(16, 1), (8, 1), (4, 1), (1, 1)]
    assert [share(4, 8, n) for n in (2, 8, 16)] == [(4, 4), (4, 1), (2, 1)]
    assert share(8, 6, 4) == (4, 3)
    with pytest.raises(InputError, match="3 processes cannot share the 16 rows"):
        share(16, 1, 3)


def inferring(config: Call, out: Path, base: BaseConfig, adapter: Path, reward: Path, cache: Path) -> dict[str, Any]:
    """Writes draws, log-probabilities and rewards, each in the order in which the rows were given."""
    chat = load_chat(base)
    prompts = [Prompt(f"r{i}", [{"role": "user", "content": f"What is {i}{' please' * (i % 5)}?"}]) for i in range(21)]
    sampling = Sampling(n=3, max_new_tokens=6, seed=3)
    drawn = Policy(base, adapter, cache).draw(prompts, sampling, label="test", too_long=[])
    every = tables.read(tiny.pairs(out / "pairs.parquet", 21))
    pairs, _ = encode(chat, every, ReferenceConfig(max_length=128), out)
    policy = unmerged(base, adapter)
    add_fused_lm_head(policy.get_base_model())
    model, kind = load_reward(base, reward)
    found = {
        "texts": [(s.row_id, s.sample_index, s.text) for s in drawn],
        "logps": logps(policy, pairs, chat.pad_id, batch_size=4).tolist(),
        "scores": score(model, kind, chat, [p.chosen for p in pairs], batch_size=4),
    }
    (out / "found.json").write_text(json.dumps(found))
    return {}


def test_two_processes_share_the_rows_of_what_is_drawn_and_scored(
    base: BaseConfig, adapter: Path, tmp_path: Path
) -> None:
    train("reward", tmp_path / "reward" / "out", base, adapter, None)
    outs = {name: tmp_path / name / "out" for name in ("one", "two", "again")}
    for out in outs.values():
        out.mkdir(parents=True)
    more: dict[str, Any] = {"base": base, "adapter": adapter, "reward": tmp_path / "reward" / "out"}
    caches = [tmp_path / name / "cache" for name in ("one", "two")]
    inferring(Call(), outs["one"], **more, cache=caches[0])
    spread(inferring, Call(), outs["two"], more | {"cache": caches[1]}, 2)
    assert [len(list(cache.rglob("*.parquet"))) for cache in caches] == [1, 2], "each process keeps its share"
    inferring(Call(), outs["again"], **more, cache=caches[1])
    assert len(list(caches[1].rglob("*.parquet"))) == 2, "nothing was drawn again"

    one, two, again = (json.loads((out / "found.json").read_text()) for out in outs.values())
    assert one["texts"] == two["texts"] == again["texts"] and len(one["texts"]) == 63
    for numbers in ("logps", "scores"):
        assert torch.allclose(torch.tensor(one[numbers]), torch.tensor(two[numbers]), atol=1e-3)


NODE = """
import os, sys
from pathlib import Path
from grouped import Call, doing
from flows.ranks import spread
print(spread(doing, Call(what=sys.argv[2]), Path(sys.argv[1]), {}, 1))
"""


def test_two_nodes(tmp_path: Path) -> None:
    """Two machines of one process each, here on one: the second takes part by `align join` in one call after another."""
    out = tmp_path / "store" / "tmp" / "out"
    out.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    second = subprocess.Popen(
        [*ALIGN, "join", "--store", str(tmp_path / "store")], stdout=subprocess.PIPE, text=True,
        env=own_environment(**common, **path, PET_NODE_RANK="1"),
    )  # fmt: skip
    try:
        assert next_line(second).startswith("node 1 of 2 waits")
        for what, said in (("", "{'world': 2, 'rank': 0}"), ("fail", "InputError: row 7 is wrong")):
            first = subprocess.run(
                [sys.executable, "-c", NODE, str(out), what], capture_output=True, text=True, timeout=120,
                env=own_environment(**common, **path, PET_NODE_RANK="0"),
            )  # fmt: skip
            assert said in (first.stderr if what else first.stdout), first.stderr
            assert [next_line(second).split()[-1] for _ in range(2)] == ["begins", "ended"]
            assert not any(alive(int(p.read_text())) for p in out.parent.glob("*.pid"))
    finally:
        second.terminate()
        assert second.wait(30) == 128 + signal.SIGTERM
    assert not list(out.parent.glob("ranks-*"))


def test_joining_without_a_second_node_is_one_sentence(tmp_path: Path) -> None:
    done = align("join", "--store", str(tmp_path))
    assert done.returncode == 2 and "PET_NODE_RANK" in done.stderr and len(done.stderr.splitlines()) == 1
