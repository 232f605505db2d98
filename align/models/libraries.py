"""The libraries underneath, made quiet: no bars, telemetry or advice of theirs."""

import logging
import os
import warnings


def prepare_libraries() -> None:
    """Silence bars, telemetry and advice of the Hugging Face libraries. Call before importing torch or any of them."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that wait for each other spin for milliseconds; with another busy process on the same cores that makes
    # a training step several times slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
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
