"""What a user sees while a stage works: one progress bar, and no chatter from the libraries underneath."""

import os
import sys
import time
from types import TracebackType
from typing import Any, Self


class Progress:
    """A progress bar on a terminal; elsewhere a plain line now and then, so that logs of scheduled runs stay short."""

    def __init__(self, total: int, label: str, every: float = 20.0):
        self.total, self.label, self.every, self.done = total, label, every, 0
        self._bar: Any = None
        self._said = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def advance(self, n: int = 1) -> None:
        """`n` more of `total` are done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
        elif time.monotonic() - self._said > self.every:
            self._said = time.monotonic()
            print(f"{self.label}: {self.done} of {self.total}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def prepare_libraries() -> None:
    """Silence bars, telemetry and advice of the Hugging Face libraries. Call before importing torch or any of them."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that wait for each other spin for milliseconds; with another busy process on the same cores that makes
    # a training step several times slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import logging
    import warnings

    for name in ("bitsandbytes", "peft", "trl", "accelerate", "torch.distributed", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import huggingface_hub.constants
    import transformers

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for module in ("peft", "trl", "bitsandbytes", "transformers", "torch.utils.data"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")
