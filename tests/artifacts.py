"""Artifacts of every stage as a run leaves them, made up from a seed: what the report is tested on."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from align import tables
from tasks import evaluate

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\" {{ 7 * 7 }}"
SKILL = {"base": 0.03, "sft_unfiltered": 0.3, "sft": 0.5, "sft_random": 0.5, "sft_rs": 0.53, "dpo": 0.62}
ARMS = ("sft_unfiltered", "sft", "sft_random", "sft_rs", "dpo")


def artifacts(
    folder: Path,
    *,
    graded: bool = True,
    imported: bool = False,
    arms: tuple[str, ...] = ARMS,
    suites: int = 1,
    n: int = 200,
) -> dict[str, Path]:
    """Artifact directories by the names of the report's inputs. Texts hold markup that a page must escape."""
    rng = np.random.default_rng(0)
    names = ("ingest", "filter", "sample", "pairs", "reward", "resample", "select", "evaluate", *arms)
    at = {name: folder / name for name in names}
    for path in at.values():
        path.mkdir(parents=True)
    rows = [_row(i, "raw", "instructions", "sft", f"SELECT {i}" if i % 11 else "") for i in range(2 * n)]
    rows += [
        _row(i, "questions", "prompts", s, None, f"SELECT {i}") for s in ("preference", "rejection") for i in range(n)
    ]
    for k in range(suites):
        source = "questions" if k == 0 else f"suite <b>{k}</b>"
        rows += [_row(i, source, "evaluation", "evaluation", None, f"SELECT {i}") for i in range(n)]
    tables.write(at["ingest"] / "rows.parquet", rows, tables.ROWS)
    bad = [{"source": "raw", "file": "raw.jsonl", "line": i, "reason": "is not JSON", "text": HOSTILE} for i in (3, 9)]
    tables.write(at["ingest"] / "quarantine.parquet", bad, tables.QUARANTINE)
    _metrics(at["ingest"], {"rows": len(rows), "quarantined": 2, "read.raw": 2 * n + 2, "shape.raw": "qa <i>",
                          "quarantined.raw": 2})  # fmt: skip
    _filter(at["filter"], [r for r in rows if r["use"] == "instructions"])
    questions = {split: [r["row_id"] for r in rows if r["split"] == split] for split in ("preference", "rejection")}
    drawn = _samples(at["sample"], questions["preference"], rng)
    fresh = _samples(at["resample"], questions["rejection"], rng)
    _pairs(at["pairs"], drawn, rng, graded, imported)
    _reward(at["reward"], n, rng)
    _select(at["select"], fresh, rng)
    _evaluate(at["evaluate"], rows, ["base", *arms], rng, graded)
    for arm in arms:
        _log(at[arm], rng, dpo=arm == "dpo")
    return at


def _row(
    i: int, source: str, use: str, split: str, response: str | None, reference: str | None = None
) -> dict[str, Any]:
    prompt = f"{source} question {i}: {HOSTILE if i % 3 == 0 else '서울의 주문은 몇 건입니까?'}"
    return {
        "row_id": f"{split[:4]}{source[:5]}{i:05}", "source": source, "use": use, "split": split, "prompt": prompt,
        "messages": [{"role": "user", "content": prompt}], "response": response, "reference": reference, "meta": "{}",
    }  # fmt: skip


