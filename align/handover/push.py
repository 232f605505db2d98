"""An export on a Hub: a repository of ORG/NAME, private unless it is asked to be public."""

import os
import re
from pathlib import Path

from align.errors import InputError, StageError
from align.models.files import one_line
from align.redact import redact

_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def token(repository: str) -> str:
    """The token to push with. Raises InputError for a name that is none, and where the environment has no token."""
    if not _NAME.fullmatch(repository):
        raise InputError("--push takes ORG/NAME, of letters, digits, _, - and points.")
    for variable in TOKENS:
        if value := os.environ.get(variable, "").strip():
            return value
    raise InputError(f"--push {repository} needs a token with write access in the environment variable {TOKENS[0]}.")


def push(folder: Path, repository: str, secret: str, message: str, *, public: bool = False) -> str:
    """Upload what is in `folder` as one commit and return its address. The hub is $HF_ENDPOINT, else the public one.

    Raises StageError with what the hub said. What is in the repository already stays, unless it has the same name.
    """
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=secret)
    try:
        made = hub.create_repo(repository, private=not public, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # of the network, of the hub, or of what it says
        raise StageError(
            f"{repository} could not be pushed ({redact(one_line(error))}); {folder} is whole, and the same can be "
            f"uploaded with `hf upload {repository} DIR`."
        ) from error
    return str(made)
