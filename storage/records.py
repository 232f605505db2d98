"""Records: small JSON files about attempts, runs and artifacts, written once and never changed.

Each begins with a checksum over what follows it and carries the version of its format. A reader takes what it knows:
unknown fields stay in the file, and a record that is torn, changed or lacks a field that its kind needs is read as
nothing and named by `align verify`, so that one bad file never stops the others from being used.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from storage import files

FORMAT = 1

_NUMBER = (int, float)
_NAME = (str, type(None))
# What a record of each kind must have for a reader to make sense of it.
KINDS: dict[str, dict[str, Any]] = {
    "attempt": {
        "stage": str, "key": str, "artifact": str, "config": dict, "inputs": dict, "code": dict, "versions": dict,
        "metrics": dict, "seconds": _NUMBER, "created_at": str,
    },
    "manifest": {"artifact": str, "stage": str, "kind": str, "created_at": str, "files": dict},
    "run": {"run_id": str, "recipe": str, "started_at": str, "source": dict},
    "stage": {
        "run_id": str, "stage": str, "key": _NAME, "artifact": _NAME, "status": str, "seconds": _NUMBER, "reason": str,
        "metrics": dict, "ended_at": str,
    },
    "finished": {"run_id": str, "status": str, "finished_at": str},
    "champion": {
        "recipe": str, "number": int, "run_id": str, "model": str, "artifact": str, "decision": _NAME, "base": dict,
        "verdict": str, "promoted_at": str,
    },
}  # fmt: skip
_FIELDS = KINDS | {"entry": {"records": dict}}  # an entry of a journal (storage/journal.py) holds records
_CHECK = re.compile(r'\{\n "check": "([0-9a-f]{16})",')


def write(path: Path, value: dict[str, Any]) -> bool:
    """Write a record if none is there; readers see all of it or nothing. Returns whether it was written."""
    return files.write_once(path, encode(value))


def encode(value: dict[str, Any]) -> str:
    """A record as text: its checksum, its format and its fields."""
    body = json.dumps({"format": FORMAT, **value}, indent=1, sort_keys=True, ensure_ascii=False)
    return f'{{\n "check": "{_digest(body)}",{body[1:]}'


def read(path: Path, kind: str) -> dict[str, Any] | None:
    """The fields of a record, or None where it is missing or malformed."""
    return _parse(path, kind)[0]


def problem(path: Path, kind: str) -> str | None:
    """What is wrong with a record, in words, or None."""
    return _parse(path, kind)[1]


def _parse(path: Path, kind: str) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return parse(path.read_bytes(), kind)
    except OSError as error:
        return None, f"cannot be read ({error})"


def parse(data: bytes, kind: str) -> tuple[dict[str, Any] | None, str | None]:
    """The fields of a record, or what is wrong with it."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text)
    except RecursionError as error:
        return None, f"cannot be read ({error})"
    except ValueError:
        return None, "is not JSON"
    if not isinstance(value, dict):
        return None, "is not a record"
    if "check" in value:  # records without one were written by an earlier version
        stamp = _CHECK.match(text)
        if stamp is None or _digest("{" + text[stamp.end() :]) != stamp[1]:
            return None, "is not what was written"
    wrong = [name for name, kinds in _FIELDS[kind].items() if not isinstance(value.get(name, ...), kinds)]
    if kind == "manifest" and not wrong:
        wrong = [f"files: {name}" for name, entry in value["files"].items() if not _is_entry(name, entry)]
    if wrong:
        return None, f"has no proper {', '.join(wrong)}"
    return {k: v for k, v in value.items() if k != "check"}, None


def _is_entry(name: str, entry: Any) -> bool:
    inside = not name.startswith("/") and ".." not in name.split("/")
    return inside and isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and "bytes" in entry


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
