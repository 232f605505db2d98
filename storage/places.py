"""Which store is meant: a directory, or a URL of a bucket with a directory of this machine before it."""

import hashlib
import os
import re
from pathlib import Path

from storage.store import Store

SCHEMES = ("s3://", "gs://")


def is_url(where: str | Path) -> bool:
    """Whether a store is named by a URL."""
    return str(where).startswith(SCHEMES)


def at(where: str | Path) -> Store:
    """The store that lies there. Opening it creates nothing. Raises InputError for a URL that none can have."""
    if not is_url(where):
        return Store(Path(where))
    from storage.bucket import Bucket
    from storage.shared import SharedStore

    bucket = Bucket(str(where))
    return SharedStore(bucket, cache_of(bucket.url, bucket.endpoint))


def cache_of(url: str, endpoint: str) -> Path:
    """The directory of this machine that stands before a bucket: in $ALIGN_CACHE_DIR, else the user's caches."""
    above = os.environ.get("ALIGN_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "align"
    readable = re.sub(r"[^\w.-]+", "-", url)[:80]
    return Path(above).expanduser() / f"{readable}-{hashlib.sha256(f'{endpoint} {url}'.encode()).hexdigest()[:12]}"
