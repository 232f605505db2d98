"""A stand-in for Google's object store in a thread of the tests: what storage/bucket.py asks of its XML API.

It is written from Google's reference (cloud.google.com/storage/docs/xml-api), because no server that could be installed
speaks that API with its preconditions; it shows that our part holds to the reference, not that Google does. Every object
has a generation, which only what asks for that object is told, and never a listing.
"""

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "shared"
PAGE = 100  # entries of a listing; Google's has 1,000


@dataclass
class Kept:
    """An object, one generation of it."""

    data: bytes
    generation: int
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


class Place(ThreadingHTTPServer):
    """The server, and what is in its one bucket."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.lock, self.last = threading.RLock(), 1_700_000_000_000_000
        self.objects: dict[str, Kept] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}

    def keep(self, name: str, data: bytes, expected: str | None) -> Kept | None:
        """Write an object; None where it is not of the generation that is expected."""
        with self.lock:
            there = self.objects.get(name)
            if expected is not None and int(expected) != (there.generation if there else 0):
                return None
            self.last += 1
            self.objects[name] = Kept(data, self.last)
            return self.objects[name]


class Asked(BaseHTTPRequestHandler):
    """A request."""

    protocol_version = "HTTP/1.1"
    server: Place

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _parts(self) -> tuple[str, dict[str, str]]:
        """The object's name, "" for the bucket, and the query."""
        asked = urlsplit(self.path)
        bucket, _, name = asked.path.lstrip("/").partition("/")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if unquote(bucket) != BUCKET:
            self._refuse(404, "NoSuchBucket", "The specified bucket does not exist.")
            raise ConnectionAbortedError
        return unquote(name), {k: v[0] for k, v in parse_qs(asked.query, keep_blank_values=True).items()}

    def _answer(self, status: int, data: bytes = b"", /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, says: str) -> None:
        self._xml(f"<Error><Code>{code}</Code><Message>{says}</Message></Error>", status)

    def _xml(self, text: str, status: int = 200) -> None:
        self._answer(status, f"<?xml version='1.0' encoding='UTF-8'?>{text}".encode(), Content_Type="application/xml")

    def handle_one_request(self) -> None:
        with suppress(ConnectionAbortedError, ConnectionResetError, BrokenPipeError):
            super().handle_one_request()

    def do_GET(self) -> None:
        name, query = self._parts()
        if not name:
            self._list(query)
            return
        found = self.server.objects.get(name)
        if found is None:
            self._refuse(404, "NoSuchKey", "The specified key does not exist.")
            return
        headers = {"ETag": found.etag, "x_goog_generation": str(found.generation),
                   "Last_Modified": format_datetime(found.changed, usegmt=True)}  # fmt: skip
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2] or len(found.data)), len(found.data) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(found.data)}"
            self._answer(206, found.data[first : last + 1], **headers)
        elif self.command == "HEAD":
            self._answer(200, Content_Length=str(len(found.data)), **headers)
        else:
            self._answer(200, found.data, **headers)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        name, query = self._parts()
        if "uploadId" in query:
            with self.server.lock:
                self.server.uploads[query["uploadId"]][int(query["partNumber"])] = self.body
            self._answer(200, ETag=Kept(self.body, 0).etag)
            return
        self._kept(self.server.keep(name, self.body, self.headers.get("x-goog-if-generation-match")))

    def _kept(self, made: Kept | None) -> None:
        if made is None:
            self._refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
        else:
            self._answer(200, ETag=made.etag, x_goog_generation=str(made.generation))

    def do_POST(self) -> None:
        name, query = self._parts()
        with self.server.lock:
            if "uploads" in query:
                begun = uuid.uuid4().hex
                self.server.uploads[begun] = {}
                self._xml(
                    f"<InitiateMultipartUploadResult><UploadId>{begun}</UploadId></InitiateMultipartUploadResult>"
                )
                return
            parts = self.server.uploads.pop(query["uploadId"])
            made = self.server.keep(name, b"".join(parts[n] for n in sorted(parts)), None)
        assert made is not None
        body = f"<CompleteMultipartUploadResult><ETag>{escape(made.etag)}</ETag></CompleteMultipartUploadResult>"
        self._answer(200, body.encode(), x_goog_generation=str(made.generation))

    def do_DELETE(self) -> None:
        name, query = self._parts()
        with self.server.lock:
            found = (
                self.server.uploads.pop(query["uploadId"], None)
                if "uploadId" in query
                else self.server.objects.pop(name, None)
            )
        if found is None:
            self._refuse(404, "NoSuchKey", "The specified key does not exist.")
        else:
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
                    f"<Contents><Key>{escape(name)}</Key><LastModified>{found.changed.isoformat()}</LastModified>"
                    f"<ETag>{escape(found.etag)}</ETag><Size>{len(found.data)}</Size></Contents>"
                )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(left) > PAGE else ""
        self._xml(f"<ListBucketResult>{''.join(said)}{more}</ListBucketResult>")


@contextmanager
def serving() -> Iterator[str]:
    """Its address."""
    with Place() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def environment(address: str, folder: Path) -> dict[str, str]:
    """What a user of it has in the environment: an account that needs no key."""
    account = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": "",
               "private_key_id": ""}  # fmt: skip
    (folder / "account.json").write_text(json.dumps(account))
    return {"GOOGLE_SERVICE_ACCOUNT": str(folder / "account.json")}
