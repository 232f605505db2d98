"""What people give the command line beside a recipe: a store, and ids of what is in it."""

import re
from pathlib import Path
from tempfile import TemporaryFile

from cyclopts import CycloptsError, MissingArgumentError

from align.errors import InputError
from align.text import quote, short
from flows.run import store_at, store_name
from storage.places import is_url
from storage.store import Store


def open_store(given: str | None, *, there: bool = False, write: bool = False) -> Store:
    """The store that is meant. `there`: it has to exist; `write`: it has to take new files. Creates nothing."""
    if given is not None and not given.strip():
        raise InputError("--store is empty; name a directory or a URL.")
    store = store_at(given)
    if is_url(store.where):
        if there and not store.exists():
            raise InputError(f"There is no store {store.where}; `align run` makes one, --store names another.")
        _usable(store.root, there=False, write=write, called=f"cache {short(store.root)} of the store {store.where}")
    else:
        _usable(store.root, there=there, write=write, called=f"store {short(store_name(given))}")
    return store


def _usable(path: Path, *, there: bool, write: bool, called: str) -> None:
    if bad := next((c for c in str(path) if c in "*?[\0"), None):
        raise InputError(f"The {called} has {bad!r} in its path, which stands for other names; choose another.")
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"The {called} is a file; name a directory with --store.")
        if there and not path.exists():
            raise InputError(f"There is no {called}; `align run` makes one, --store names another.")
        above = next(p for p in (path, *path.parents) if p.exists())
        if not above.is_dir():
            raise InputError(f"The {called} would lie in a file; name a directory with --store.")
        if write:
            with TemporaryFile(dir=above):
                pass
    except OSError as error:
        raise InputError(f"The {called} cannot be used ({error.strerror}); name another with --store.") from None


def identifier(text: str) -> str:
    """An id as people give it: never a path or a pattern."""
    if not re.fullmatch(r"\w[\w.:#-]{0,199}", text):
        raise InputError(f"{quote(text)} is no id; `align runs` lists the runs.")
    return text


def refused(error: CycloptsError) -> str:
    """What is wrong with the words of a command, where the command line's library says it."""
    verb = " ".join(["align", *(error.command_chain or ())])
    said = str(error).strip()
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        typed = error.keyword or next((t.keyword for t in reversed(error.argument.tokens) if t.keyword), None)
        name = error.argument.name
        if error.argument.field_info.is_positional:
            name = name.lstrip("-").upper().replace("-", "_")
        said = f"{typed} needs a value." if typed else f"`{verb}` needs {name}."
    return f"{said} See `{verb} --help`."
