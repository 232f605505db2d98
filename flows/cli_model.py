"""The verbs that hand a model of a run over, or talk to it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from align import digests
from align.errors import InputError
from flows import show
from flows.given import identifier, open_store
from flows.options import Model, StoreDir

if TYPE_CHECKING:
    from align.models.generate import Sampler
    from storage.store import Store

app = App()
BASE = "base"  # what the base is called among models


@app.command
def export(
    run_id: str,
    *,
    to: Path,
    form: Annotated[
        Literal["merged", "adapter", "gguf"],
        Parameter(
            help="merged: safetensors; adapter: PEFT, for the original base; gguf: through llama.cpp's converter"
        ),
    ] = "merged",
    model: Model = None,
    certify: Annotated[
        int, Parameter(help="evaluation items that plain transformers answers with it, graded again; 0: none")
    ] = 100,
    server: Annotated[bool, Parameter(help="ask a server with OpenAI's API too, where one is installed")] = True,
    license_: Annotated[str | None, Parameter(name="--license", help="its licence; default that of the base")] = None,
    push: Annotated[
        str | None, Parameter(help="ORG/NAME to upload it to, with the token in HF_TOKEN; private unless --public")
    ] = None,
    public: Annotated[bool, Parameter(negative="")] = False,
    converter: Annotated[str | None, Parameter(help="what starts llama.cpp's convert_hf_to_gguf.py")] = None,
    store: StoreDir = None,
) -> None:
    """Write a model directory that others load, with its card and a certificate that it is what was graded."""
    from flows.handover import Order, hand_over

    if not 0 <= certify <= 1_000_000:
        raise InputError("--certify is a number of items, or 0.")
    opened = open_store(store, there=True)
    order = Order(
        form=form, certify=certify, server=server, licence=license_, push=push, public=public, converter=converter
    )
    run_id = identifier(run_id)
    model = model or show.final_of(opened, run_id)
    with digests.kept_in(opened.digests):
        hand_over(opened, run_id, model, to, order, lambda text: show.say(text, sys.stderr))
    show.say(to)


@app.command
def chat(
    run_id: str | None = None,
    *,
    model: Model = None,
    against: Annotated[str | None, Parameter(help="a stage whose model answers beside it, or base")] = None,
    system: Annotated[str | None, Parameter(help="a system message that the conversation begins with")] = None,
    store: StoreDir = None,
) -> None:
    """Talk to the champion of the recipe that ran last, else to the latest result, in one conversation.

    /reset begins another. /quit, an empty line or end of input ends.
    """
    from flows.chatting import Talk, converse

    opened = open_store(store, there=True)
    run_id = identifier(run_id) if run_id else show.champion_of(opened)
    names = [model or show.final_of(opened, run_id), *([against] if against else [])]
    trained = next((name for name in names if name != BASE), "sft")
    run = show.latest_run(opened, run_id, trained)["run_id"]
    places = {name: None if name == BASE else show.artifact_of(opened, run, name) for name in names}
    with digests.kept_in(opened.digests):
        talks = [Talk(name, _load(opened, run, places[name]), system) for name in names]
    prompt = "> " if against else f"{names[0]}> "
    converse(talks, lambda: _line(prompt if sys.stdin.isatty() else ""))


def _load(store: "Store", run: str, artifact: Path | None) -> "Sampler":
    from align.models.generate import Sampler

    return Sampler(show.base_of(store, run), artifact)


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        return ""
