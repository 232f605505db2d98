"""Where trackers (TensorBoard, trackio, W&B, MLflow) put what a training logs, and under which names.

The pipeline tells a stage's process by the variables here which run and stage it is. Each tracker then gets its own
variables, where the user has not set them: logs lie in one folder, a run of the pipeline is a group, a stage a run in
it. Nothing leaves the machine unless the user set that tracker up to send it.
"""

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]

FOLDER, RUN, STAGE = "ALIGN_TRACKING", "ALIGN_TRACKING_RUN", "ALIGN_TRACKING_STAGE"
PROJECT = "align"
EXTRA = ("tensorboard", "trackio")  # what the extra `tracking` installs


def place(folder: Path, run: str, stage: str) -> dict[str, str]:
    """The environment that tells a stage's process where and as what to track."""
    return {FOLDER: str(folder.absolute()), RUN: run, STAGE: stage}


def missing(trackers: Sequence[str]) -> Iterator[str]:
    """A sentence for each tracker that is not installed."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            what = "'align-pipeline[tracking]'" if name in EXTRA else name
            yield f"report_to: {name} is not installed; pip install {what}, or leave it out."


def arguments(trackers: Sequence[str]) -> dict[str, Any]:
    """The arguments of transformers that concern tracking; sets the trackers' variables."""
    if not trackers:
        return {"report_to": []}
    run, stage = os.environ.get(RUN, "run"), os.environ.get(STAGE, "training")
    folder = Path(os.environ.get(FOLDER, "tracking")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in _variables(folder, run, stage, os.environ).items():
        os.environ.setdefault(name, value)
    return {"report_to": list(trackers), "run_name": f"{run}/{stage}", "project": PROJECT}


def _variables(folder: Path, run: str, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    return {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard" / run / stage),
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": PROJECT,
        "WANDB_RUN_GROUP": run,
        "WANDB_MODE": "online" if given.get("WANDB_API_KEY") else "offline",
        "MLFLOW_TRACKING_URI": (folder / "mlflow").as_uri(),
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
    }
