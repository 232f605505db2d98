"""What is wrong with a chain of several rounds: what would decide nothing, or decide by what was trained on."""

from collections.abc import Iterator

from flows.recipe import Recipe


def rounds(recipe: Recipe) -> Iterator[str]:
    """Mistakes of chain.rounds and of the gate between them."""
    chain, split = recipe.chain, recipe.sample.split
    if chain.seeds > 1 and chain.rounds > 1 and chain.grpo == "none":
        yield (
            "chain.seeds: which policy several rounds end with is known when they end, and seeds are of one that is "
            "named; set it or chain.rounds to 1."
        )
    if chain.rounds == 1:
        for name in chain.changed("reward_each_round", "gate"):
            yield f"chain.{name}: has no effect where chain.rounds is 1; leave it out, or raise that."
        return
    if chain.gate.grader.kind == "none" and recipe.pairs.grader.kind == "none":
        yield "chain.gate.grader: is none, and so is pairs.grader: nothing would say whether a round helped; name one."
    if split not in ("preference", "rejection"):
        what = "evaluation items must not decide" if split == "evaluation" else "sft is trained on what would decide"
        yield f"sample.split: is {split}, but {what} whether a round helped; set it to preference."
    if recipe.resample.split == split:
        yield (
            f"resample.split: is {split} as sample.split is, so that sft_rs would be trained on prompts that decide "
            "whether a round helped; set it to another."
        )
    asked = {"pairs": recipe.pairs} | ({"pairs_dpo": recipe.pairs_dpo} if chain.dpo_pairs != "pairs" else {})
    for name, pairs in asked.items():
        if not pairs.held_out:
            yield f"{name}.held_out: is 0, but prompts that are held out decide whether a round helped; raise it."
