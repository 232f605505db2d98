"""The verbs that hand a model of a run over, or talk to it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from align import digests
from align.errors import InputError
from flows import show
from flows.given import identifier, open_store
from flows.options import Json, Model, Overrides, StoreDir

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


@app.command
def ask(
    recipe: str = "quickstart",
    *,
    examples: Annotated[Path, Parameter(help="questions with their SQL, in any shape that ingest reads")],
    to: Annotated[Path, Parameter(help="the file (.jsonl) to write")],
    n: Annotated[int, Parameter(help="questions to keep")] = 100,
    run: Annotated[str | None, Parameter(help="drawn by a policy of this run instead of the recipe's base")] = None,
    model: Model = None,
    endpoint: Annotated[
        str | None, Parameter(help="drawn by --model behind this OpenAI-compatible endpoint instead")
    ] = None,
    api_key_env: Annotated[
        str, Parameter(help="environment variable that holds the endpoint's key")
    ] = "OPENAI_API_KEY",
    warehouse: Annotated[
        Path | None, Parameter(help="data that SQL runs on; default what the recipe grades on")
    ] = None,
    schema: Annotated[
        Path | None, Parameter(help="what models read of it; default its schema.sql; none: nothing")
    ] = None,
    temperature: Annotated[float, Parameter(help="of the base or policy")] = 0.8,
    max_new_tokens: Annotated[int, Parameter(help="longest question with its SQL, in tokens")] = 192,
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(negative="", help="replace the file, where there is one")] = False,
    set_: Overrides = None,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """Draw more questions like some of your own. Kept are new ones whose SQL runs, gives rows and is confirmed.

    The same command draws the same.
    """
    from flows.ask import Order, draw

    order = Order(
        recipe=recipe, overrides=set_ or [], examples=examples, to=to, n=n, run=run and identifier(run), model=model,
        endpoint=endpoint, api_key_env=api_key_env, warehouse=warehouse, schema=schema, temperature=temperature,
        max_new_tokens=max_new_tokens, seed=seed, overwrite=overwrite,
    )  # fmt: skip
    draw(order, lambda: open_store(store, there=True), json_)
