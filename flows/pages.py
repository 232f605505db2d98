"""Pages that verbs write beside what they print."""

import sys
from pathlib import Path
from tempfile import mkdtemp

from align import whole
from align.errors import InputError
from align.text import short
from flows import show
from storage.store import Store


def write(html: str, to: Path | None, name: str, open_: bool, aside: bool) -> None:
    """Write a page to `to`, or as `name`.html to a folder of its own that only this user can read, and say where it is.

    `open_`: show it in the browser; `aside`: say it on stderr. Raises InputError where it cannot be written.
    """
    content = html.encode("utf-8", "surrogatepass")
    try:
        if to is not None:
            can_write(to)
        to = (to or Path(mkdtemp(prefix=f"align-{name}-")) / f"{name}.html").absolute()
        whole.write(to, content)
    except OSError as error:
        raise InputError(f"{short(to)}: the page cannot be written ({error.strerror}); name another file.") from None
    show.say(to, sys.stderr if aside else None)
    if open_:
        import webbrowser

        webbrowser.open(to.as_uri())


def kept(store: Store, name: str) -> Path:
    """Where a store keeps its page of that name."""
    return store.root / "cache" / "reports" / f"{name}.html"


def keep(store: Store, name: str, html: str) -> Path:
    """Write a page where the store keeps it; where the store takes no files, to a folder of its own. Returns where."""
    content, path = html.encode("utf-8", "surrogatepass"), kept(store, name)
    try:
        whole.write(path, content)
    except OSError:
        path = Path(mkdtemp(prefix="align-page-")) / path.name
        whole.write(path, content)
    return path


def can_write(to: Path) -> None:
    """InputError where a page cannot be written there: to be known before the work that it shows is done."""
    if not to.absolute().parent.is_dir():
        raise InputError(f"{short(to)}: its folder does not exist; make it, or name another file.")
    if to.is_dir():
        raise InputError(f"{short(to)}: the page cannot be written (Is a directory); name another file.")