def _metrics(folder: Path, metrics: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(json.dumps(metrics, sort_keys=True))


def _filter(out: Path, rows: list[dict[str, Any]]) -> None:
    judged = []
    for i, r in enumerate(rows):
        reason = "empty" if not r["response"] else "near_duplicates" if i % 5 == 0 else None
        why = {"duplicate_of": rows[1]["row_id"], "similarity": 0.91, "note": HOSTILE} if reason else None
        judged.append(r | {"kept": reason is None, "reason": reason, "evidence": why and json.dumps(why)})
    tables.write(out / "instructions.parquet", judged, tables.INSTRUCTIONS)
    kept = [r for r in judged if r["kept"]]
    tables.write(out / "kept.parquet", kept, tables.KEPT)
    tables.write(out / "control.parquet", rows[: len(kept)], tables.KEPT)
    shown = [
        {"which": which, "measure": measure, "bucket": bucket, "low": low, "count": n}
        for which, share in (("before", 1.0), ("after", 0.7), ("random", 0.7))
        for measure, buckets in (
            ("response_chars", [("0", 0.0, 40), ("8", 8.0, 100), ("16", 16.0, 300)]),
            ("response_language", [("en", None, 200), ("ko <i>", None, 100)]),
            ("ifd", [("0.2", 0.2, 50), ("0.4", 0.4, 80), ("0.6", 0.6, 20)]),
        )
        for bucket, low, n in ((b, low, int(n * share)) for b, low, n in buckets)
    ]
    tables.write(out / "distributions.parquet", shown, tables.DISTRIBUTIONS)
    drops = {k: sum(r["reason"] == k for r in judged) for k in ("empty", "near_duplicates")}
    metrics = {f"dropped.{k}": v for k, v in drops.items()}
    _metrics(out, {"read": len(rows), "kept": len(kept), "rules": "near_duplicates, empty, refusal", **metrics})


def _samples(out: Path, prompts: list[str], rng: np.random.Generator) -> list[dict[str, Any]]:
    samples = [
        {"row_id": p, "sample_id": f"{p}-{k}", "sample_index": k, "text": "SELECT 1" + " + 1" * k,
         "finish_reason": "truncated" if rng.random() < 0.05 else "stop", "n_tokens": int(rng.integers(5, 40))}
        for p in prompts for k in range(8)
    ]  # fmt: skip
    tables.write(out / "samples.parquet", samples, tables.SAMPLES)
    _metrics(out, {"prompts": len(prompts), "prompts_too_long": 0, "samples": len(samples)})
    return samples


def _pairs(out: Path, samples: list[dict[str, Any]], rng: np.random.Generator, graded: bool, imported: bool) -> None:
    scores, pairs = [], []
    easy = {s["row_id"]: rng.random() for s in samples}
    for s in samples:
        right = rng.random() < easy[s["row_id"]]
        status = "ungraded" if not graded else "correct" if right else "wrong"
        scores.append({"sample_id": s["sample_id"], "scored_by": "sql", "score": float(right) if graded else None,
                       "status": status, "detail": HOSTILE})  # fmt: skip
    for i, p in enumerate(dict.fromkeys(s["row_id"] for s in samples)):
        pairs.append({
            "pair_id": f"p{i}", "row_id": p, "chosen": "SELECT 1" * (1 + i % 3), "rejected": "SELECT 1 + 1",
            "messages": [], "labelled_by": "imported" if imported else "sql", "held_out": i % 4 == 0,
        })  # fmt: skip
    tables.write(out / "pairs.parquet", pairs, tables.PAIRS)
    tables.write(out / "scores.parquet", [] if imported else scores, tables.SCORES)
    _metrics(out, {"pairs": len(pairs), "prompts.paired": len(pairs), "prompts.all_wrong": 12})


def _reward(out: Path, n: int, rng: np.random.Generator) -> None:
    held = [
        {"pair_id": f"p{i}", "chosen_score": float(rng.normal(0.9)), "rejected_score": float(rng.normal(-0.4)),
         "chosen_tokens": int(rng.integers(5, 30)), "rejected_tokens": int(rng.integers(5, 30))} for i in range(n)
    ]  # fmt: skip
    tables.write(out / "held_out.parquet", held, tables.HELD_OUT)
    _log(out, rng)
    _metrics(out, {"pairs": 3 * n, "pairs.held_out": n, "steps": 60})


def _select(out: Path, samples: list[dict[str, Any]], rng: np.random.Generator) -> None:
    score = {s["sample_id"]: float(rng.normal()) for s in samples}
    tables.write(
        out / "scores.parquet",
        [{"sample_id": i, "scored_by": "reward_model", "score": v, "status": "scored"} for i, v in score.items()],
        tables.SCORES,
    )
    groups: dict[str, list[str]] = {}
    for s in samples:
        groups.setdefault(s["row_id"], []).append(s["sample_id"])
    chosen = [("best", max(g, key=score.__getitem__), p) for p, g in groups.items()]
    chosen += [("random", g[0], p) for p, g in groups.items()]
    tables.write(
        out / "selections.parquet",
        [{"row_id": p, "sample_id": i, "arm": arm} for arm, i, p in chosen],
        tables.SELECTIONS,
    )
    _metrics(out, {"samples": len(samples), "prompts": len(groups), "prompts.kept": len(groups), "share.same": 0.125})


def _evaluate(out: Path, rows: list[dict[str, Any]], models: list[str], rng: np.random.Generator, graded: bool) -> None:
    config = evaluate.EvaluateConfig(primary="sampled", n=4)
    items = [(r["source"], r["row_id"]) for r in rows if r["split"] == "evaluation"]
    ease = {i: rng.normal() for _, i in items}
    answers = []
    for suite, item in items:
        for model in models:
            for mode, k in [("greedy", 0), *(("sampled", k) for k in range(4))]:
                logit = math.log(SKILL[model] / (1 - SKILL[model])) + 1.5 * ease[item] - (mode == "sampled") * 0.2
                score = float(rng.random() < 1 / (1 + math.exp(-logit))) if graded else None
                status = "ungraded" if score is None else "correct" if score else "wrong"
                answers.append({"suite": suite, "row_id": item, "model": model, "mode": mode, "sample_index": k,
                                "response": f"SELECT {HOSTILE if rng.random() < 0.2 else 1}", "score": score,
                                "status": status, "detail": "1 row instead of 2 <b>",
                                "finish_reason": "truncated" if rng.random() < 0.03 else "stop"})  # fmt: skip
    tables.write(out / "evaluations.parquet", answers, tables.EVALUATIONS)
    suites = sorted({suite for suite, _ in items})
    found = [c for suite in suites for c in evaluate._compare(config, suite, models, answers)]
    tables.write(out / "comparisons.parquet", found, tables.COMPARISONS)
    _metrics(out, {"primary": config.primary, "models": len(models), "responses": len(answers)})


def _log(out: Path, rng: np.random.Generator, dpo: bool = False) -> None:
    log = []
    for step in range(1, 61):
        values = {"loss": 0.3 + 2 * math.exp(-step / 15) + rng.normal() * 0.05, "learning_rate": 1e-4}
        if dpo:
            values |= {"logps/chosen": -20 - step / 20 + rng.normal(), "logps/rejected": -22 - step / 6 + rng.normal(),
                       "rewards/chosen": -step / 200, "rewards/rejected": -step / 60, "rewards/margins": step / 90,
                       "rewards/accuracies": min(1.0, 0.5 + step / 120)}  # fmt: skip
        log += [{"step": step, "name": k, "value": v} for k, v in sorted(values.items())]
    tables.write(out / "training_log.parquet", log, tables.TRAINING_LOG)
    shift = {"logps.chosen_shift.held_out": -1.25, "logps.rejected_shift.held_out": -6.5} if dpo else {}
    _metrics(out, {"steps": 60, "rows": 512, "loss.first": 2.3, "loss.final": 0.34, **shift})


def regraded(folder: Path, inputs: dict[str, Path], change: Any) -> dict[str, Path]:
    """The inputs with an evaluation in which `change(answer)` says what differs in each answer."""
    answers = [a | (change(a) or {}) for a in tables.read(inputs["evaluate"] / "evaluations.parquet")]
    graded = folder / "graded"
    graded.mkdir()
    (graded / "metrics.json").write_text((inputs["evaluate"] / "metrics.json").read_text())
    tables.write(graded / "evaluations.parquet", answers, tables.EVALUATIONS)
    compared = evaluate._compare(evaluate.EvaluateConfig(primary="sampled"), "questions", ["base", *ARMS], answers)
    tables.write(graded / "comparisons.parquet", compared, tables.COMPARISONS)
    return {**inputs, "evaluate": graded}
