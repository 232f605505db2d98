"""A bucket: the few things that a shared store needs of S3, GCS and what speaks like them.

Put if absent, read, list, and put if unchanged, on which leases stand (storage/leases.py). Names are those of
storage/layout.py. Requests are obstore's; it takes credentials, the region and the endpoint from the environment
(AWS_…, GOOGLE_…), and no name, record or message here holds any of them.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from align import redact, whole
from align.errors import AlignError, InputError
from storage import failures, files, layout

WIDE = 32  # requests at once: latency, not bandwidth, is what small records cost
_PART = 16 << 20  # bytes of a request; larger files go up and come down in parts
_CLOCK = 60.0  # seconds for which the bucket's time is reckoned on by this machine's steady clock

One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Object:
    """What a listing says of an object."""

    name: str
    size: int
    tag: str  # another where the object says something else; of one that was asked for, what swap() takes
    modified: datetime  # by the bucket's clock


class Gone(Exception):
    """An object is not what it was said to be: somebody else wrote or removed it."""


class Bucket:
    """The objects below a URL. Making one sends nothing."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        if "@" in rest.split("/")[0] or not re.fullmatch(r"[\w][\w.-]*(/[\w=+-][\w.=+-]*)*", rest):
            raise InputError(
                f"{redact.redact(self.url)} is no store: write {scheme}://BUCKET/FOLDER, with letters, digits, _ . = + "
                "and -; keys belong into the environment."
            )
        try:
            from obstore import exceptions, store
        except ImportError:
            raise InputError(f"The store {self.url} needs obstore; `pip install 'align-pipeline[remote]'`.") from None
        self._versions = scheme == "gs"  # what a write can be made to depend on: there a generation, in S3 an ETag
        if self.endpoint and not re.match(r"https?://[^/\s]", self.endpoint):
            raise InputError(
                f"The store {self.url}: {redact.redact(self.endpoint)} is no address; write http(s)://HOST:PORT."
            )
        http = self.endpoint.startswith("http://")  # named by whoever keeps the keys
        try:
            self.store: Any = store.from_url(
                self.url,
                client_options={"allow_http": http, "connect_timeout": "5s", "timeout": "120s"},
                retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
            )
        except exceptions.BaseError as error:
            raise failures.unusable(self.url, error) from None
        self._asked: tuple[float, datetime] | None = None

    @property
    def endpoint(self) -> str:
        """Where requests go, "" where that is S3 or GCS itself."""
        if self._versions:
            account = files.read_json(Path(os.environ.get("GOOGLE_SERVICE_ACCOUNT", "")))
            return str(account.get("gcs_base_url", "")) if isinstance(account, dict) else ""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        return next((os.environ[name] for name in names if os.environ.get(name)), "")

    # One object

    def get(self, name: str) -> bytes | None:
        """What is in an object, or None where there is none."""
        found = self.see(name)
        return found[1] if found else None

    def see(self, name: str) -> tuple[Object, bytes] | None:
        """An object and what is in it, as they are at one time, or None where there is none."""

        def read() -> tuple[Object, bytes]:
            found = self.store.get(name)
            return self._object(found.meta), bytes(found.bytes())

        with suppress(FileNotFoundError), self._said():
            return failures.whole(read)
        return None

    def put(self, name: str, data: bytes) -> str | None:
        """Write an object if none is there; its tag, or None where there is one. The first writer wins."""
        from obstore.exceptions import AlreadyExistsError

        with self._said():
            try:
                return self._tag(failures.whole(lambda: self.store.put(name, data, mode="create", use_multipart=False)))
            except AlreadyExistsError:
                return None

    def swap(self, name: str, data: bytes, tag: str) -> str:
        """Write an object if it is still the one with that tag; its new tag. Raises Gone where it is another, or none.

        Where an answer was lost on the way, the object may be what was to be written.
        """
        from obstore.exceptions import PreconditionError

        with self._said():
            try:
                mode = {"version": tag} if self._versions else {"e_tag": tag}
                return self._tag(failures.whole(lambda: self.store.put(name, data, mode=mode, use_multipart=False)))
            except (PreconditionError, FileNotFoundError):
                raise Gone(name) from None

    def replace(self, name: str, data: bytes) -> None:
        """Write an object in the place of what is there."""
        with self._said():
            failures.whole(lambda: self.store.put(name, data))

    def stat(self, name: str) -> Object | None:
        """What a listing would say of an object, or None where there is none."""
        with suppress(FileNotFoundError), self._said():
            return self._object(failures.whole(lambda: self.store.head(name)))
        return None

    def part(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object. Raises FileNotFoundError."""
        with self._said():
            return failures.whole(lambda: bytes(self.store.get_range(name, start=start, length=length)))

    def upload(self, name: str, path: Path) -> None:
        """Copy a file into the bucket. Of files as large as several requests nothing is seen before they are whole."""
        with self._said():
            failures.whole(lambda: self.store.put(name, path, chunk_size=_PART, max_concurrency=4))

    def download(self, name: str, to: Path | None) -> str:
        """Copy an object to a file, or only read it; returns the sha256 of its bytes. Raises FileNotFoundError."""
        digest = hashlib.sha256()
        with self._said():
            found = failures.whole(lambda: self.store.get(name)).stream(min_chunk_size=_PART)
            if to is None:
                for piece in found:
                    digest.update(piece)
                return digest.hexdigest()
            to.parent.mkdir(parents=True, exist_ok=True)
            draft = whole.draft_of(to)
            try:
                with draft.open("wb") as file:
                    for piece in found:
                        digest.update(piece)
                        file.write(piece)
                draft.replace(to)
            finally:
                draft.unlink(missing_ok=True)
        return digest.hexdigest()

    # Many

    def below(self, folder: str = "", after: str | None = None) -> Iterator[Object]:
        """The objects below a folder, by name; with `after` those that follow that name. Costs a request per 1,000."""
        asking = failures.Asking()
        with self._said():
            while True:
                try:
                    for batch in self.store.list(folder or None, offset=after, chunk_size=1000):
                        for found in map(self._object, batch):
                            yield found
                            after = found.name
                    return
                except Exception as error:
                    if not asking.again(error):
                        raise

    def names(self, folder: str) -> list[str]:
        """Names of the entries of a folder, sorted; none where it is not there."""
        with self._said():
            found = failures.whole(lambda: self.store.list_with_delimiter(folder or None))
        paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        found = list(names)
        step = 1 if self._versions else 1000  # GCS removes one by one, and would end at the first that is not there
        self.each(self._remove, [found[i : i + step] for i in range(0, len(found), step)])

    def _remove(self, names: list[str]) -> None:
        with suppress(FileNotFoundError), self._said():
            failures.whole(lambda: self.store.delete(names))

    def each(self, function: Callable[[One], Other], items: Iterable[One]) -> list[Other]:
        """`function` of every item, in order, several at once."""
        todo = list(items)
        if len(todo) < 2:
            return [function(item) for item in todo]
        with ThreadPoolExecutor(min(WIDE, len(todo))) as pool:
            return list(pool.map(function, todo))

    def now(self, who: str) -> datetime:
        """The bucket's time, by which the ages of objects are judged: clocks of two machines are never compared."""
        if self._asked is None or time.monotonic() - self._asked[0] > _CLOCK:
            name = f"{layout.CLOCK}/{who}"
            self.replace(name, b"")
            found = self.stat(name)
            if found is None:
                raise AlignError(f"{self.url}: an object that was written is not there.")
            self._asked = time.monotonic(), found.modified
        asked, then = self._asked
        return then + timedelta(seconds=time.monotonic() - asked)

    def _object(self, meta: Any) -> Object:
        return Object(meta["path"], meta["size"], self._tag(meta), meta["last_modified"])

    def _tag(self, meta: Any) -> str:
        """GCS's generation, which obstore does not tell of what it lists, or an ETag."""
        return str(self._versions and meta["version"] or meta["e_tag"])

    # Errors

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What obstore raises, as one sentence; FileNotFoundError stays where the bucket is there, its object not."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            if failures.no_bucket(error):
                raise failures.sentence(self.url, self.endpoint, error) from None
            raise
        except BaseError as error:
            if type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
                raise
            raise failures.sentence(self.url, self.endpoint, error) from None
