"""Where the stages of a recipe that load a model are computed: settings that change nothing of what comes of them."""

from typing import Annotated, Literal

from pydantic import Field

from align.config import Config
from align.models.shards import Strategy


class Compute(Config):
    """Where a stage that loads a model is computed, and how it is spread over that machine."""

    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Processes that share a stage, of a training its steps, of sampling and scoring the rows: auto is one for each
    GPU, and one where there is none."""
    strategy: Strategy = "ddp"
    """How they share a training: ddp, each with the whole model and its part of every step's rows; fsdp, each also with
    its part of the base's weights only (FSDP2), which base.quantization nf4 does not allow."""
    offload: bool = False
    """Keep the parts of fsdp in the CPU's memory while they are not computed with: less of the GPU's, and slower."""
    pool: str = ""
    """The work pool whose workers compute it: align-gpu, where a Prefect server and its deployments are up. "" is
    $ALIGN_GPU_POOL, and without that the machine that runs the pipeline (docs/cluster.md)."""

    def of(self, gpus: int) -> int:
        """The number of processes on a machine with so many GPUs."""
        return max(1, gpus) if self.processes == "auto" else self.processes
