"""What a policy answers to evaluation items, as rows of ANSWERS: what it writes, turn by turn, or finds likely."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align.errors import StageError
from align.grading.choice import LETTERS, options_of
from align.grading.grade import item_of
from align.grading.suites import Asked, Items, turns_of
from align.models.engine import Policy, Prompt, Sample, Sampling
from align.models.likelihood import likelihoods, of_options

Row = dict[str, Any]
Messages = list[dict[str, Any]]


def written(
    policy: Policy, sampling: Sampling, mode: str, asked: Items, turns: Mapping[str, int], lost: Mapping[str, Any]
) -> Iterator[Row]:
    """Rows of what the policy writes: n responses to each item of `asked` that is not `lost`, in each of its turns.

    A later turn is asked after the policy's own earlier answers, sample by sample.
    """
    rows = [(suite, i, row) for suite, some in asked.items() for i, row in some.items()]
    prompts = [Prompt(i, row["messages"]) for _, i, row in rows if i not in lost]
    drawn = policy.draw(prompts, sampling, label=f"answering ({mode})", too_long=[])
    said = {(s.row_id, s.sample_index): s for s in drawn}
    yield from (_row(suite, i, mode, 1, k, said.get((i, k))) for suite, i, _ in rows for k in range(sampling.n))

    one = sampling.model_copy(update={"n": 1})
    before: dict[tuple[str, int], Messages] = {(i, k): row["messages"] for _, i, row in rows for k in range(sampling.n)}
    for turn in range(2, max(turns.values(), default=1) + 1):
        asks = {i: later[turn - 2] for suite, i, row in rows if len(later := turns_of(row, turns[suite])) >= turn - 1}
        before = {
            (i, k): [
                *messages, {"role": "assistant", "content": said[i, k].text}, {"role": "user", "content": asks[i]},
            ]
            for (i, k), messages in before.items() if i in asks and (i, k) in said
        }  # fmt: skip
        names = {f"{i}/{k}": (i, k) for i, k in before}
        prompts = [Prompt(name, before[at]) for name, at in names.items()]
        drawn = policy.draw(prompts, one, label=f"answering ({mode}, turn {turn})", too_long=[]) if prompts else []
        said = {names[s.row_id]: s for s in drawn}
        yield from (
            _row(suite, i, mode, turn, k, said.get((i, k)))
            for suite, i, _ in rows for k in range(sampling.n) if i in asks
        )  # fmt: skip


def _row(suite: str, row_id: str, mode: str, turn: int, index: int, s: Sample | None) -> Row:
    return {
        "suite": suite, "row_id": row_id, "mode": mode, "turn": turn, "sample_index": index, "response": s and s.text,
        "finish_reason": s and s.finish_reason, "n_tokens": s and s.n_tokens, "reasoning": s and s.reasoning,
    }  # fmt: skip


def chosen(
    policy: Policy, sampling: Sampling, chat: Any, asked: Items, told: Mapping[str, Asked]
) -> tuple[list[Row], list[Row]]:
    """The option that the policy finds likeliest for each multiple-choice item, as rows; and rows of OPTIONS.

    Raises StageError naming an item without choices, or whose reference is none of them.
    """
    rows = [(suite, i, row) for suite, some in asked.items() for i, row in some.items()]
    prompts, texts = [], []
    for suite, i, row in rows:
        item = item_of(row, "")
        listed = options_of(i, item.reference, item.meta).texts
        if len(listed) < 2:
            raise StageError(f"Row {i} has no choices; a suite of kind multiple_choice needs a list of two or more.")
        letters = told[suite].options == "letters"
        prompts.append(Prompt(i, row["messages"] if letters else _alone(row["messages"], item.meta)))
        texts.append(list(LETTERS[: len(listed)]) if letters else list(listed))
    found = of_options(policy, sampling, chat, prompts, texts)
    answers, options = [], []
    for (suite, i, _), known in zip(rows, found, strict=True):
        row = {"suite": suite, "row_id": i, "turn": 1, "sample_index": 0, "response": None}
        if known is not None:
            best, likeliest = max(known, key=lambda o: o.per_byte), max(known, key=lambda o: o.likelihood.logp)
            row |= {"response": best.text, "likeliest": likeliest.text, "logp": best.likelihood.logp,
                    "n_tokens": best.likelihood.n_tokens}  # fmt: skip
            options += [
                {"suite": suite, "row_id": i, "option": at, "text": o.text, "logp": o.likelihood.logp,
                 "logp_per_byte": o.per_byte, "n_tokens": o.likelihood.n_tokens}
                for at, o in enumerate(known)
            ]  # fmt: skip
        answers.append(row)
    return answers, options


def _alone(messages: Messages, meta: Mapping[str, Any]) -> Messages:
    """The conversation with the question alone, where the shape put the options behind it."""
    question = meta.get("question")
    if not isinstance(question, str) or not messages[-1]["content"].startswith(question):
        return messages
    return [*messages[:-1], {**messages[-1], "content": question}]


def expected(policy: Policy, sampling: Sampling, chat: Any, asked: Items, lost: Mapping[str, Any]) -> list[Row]:
    """How likely the policy finds the reference of each item that is not `lost`, as rows.

    Raises StageError naming an item without a reference.
    """
    rows = [(suite, i, row) for suite, some in asked.items() for i, row in some.items()]
    known: dict[str, tuple[Sequence[Any], str]] = {}
    for _, i, row in rows:
        reference = item_of(row, "").reference
        if not (reference or "").strip():
            raise StageError(f"Row {i} has no reference, whose perplexity a suite of kind perplexity measures.")
        if i not in lost and not row.get("calls"):
            known[i] = (row["messages"], str(reference))
    prompts = [Prompt(i, list(messages)) for i, (messages, _) in known.items()]
    found = dict(zip(known, likelihoods(policy, sampling, chat, prompts, [t for _, t in known.values()]), strict=True))
    return [
        {"suite": suite, "row_id": i, "turn": 1, "sample_index": 0, "response": known[i][1] if found.get(i) else None,
         "logp": x and x.logp, "n_tokens": x and x.n_tokens}
        for suite, i, _ in rows for x in [found.get(i)]
    ]  # fmt: skip
