"""An export behind a server with OpenAI's chat completions: what clients of such a server get of it."""

import shlex
import sys
from pathlib import Path
from typing import Any

from align.errors import StageError
from align.handover.certificate import Certificate
from align.models.device import device
from align.models.engine import Prompt, Sampling
from align.models.served import Asking
from align.models.servers import Server, Servers
from align.progress import Progress

TOGETHER, PATIENCE = 4, 300.0  # requests in flight; seconds that the server may take to start


def missing() -> str | None:
    """Why there is no server to ask; None where transformers can serve."""
    from transformers.utils.import_utils import is_serve_available

    return None if is_serve_available() else "transformers[serving] is not installed"


def ask(folder: Path, certificate: Certificate) -> dict[str, Any]:
    """What clients of `transformers serve` get of a merged model. A server that fails says nothing about the model."""
    if why := missing():
        return {"left_out": why}
    python = shlex.quote(sys.executable)
    command = f"{python} -m transformers.cli.transformers serve {{model}} --device {device()} --port {{port}}"
    server = Server(kind="openai", command=command, name="{model}", concurrency=TOGETHER, start_timeout=PATIENCE)
    greedy = Sampling(n=1, temperature=0)
    held = certificate.held
    try:
        with Servers(server, folder.resolve()) as servers, Asking(servers, certificate.chat) as asking:
            asked = [
                asking.submit(Prompt(h.name, h.messages), greedy, 0, certificate.room(i)) for i, h in enumerate(held)
            ]
            said = []
            with Progress(len(asked), "answers of the server") as progress:
                for future in asked:
                    said.append(future.result().text)
                    progress.advance()
    except StageError as error:
        return {"failed": str(error)}
    return {"served_by": "transformers serve", **certificate.compare(said)}
