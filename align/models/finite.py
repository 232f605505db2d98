"""Numbers that are none (NaN, infinity) end a stage: a training that diverged is an error, and is never saved."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from align.errors import StageError
from align.models.shards import local


def is_finite(tensor: Any) -> bool:
    """Whether all numbers of a tensor of any type are finite. Takes one pass and no memory of the tensor's size. Of a
    tensor that is split over processes each looks at its part."""
    tensor = local(tensor)
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.dtype.itemsize == 1:  # float8 knows no comparison
        tensor = tensor.float()
    low, high = tensor.aminmax()  # both are NaN where any number is
    return math.isfinite(low) and math.isfinite(high)


def not_finite(tensors: Iterable[tuple[str, Any]]) -> str | None:
    """The name of the first tensor that holds a number that is not finite."""
    return next((name for name, tensor in tensors if not is_finite(tensor)), None)


def watch(trainer: Any, label: str) -> None:
    """Let the trainer stop with a StageError at the first step whose loss or gradient norm is not finite.

    The step is not made. The loss is the sum since the last entry of the log, which one NaN or infinity makes not
    finite; the norm is that before clipping, which hides an infinity.
    """
    import torch

    norm_of = trainer._get_grad_norm

    def checked(*args: Any, **kwargs: Any) -> Any:
        norm = norm_of(*args, **kwargs)
        seen, loss = torch.as_tensor(norm), trainer._tr_loss.detach()
        if trainer.args.fp16:  # the scaler leaves out steps whose gradient overflows, and scales less
            seen = torch.zeros_like(seen)
        if not torch.isfinite(seen + loss.to(seen.device)):  # one wait for the device
            what = "gradient norm" if is_finite(loss) else "loss"
            raise StageError(f"The {what} of {label} is not a finite number {_where(trainer)}")
        return norm

    trainer._get_grad_norm = checked


def check_end(trainer: Any, label: str) -> None:
    """StageError unless the trained weights are finite, and give a finite loss on a batch: the last step counts too."""
    import torch

    model = trainer.model
    weights = ((name, p.detach()) for name, p in model.named_parameters() if p.requires_grad)
    if name := not_finite(weights):
        raise StageError(f"The weight {name} of {label} is not finite {_where(trainer)}")
    training = model.training
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad(), trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(model.eval(), inputs)
    model.train(training)
    if not is_finite(loss):
        raise StageError(f"The loss of {label} is not a finite number {_where(trainer)}")


def _where(trainer: Any) -> str:
    """The rest of the sentence: at which step, and what to do. Before the first step the training is not to blame."""
    done, steps, rate = trainer.state.global_step, trainer.state.max_steps, trainer.args.learning_rate
    if done == 0:
        return (
            f"at step 1 of {steps}, before anything was trained; look for extreme numbers in the base and the adapter "
            "that training starts from, or set base.dtype to float32."
        )
    return (
        f"after {done} of {steps} steps, so training diverged; lower learning_rate (it is {rate:g}) or raise "
        "warmup_steps."
    )


def check_scores(scores: Sequence[float], label: str) -> None:
    """StageError unless all rewards are finite: a NaN is neither above nor below another, and would rank anywhere."""
    wrong = sum(not math.isfinite(s) for s in scores)
    if wrong:
        raise StageError(
            f"The reward model gives {wrong} of {len(scores)} conversations ({label}) no finite score; train it again "
            "with a lower reward.learning_rate."
        )
