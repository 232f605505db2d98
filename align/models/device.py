"""What a stage computes on, and the type that is fastest there."""

from typing import Literal


def device() -> str:
    """cuda where there is a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def fastest_dtype(capability: tuple[int, int] | None) -> Literal["float32", "bfloat16", "float16"]:
    """The type that a GPU of this compute capability is fastest with; None: a CPU.

    Tensor cores know bfloat16 from Ampere (8.0) on, float16 from Volta (7.0) on (CUDA C++ Programming Guide, table of
    compute capabilities); what is older emulates the one and has no use of the other.
    """
    if capability is None or capability < (7, 0):
        return "float32"
    return "bfloat16" if capability >= (8, 0) else "float16"
