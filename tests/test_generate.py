"""The sampler: the same greedy text as transformers, and draws that depend on (seed, prompt, index, step) alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from align.errors import InputError, StageError
from align.models.base import BaseConfig
from align.models.draws import choose, fork, key, uniform
from align.models.engine import Policy, Prompt, Sample, Sampling
from align.models.generate import Sampler


def drawn_by(sampler: Sampler, prompts: list[Prompt], too_long: list[str] | None = None, **settings) -> list[Sample]:
    return sampler.draw(prompts, Sampling(**{"n": 1, "temperature": 1.0, **settings}), too_long=too_long)


PROMPTS = [
    Prompt(f"p{i}", [{"role": "user", "content": "How many " + "moons " * (i % 5) + f"{i}?"}]) for i in range(24)
]


@pytest.fixture(scope="module")
def sampler(base: BaseConfig, adapter: Path) -> Sampler:
    return Sampler(base, adapter)


def texts(samples: list[Sample]) -> dict[tuple[str, int], str]:
    return {(s.row_id, s.sample_index): s.text for s in samples}


def test_greedy_is_what_transformers_generates(sampler: Sampler) -> None:
    greedy_equals_transformers(sampler)


def test_a_sliding_window_has_its_own_cache(tmp_path: Path) -> None:
    sampler = Sampler(tiny.tiny_base(tmp_path, window=12))
    greedy_equals_transformers(sampler)
    few, many = (texts(drawn_by(sampler, PROMPTS, n=n, temperature=0.8, max_new_tokens=12)) for n in (2, 4))
    assert few == {k: many[k] for k in few}


def greedy_equals_transformers(sampler: Sampler) -> None:
    drawn = drawn_by(sampler, PROMPTS, temperature=0, max_new_tokens=24)
    assert [s.row_id for s in drawn] == [p.row_id for p in PROMPTS]
    for prompt, sample in zip(PROMPTS, drawn, strict=True):
        ids = torch.tensor(sampler.chat.prompts([prompt.messages]))
        out = sampler.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=sampler.stop,
            pad_token_id=sampler.chat.pad_id,
        )[0, ids.shape[1] :]
        assert sampler.chat.tokenizer.decode(out, skip_special_tokens=True) == sample.text
        assert sample.n_tokens == len(out)
        assert (sample.finish_reason == "stop") == (int(out[-1]) in sampler.stop)


def test_more_samples_keep_the_earlier_ones(sampler: Sampler) -> None:
    eight = texts(drawn_by(sampler, PROMPTS, n=8, temperature=0.8, max_new_tokens=16))
    sixteen = texts(drawn_by(sampler, PROMPTS, n=16, temperature=0.8, max_new_tokens=16))
    assert len(sixteen) == 16 * len(PROMPTS) and eight == {k: sixteen[k] for k in eight}
    assert len({sixteen["p0", i] for i in range(16)}) > 4


@pytest.mark.parametrize("options", [{"top_p": 1.0}, {"top_p": 0.8}])
def test_neither_batches_nor_shards_change_the_draws(sampler: Sampler, options: dict[str, Any]) -> None:
    def draw(prompts: list[Prompt], batch_size: int) -> dict[tuple[str, int], str]:
        return texts(
            drawn_by(sampler, prompts, n=4, temperature=0.8, max_new_tokens=16, batch_size=batch_size, **options)
        )

    whole = draw(PROMPTS, 256)
    assert whole == draw(PROMPTS, 12) == draw(PROMPTS, 1)
    assert whole == draw(PROMPTS[::-1], 64) == {**draw(PROMPTS[:7], 256), **draw(PROMPTS[7:], 256)}


def test_the_seed_and_the_prompt_change_the_draws(sampler: Sampler) -> None:
    one = [Prompt("p0", PROMPTS[0].messages), Prompt("other", PROMPTS[0].messages)]
    a, b = (texts(drawn_by(sampler, one, n=6, temperature=1.5, max_new_tokens=16, seed=s)) for s in (0, 1))
    assert a != b
    assert [a["p0", i] for i in range(6)] != [a["other", i] for i in range(6)]


def test_sample_ids_are_unique_and_repeatable(sampler: Sampler) -> None:
    a, b = (drawn_by(sampler, PROMPTS, n=4, temperature=1.0, max_new_tokens=8) for _ in range(2))
    assert a == b and len({s.sample_id for s in a}) == len(a)


def test_the_token_limit_and_the_end_of_turn(sampler: Sampler) -> None:
    for s in drawn_by(sampler, PROMPTS, n=4, temperature=0.7, max_new_tokens=6):
        assert 1 <= s.n_tokens <= 6
        assert s.finish_reason == "stop" or s.n_tokens == 6
        assert "<|" not in s.text


def test_the_context_ends_a_response(sampler: Sampler) -> None:
    room = sampler.context - len(sampler.chat.prompts([PROMPTS[0].messages])[0])
    long = Prompt("long", [{"role": "user", "content": PROMPTS[0].messages[0]["content"] + " x" * ((room - 6) // 2)}])
    (sample,) = drawn_by(sampler, [long, PROMPTS[0]], temperature=0, max_new_tokens=500)[:1]
    assert sample.n_tokens <= 8


def test_prompts_that_fill_the_context_are_named(sampler: Sampler) -> None:
    huge = Prompt("huge", [{"role": "user", "content": "moons " * 400}])
    with pytest.raises(InputError, match="such as huge"):
        drawn_by(sampler, [huge], max_new_tokens=4)
    skipped: list[str] = []
    drawn = drawn_by(sampler, [*PROMPTS, huge], max_new_tokens=4, too_long=skipped)
    assert skipped == ["huge"] and {s.row_id for s in drawn} == {p.row_id for p in PROMPTS}


def share(probs: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """How often each token is drawn at evenly spaced random numbers."""
    u = np.linspace(0, 1, 10_000, endpoint=False, dtype=np.float32)
    drawn = choose(probs.log()[None], np.zeros(len(u), dtype=np.int64), u, temperature, top_p)
    return torch.from_numpy(np.bincount(drawn, minlength=len(probs)) / len(u)).float()


def test_an_inverse_cdf_draws_the_distribution() -> None:
    probs = torch.tensor([0.5, 0.2, 0.2, 0.1])
    assert torch.allclose(share(probs, 1.0, 1.0), probs, atol=1e-3)
    assert torch.allclose(share(probs, 0.5, 1.0), probs**2 / (probs**2).sum(), atol=1e-3)
    cut = share(probs, 1.0, 0.65)
    assert cut[0] == pytest.approx(5 / 7, abs=1e-3) and cut[3] == 0 and float(cut[1:3].max()) > 0.28
    assert share(probs, 1.0, 0.4).tolist() == share(probs, 0.0, 1.0).tolist() == [1, 0, 0, 0]


def test_a_wide_nucleus_is_exact() -> None:
    assert int((share(torch.full((1000,), 1e-3), 1.0, 0.9) > 0).sum()) == 900
    assert int((share(torch.full((1000,), 1e-3), 1.0, 1.0) > 0).sum()) == 1000


def test_a_batch_forks_where_samples_differ() -> None:
    parents, tokens, rows = fork(np.array([0, 0, 0, 1, 3, 3]), np.array([7, 9, 7, 7, 5, 5]))
    assert len(parents) == 4  # (0, 7), (0, 9), (1, 7), (3, 5); nobody continues row 2
    assert list(zip(parents[rows], tokens[rows], strict=True)) == [(0, 7), (0, 9), (0, 7), (1, 7), (3, 5), (3, 5)]
    assert [parents[i] for i in (0, 1, 3)] == [0, 1, 3]  # rows that continue stay where they are
    parents, tokens, rows = fork(np.array([5, 5]), np.array([1, 1]))
    assert parents.tolist() == [5] and tokens.tolist() == [1] and rows.tolist() == [0, 0]


def test_random_numbers_are_uniform_and_a_function_of_key_and_step() -> None:
    keys = np.array([key(0, f"p{i}", j) for i in range(100) for j in range(10)], dtype=np.uint64)
    table = np.stack([uniform(keys, step) for step in range(50)])
    assert table.min() >= 0 and table.max() < 1
    assert abs(table.mean() - 0.5) < 0.005 and abs(table.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]) < 0.02
    assert (uniform(keys[::-1], 7) == table[7][::-1]).all()


def test_the_sample_stage(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    from align import tables
    from tasks.sample import SampleConfig, sample

    rows = [tiny.row(i, split="preference" if i % 2 else "sft") for i in range(20)]
    rows.append(tiny.row(1, row_id="again", split="preference"))  # the same prompt once more
    rows.append(tiny.row(90, row_id="pair", split="preference", use="preferences"))
    rows.append(tiny.row(91, row_id="huge", split="preference", messages=[{"role": "user", "content": "moons " * 400}]))
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        metrics = sample(
            SampleConfig(n=3, max_new_tokens=12),
            tmp_path / name,
            base=base,
            rows=tmp_path / "rows.parquet",
            adapter=adapter,
        )
    assert metrics["prompts"] == 11 and metrics["samples"] == 30 and metrics["prompts_too_long"] == 1
    assert (tmp_path / "a/samples.parquet").read_bytes() == (tmp_path / "b/samples.parquet").read_bytes()
    table = tables.read(tmp_path / "a/samples.parquet")
    assert {s["row_id"] for s in table} == {f"r{i}" for i in range(1, 20, 2)}
    assert metrics["share.truncated"] == sum(s["finish_reason"] == "truncated" for s in table) / 30
    assert tables.read(tmp_path / "a/dropped.parquet")[0]["row_id"] == "huge"
    with pytest.raises(StageError, match="0 prompts in the split evaluation"):
        sample(SampleConfig(split="evaluation"), tmp_path / "a", base=base, rows=tmp_path / "rows.parquet")


def test_the_log_probability_of_a_greedy_answer_is_the_highest(base: BaseConfig) -> None:
    sampler = Sampler(base)
    greedy = [s.text for s in drawn_by(sampler, PROMPTS, temperature=0, max_new_tokens=6)]
    found = sampler.log_probabilities(PROMPTS, greedy)
    assert found == pytest.approx(sampler.log_probabilities(PROMPTS, greedy, batch_size=1), abs=1e-3)
    assert all(value < 0 for value in found)


def test_only_what_is_not_kept_is_drawn(base: BaseConfig, tmp_path: Path) -> None:
    asked: list[tuple[int, int, int]] = []

    class Watched(Sampler):
        def draw(self, prompts, sampling, *, first=0, **options):
            asked.append((len(prompts), first, sampling.n))
            return super().draw(prompts, sampling, first=first, **options)

    def draw(prompts: list[Prompt], **settings) -> list[Sample]:
        policy = Policy(base, None, tmp_path, lambda _, base, adapter: Watched(base, adapter))
        return policy.draw(prompts, Sampling(**{"max_new_tokens": 8, **settings}), label="", too_long=left)

    left: list[str] = []
    huge = Prompt("huge", [{"role": "user", "content": "moons " * 400}])
    four = draw([*PROMPTS[:8], huge], n=4)
    assert draw([*PROMPTS[:8], huge], n=4) == four and left == ["huge", "huge"]
    eight = draw(PROMPTS[:10], n=8)
    assert asked == [(9, 0, 4), (2, 0, 8), (8, 4, 8)]
    assert [s for s in eight if s.sample_index < 4 and s.row_id in {p.row_id for p in PROMPTS[:8]}] == four
    assert eight == Sampler(base).draw(PROMPTS[:10], Sampling(n=8, max_new_tokens=8))
    draw(PROMPTS[:8], n=4, seed=1)
    draw(PROMPTS[:8], n=4, temperature=0.5)
    assert len(asked) == 5
    for file in (tmp_path / "draws").rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-3])
    assert draw(PROMPTS[:10], n=8) == eight and len(asked) == 6


def test_samples_carry_their_log_probability(sampler: Sampler) -> None:
    """Whatever is drawn together, and whatever the temperature: that of the tokens, under the policy as it is."""
    ids = sampler.chat.prompts([p.messages for p in PROMPTS[:8]])
    for settings in ({"temperature": 0.7, "n": 3, "top_p": 0.9}, {"temperature": 0.0, "n": 1}):
        asked = Sampling(max_new_tokens=24, **settings)
        drawn = [d for ended in sampler.tokens(PROMPTS[:8], ids, range(8), asked) for d in ended]
        told = {(s.row_id, s.sample_index): s.logp for s in sampler.draw(PROMPTS[:8], asked)}
        assert len(drawn) == len(told) == 8 * asked.n
        for d in drawn:
            whole = torch.tensor([[*ids[d.prompt], *d.tokens]])
            with torch.no_grad():
                logps = sampler.model(whole).logits[0, len(ids[d.prompt]) - 1 : -1].log_softmax(-1)
            known = float(logps.gather(1, torch.tensor(d.tokens)[:, None]).sum())
            assert d.logp == told[f"p{d.prompt}", d.index] == pytest.approx(known, abs=1e-3)


def test_log_probabilities_are_kept_with_draws(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    settings = Sampling(n=2, max_new_tokens=8)
    first, again = (Policy(base, adapter, tmp_path).draw(PROMPTS[:4], settings, label="x", too_long=[]) for _ in "ab")
    assert [s.logp for s in again] == pytest.approx([s.logp for s in first]) and first[0].logp is not None
