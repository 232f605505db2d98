"""trl's GRPOTrainer on rollouts of our own engine (Shao et al., 2024; DAPO's loss: Yu et al., 2025)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from align.errors import StageError
from align.models.chat import Chat
from align.models.follow import follow
from align.models.rollouts import Rollout, Rollouts
from align.models.shards import rank, size

if TYPE_CHECKING:
    import torch

PROBES = 16  # rollouts whose log-probabilities are compared between what draws and what is trained
APART = {True: 1e-3, False: 0.1}  # nats per token that they may differ by, in exact arithmetic and in half precision


def trainer_of(model: Any, args: Any, rollouts: Rollouts, chat: Chat, *, steps: int, exact: bool) -> Any:
    """The trainer, whose steps draw from the model as it then is. `exact`: it computes in fp32.

    It logs `kl_start`, the divergence from the policy that training starts from: mean over tokens of the estimator
    r - 1 - log r, r being the ratio of the start's probability to the policy's (Schulman, 2020). Raises StageError
    where what draws is not what is trained, or the reference is not what training starts from.
    """
    from datasets import Dataset
    from trl import GRPOTrainer

    class Trainer(GRPOTrainer):
        """Draws, rewards and chooses whole groups by itself; trl makes advantages and losses of them."""

        start: "dict[str, torch.Tensor]"
        checked = False

        def _prepare_inputs(self, inputs: Any) -> Any:
            if self.state.global_step >= steps and self._buffered_inputs is not None:
                return self._buffered_inputs[0]  # the last batch once more, to look at its loss
            return super()._prepare_inputs(inputs)

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            now = self.accelerator.unwrap_model(self.model)
            follow(rollouts.sampler.model, now)
            groups = rollouts.step(self.state.global_step)
            every = [r for group in groups for r in group]
            share = len(every) // size()
            self.mine = every[rank() * share : (rank() + 1) * share]
            known: list[dict[str, Any]] = [{"prompt": r.row_id, "reward": r.reward} for r in self.mine]
            found = super()._generate_and_score_completions(known)
            self._tell(rollouts, every)
            if not self.checked:
                _check_drawn(self, rollouts, self.mine[:PROBES], exact)
            if self._logs_next():
                with _as_of(now, self.start):
                    found["start_logps"] = self._score(found)
            if not self.checked and self.beta and self.state.global_step == 0:
                _check_reference(found)
            self.checked = True
            return found

        def _tell(self, rollouts: Rollouts, every: Sequence[Rollout]) -> None:
            metrics = self._metrics["train"]
            metrics["groups.tried"].append(float(rollouts.tried))
            metrics["groups.dead"].append(rollouts.dead / rollouts.tried)
            metrics["ungraded"].append(sum(r.reward is None for r in every) / len(every))

        def _logs_next(self) -> bool:
            at = self.state.global_step + 1
            return at == 1 or at % self.args.logging_steps == 0

        def _tokenize_prompts(self, prompts: Any) -> Any:
            return [list(r.ids) for r in self.mine], None, {}

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            return [list(r.tokens) for r in self.mine], None

        def _score(self, batch: Any) -> "torch.Tensor":
            """Log-probabilities per token of the responses, [B, T], under the model as it is, without dropout."""
            import torch

            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
            mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
            with torch.no_grad():
                return self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, batch["completion_ids"].size(1), self.args.per_device_train_batch_size
                )[0]

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            self.last = found[0].detach()
            return found

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            loss = super()._compute_loss(model, inputs)
            if "start_logps" in inputs and model.training:
                mask = inputs["completion_mask"]
                log_r = (inputs["start_logps"] - self.last) * mask
                total = self.accelerator.reduce(((log_r.exp() - 1 - log_r) * mask).sum().detach(), "sum")
                tokens = self.accelerator.reduce(mask.sum(), "sum").clamp(min=1)
                self._metrics["train"]["kl_start"].append(float(total / tokens))
            return loss

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            self._metrics["train"].pop("step_time", None)  # the log tells of the training, not of the machine
            return loss

        def resized(self) -> None:
            """Passes became smaller: a step's rollouts are split into more of them."""
            args.steps_per_generation = args.gradient_accumulation_steps
            self._buffered_inputs, self._step = None, 0

    def reward(prompts: Any, completions: Any, reward: Sequence[float | None], **more: Any) -> list[float | None]:
        return list(reward)

    places = steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * size()
    data = Dataset.from_dict({"prompt": [""] * places})  # what a step trains on it finds itself
    trainer = Trainer(
        model=model, args=args, reward_funcs=[reward], train_dataset=data, processing_class=chat.tokenizer
    )  # fmt: skip
    return trainer


@contextmanager
def _as_of(model: Any, values: "dict[str, torch.Tensor]") -> Iterator[None]:
    """In this block the model's trainable parameters have other values."""
    now = {name: p.data for name, p in model.named_parameters() if name in values}
    for name, p in model.named_parameters():
        if name in values:
            p.data = values[name]
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            if name in now:
                p.data = now[name]


def _check_drawn(trainer: Any, rollouts: Rollouts, some: Sequence[Rollout], exact: bool) -> None:
    """StageError unless what draws gives rollouts the log-probabilities of what is trained: else the advantages would
    be of another policy's responses."""
    import torch

    sampler, temperature = rollouts.sampler.model, trainer.temperature
    apart, tokens = 0.0, 0
    trained = trainer.accelerator.unwrap_model(trainer.model)
    was = trained.training
    trained.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        for r in some:
            ids = torch.tensor([r.ids + r.tokens], device=sampler.device)
            drawn, ours = (
                (m(input_ids=ids, use_cache=False).logits[0, len(r.ids) - 1 : -1].float() / temperature).log_softmax(-1)
                for m in (sampler, trained)
            )
            at = ids[0, len(r.ids) :, None]
            apart += float((drawn.gather(1, at) - ours.gather(1, at)).abs().sum())
            tokens += len(r.tokens)
    trained.train(was)
    if not apart / max(1, tokens) <= APART[exact]:
        raise StageError(
            f"What draws is not what is trained: log-probabilities of its responses differ by {apart / tokens:.3g} "
            "nats a token."
        )


def _check_reference(batch: Any) -> None:
    """StageError unless the reference gives the log-probabilities of the policy that training starts from."""
    mask = batch["completion_mask"]
    worst = float(((batch["ref_per_token_logps"] - batch["start_logps"]) * mask).abs().max())
    if not worst <= 0.05:
        raise StageError(
            f"The reference of grpo is not the policy that it starts from: log-probabilities differ by {worst:.3g}."
        )
