"""A stand-in for Google's object store in a thread of the tests: what storage/bucket.py asks of its XML API.

It is written from Google's reference (cloud.google.com/storage/docs/xml-api), because no server that could be installed
speaks that API with its preconditions; it shows that our part holds to the reference, not that Google does. Every object
has a generation, by which writes are made conditional; where it was written in parts, its ETag is no digest of its bytes.
An object that is written or removed again within `seldom` seconds is refused; Google may do so with 1 (storage/quotas).
"""

import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape

import pytest

BUCKET = "shared"
PAGE = 100  # entries of a listing; Google's has 1,000
SMALLEST = 5 << 20  # bytes of a part that is not the last


@dataclass
class Kept:
    """An object, one generation of it."""

    data: bytes
    generation: int
    etag: str
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))


class Refused(Exception):
    """What is asked for is not done: a status, a code and what they mean."""


EXPECTED = Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
NO_KEY = Refused(404, "NoSuchKey", "The specified key does not exist.")
NO_UPLOAD = Refused(404, "NoSuchUpload", "The requested upload was not found.")
TOO_FAST = Refused(429, "SlowDown", "The object exceeded the rate limit for object mutation operations.")


def digest(data: bytes) -> str:
    """The ETag of what came in one request."""
    return f'"{hashlib.md5(data).hexdigest()}"'


class Place(ThreadingHTTPServer):
    """The server, and what is in its one bucket."""

    daemon_threads = True

    def __init__(self, seldom: float) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.lock, self.last, self.seldom = threading.RLock(), 1_700_000_000_000_000, seldom
        self.objects: dict[str, Kept] = {}
        self.written: dict[str, float] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}

    def keep(self, name: str, data: bytes, expected: str | None, parts: int = 0) -> Kept:
        """Write an object, if it is of the generation that is expected."""
        with self.lock:
            self._mutate(name)
            there = self.objects.get(name)
            if expected is not None and int(expected) != (there.generation if there else 0):
                raise EXPECTED
            self.last += 1
            etag = f'"-{self.last:x}-{parts}"' if parts else digest(data)
            self.objects[name], self.written[name] = Kept(data, self.last, etag), time.monotonic()
            return self.objects[name]

    def drop(self, name: str) -> None:
        """Remove an object."""
        with self.lock:
            self._mutate(name)
            if self.objects.pop(name, None) is None:
                raise NO_KEY
            self.written[name] = time.monotonic()

    def _mutate(self, name: str) -> None:
        if name in self.written and time.monotonic() - self.written[name] < self.seldom:
            raise TOO_FAST

    def complete(self, name: str, upload: str, asked: str) -> Kept:
        """Make an object of the parts that are named, number and ETag."""
        with self.lock:
            there = self.uploads.get(upload)
            if there is None:
                raise NO_UPLOAD
            named = {int(part.findtext("PartNumber", "")): part.findtext("ETag") for part in fromstring(asked)}
            parts = [there.get(n, b"") for n in named]
            if not named or [digest(part) for part in parts] != list(named.values()):
                raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
            if any(len(part) < SMALLEST for part in parts[:-1]):
                raise Refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum object size.")
            made = self.keep(name, b"".join(parts), None, len(parts))
            del self.uploads[upload]
            return made


class Asked(BaseHTTPRequestHandler):
    """A request."""

    protocol_version = "HTTP/1.1"
    server: Place

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, data: bytes = b"", /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _xml(self, text: str, status: int = 200, **headers: str) -> None:
        data = f"<?xml version='1.0' encoding='UTF-8'?>{text}".encode()
        self._answer(status, data, Content_Type="application/xml", **headers)

    def _do(self) -> None:
        asked = urlsplit(self.path)
        bucket, _, name = asked.path.lstrip("/").partition("/")
        query = {k: v[0] for k, v in parse_qs(asked.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with suppress(ConnectionError):
            try:
                if unquote(bucket) != BUCKET:
                    raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
                getattr(self, f"_{self.command.lower()}")(unquote(name), query, body)
            except Refused as refused:
                status, code, says = refused.args
                self._xml(f"<Error><Code>{code}</Code><Message>{says}</Message></Error>", status)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do

    def _get(self, name: str, query: dict[str, str], _: bytes) -> None:
        if not name:
            self._list(query)
            return
        found = self.server.objects.get(name)
        if found is None:
            raise NO_KEY
        headers = {"ETag": found.etag, "x_goog_generation": str(found.generation),
                   "Last_Modified": format_datetime(found.changed, usegmt=True)}  # fmt: skip
        if self.command == "HEAD":
            self._answer(200, Content_Length=str(len(found.data)), **headers)
        elif part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2] or len(found.data)), len(found.data) - 1)
            if first > last:
                raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
            headers["Content_Range"] = f"bytes {first}-{last}/{len(found.data)}"
            self._answer(206, found.data[first : last + 1], **headers)
        else:
            self._answer(200, found.data, **headers)

    _head = _get

    def _put(self, name: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" in query:
            if query["uploadId"] not in self.server.uploads:
                raise NO_UPLOAD
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, ETag=digest(body))
            return
        made = self.server.keep(name, body, self.headers.get("x-goog-if-generation-match"))
        self._answer(200, ETag=made.etag, x_goog_generation=str(made.generation))

    def _post(self, name: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            begun = uuid.uuid4().hex
            self.server.uploads[begun] = {}
            what, says = "InitiateMultipartUploadResult", f"<UploadId>{begun}</UploadId>"
            self._xml(f"<{what}>{says}</{what}>")
            return
        made = self.server.complete(name, query["uploadId"], body.decode())
        what, says = "CompleteMultipartUploadResult", f"<ETag>{escape(made.etag)}</ETag>"
        self._xml(f"<{what}>{says}</{what}>", x_goog_generation=str(made.generation))

    def _delete(self, name: str, query: dict[str, str], _: bytes) -> None:
        if "uploadId" not in query:
            self.server.drop(name)
        elif self.server.uploads.pop(query["uploadId"], None) is None:
            raise NO_UPLOAD
        self._answer(204)

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        with self.server.lock:
            entries: dict[str, Kept | None] = {}
            for name in sorted(self.server.objects):
                if name.startswith(prefix):
                    cut = name.find(delimiter, len(prefix)) if delimiter else -1
                    entries.setdefault(
                        name if cut < 0 else name[: cut + 1], self.server.objects[name] if cut < 0 else None
                    )
        left = [name for name in sorted(entries) if name > after]
        page, said = left[:PAGE], []
        for name in page:
            if (found := entries[name]) is None:
                said.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            else:
                said.append(
                    f"<Contents><Key>{escape(name)}</Key><Generation>{found.generation}</Generation>"
                    f"<LastModified>{found.changed.isoformat()}</LastModified><ETag>{escape(found.etag)}</ETag>"
                    f"<Size>{len(found.data)}</Size></Contents>"
                )
        if more := len(left) > PAGE:
            said.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
        self._xml(f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{''.join(said)}</ListBucketResult>")


@contextmanager
def serving(seldom: float = 0.0) -> Iterator[str]:
    """Its address."""
    with Place(seldom) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def known(address: str, folder: Path, patch: pytest.MonkeyPatch, key: str = "") -> None:
    """Put what a user of it has into the environment: an account, in `folder`, whose key is not asked for."""
    account = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": key,
               "private_key_id": ""}  # fmt: skip
    (folder / "account.json").write_text(json.dumps(account))
    patch.setenv("GOOGLE_SERVICE_ACCOUNT", str(folder / "account.json"))
