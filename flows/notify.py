"""Telling people what an automation has noticed, as a Prefect flow: the address stays with the worker that tells.

Prefect could tell by itself, but would keep the address, which often is a password, in its database.
"""

import os

from prefect import flow, get_run_logger

from align.errors import InputError, StageError
from align.redact import leaving, remember

ADDRESS = "ALIGN_NOTIFY"


@flow(name="notify", persist_result=False)
def notify(title: str, text: str) -> bool:
    """Send a message to the addresses of apprise in $ALIGN_NOTIFY, separated by blanks. False where there is none.

    Args:
        title: What happened.
        text: The whole of it.
    """
    import apprise

    remember(ADDRESS)
    with leaving():
        addresses = os.environ.get(ADDRESS, "").split()
        if not addresses:
            get_run_logger().info("%s: %s (the worker has no $%s, so that nobody is told)", title, text, ADDRESS)
            return False
        told = apprise.Apprise()
        for number, address in enumerate(addresses, 1):
            if not told.add(address):
                raise InputError(f"Address {number} in ${ADDRESS} is none that apprise knows.")
        if not told.notify(body=text, title=title):
            raise StageError(f"Not everybody in ${ADDRESS} could be told; the worker's log says why.")
    return True
