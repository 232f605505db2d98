"""How far a policy has gone from its base: KL(policy || base) in nats a token, from answers that the policy drew.

The estimate of an answer is the plain mean log-ratio of its tokens, log p_policy - log p_base (k1 of Schulman, 2020,
"Approximating KL Divergence"): it needs no more than the answer's summed log-probability under both, is unbiased for
what is drawn at temperature 1, and may be below 0 where it is near 0. Answers that were drawn at a lower temperature
weigh likelier tokens more. Of a model that reasons it is the answer, without what stood before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.models.base import BaseConfig, load_chat
from align.models.engine import Policy, Prompt, Sampling
from align.models.likelihood import Likelihood, likelihoods
from align.models.tools import Message

Row = dict[str, Any]


def divergences(
    base: BaseConfig,
    policies: Mapping[str, Path],
    asked: Mapping[str, Sequence[Message]],
    answers: Sequence[Row],
    cache: Path | None = None,
) -> Iterator[Row]:
    """DIVERGENCES rows of `answers` (EVALUATIONS, of first turns that ended) to the conversations `asked`.

    `policies` are the adapters by model; the answers of others are left out, and so is what does not fit the context.
    One model at a time is held, and as many answers as fit beside it. What is known is kept in the directory `cache`.
    """
    by = {model: [a for a in answers if a["model"] == model] for model in policies}
    said = [a for some in by.values() for a in some]
    own = [x for model, some in by.items() for x in _likely(base, policies[model], cache, asked, some)]
    for a, policy, plain in zip(said, own, _likely(base, None, cache, asked, said), strict=True):
        if policy and plain:
            at = {name: a[name] for name in ("suite", "row_id", "model", "mode", "sample_index")}
            yield at | {"logp": policy.logp, "logp_base": plain.logp, "n_tokens": policy.n_tokens}


def _likely(
    base: BaseConfig, adapter: Path | None, cache: Path | None, asked: Mapping[str, Sequence[Message]],
    answers: Sequence[Row],
) -> list[Likelihood | None]:  # fmt: skip
    prompts = [Prompt(a["row_id"], list(asked[a["row_id"]])) for a in answers]
    with Policy(base, adapter, cache) as policy:
        return likelihoods(policy, Sampling(n=1), load_chat(base), prompts, [a["response"] for a in answers])
