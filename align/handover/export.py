"""A trained policy in the forms that others load: merged weights, a PEFT adapter, or GGUF by llama.cpp's converter.

What is written ends where the policy ends, asks as it was asked, and draws greedily unless it is told otherwise.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from align.errors import InputError, StageError
from align.handover import gguf
from align.models.base import WHOLE, BaseConfig, directory, load_chat
from align.models.chat import Chat
from align.models.files import ADAPTER, adapter_weights, read_json
from align.models.memory_inference import release
from align.models.plain import stop_ids
from align.models.trained import check_policy, folder, policy
from align.whole import draft_of, fsync

Form = Literal["merged", "adapter", "gguf"]
Look = Callable[[Any, Chat], None]
"""What is done with the policy as it is graded, before anything of it is written."""


def export(
    base: BaseConfig,
    artifact: Path,
    to: Path,
    form: Form = "merged",
    *,
    converter: Sequence[str] = (),
) -> Path:
    """Write a policy to the directory `to`, whole or not at all.

    Raises InputError where `to` holds something, or the form cannot be had of this policy.
    """
    check(base, form, to)
    with new_directory(to) as draft, weights(base, artifact, draft, form, converter):
        pass
    return to


def check(base: BaseConfig, form: Form, to: Path) -> None:
    """InputError where `to` holds something, or there is no adapter to export. Loads nothing."""
    if to.is_dir() and not any(to.iterdir()):
        pass
    elif to.exists() or to.is_symlink():
        raise InputError(f"{to} exists; give --to a directory that does not, or is empty.")
    if form == "adapter" and base.adapter == "none":
        raise InputError("This run trained all weights (base.adapter is none): there is no adapter; use --form merged.")


@contextmanager
def new_directory(to: Path) -> Iterator[Path]:
    """A directory beside `to` to write in. It becomes `to` when the block ends, on the disk, and is removed where the
    block raises."""
    draft = draft_of(to)
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{to} cannot be written ({error.strerror}); give --to another directory.") from error
    try:
        yield draft
        for path in [*draft.rglob("*"), draft]:
            fsync(path)
        draft.rename(to)
        fsync(to.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def weights(
    base: BaseConfig,
    artifact: Path,
    to: Path,
    form: Form,
    converter: Sequence[str] = (),
    look: Look | None = None,
) -> Iterator[Path]:
    """Write the model files of a form to `to`; yields the directory that transformers loads: `to`, but of GGUF the
    merged weights that it was converted from, which are gone afterwards."""
    check_policy(base, artifact)
    chat = load_chat(base)
    model = policy(base, artifact) if form != "adapter" or look else None
    if look:
        look(model, chat)
    with ExitStack() as open_:
        loadable = to
        if form == "adapter":
            _adapter(base, artifact, chat, to)
        else:
            if form == "gguf":
                loadable = Path(open_.enter_context(TemporaryDirectory(prefix=".merged-", dir=to.parent)))
            _merged(model, chat, loadable)
        del model
        release()  # what loads it next wants the device
        if form == "gguf":
            gguf.convert(converter, loadable, to)
        yield loadable


def _merged(model: Any, chat: Chat, to: Path) -> None:
    model.generation_config = generation(model.generation_config, chat)
    model.config.eos_token_id = chat.end_id
    model.config.pad_token_id = chat.pad_id
    model.save_pretrained(to)
    _tokenizer(chat, to)
    for file in to.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes it private to its user


def _adapter(base: BaseConfig, artifact: Path, chat: Chat, to: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    adapter_weights(artifact)  # whole and finite
    source = folder(artifact)
    shutil.copyfile(source / ADAPTER, to / ADAPTER)
    facts = read_json(source / "adapter_config.json", StageError)
    facts |= {"base_model_name_or_path": base.hub or str(directory(base).resolve()), "revision": base.revision}
    _write_json(to / "adapter_config.json", facts)
    try:
        own = GenerationConfig.from_pretrained(directory(base))
    except OSError:
        own = GenerationConfig.from_model_config(AutoConfig.from_pretrained(directory(base)))
    generation(own, chat).save_pretrained(to)
    _tokenizer(chat, to)


def generation(own: Any, chat: Chat) -> Any:
    """Generation settings with the tokens that end and pad, and nothing else: what samples is the caller's to say."""
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=stop_ids(own, chat), pad_token_id=chat.pad_id, do_sample=False
    )


def _tokenizer(chat: Chat, to: Path) -> None:
    """The tokenizer with the template that only asks, padded on the left, as a batch of prompts has to be."""
    tokenizer, before = chat.tokenizer, chat.tokenizer.chat_template
    tokenizer.chat_template = chat.inference
    try:
        tokenizer.save_pretrained(to)
    finally:
        tokenizer.chat_template = before
    file = to / "tokenizer_config.json"
    # transformers saves neither the side nor leaves out where it loaded the tokenizer from
    facts = {k: v for k, v in read_json(file, StageError).items() if k not in ("is_local", "local_files_only")}
    _write_json(file, facts | {"padding_side": "left"})


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def made_from(base: BaseConfig, form: Form) -> str:
    """In a sentence, which weights a form holds."""
    whole, nf4 = base.adapter == "none", base.quantization == "nf4"
    if form == "adapter":
        trained = "NF4-quantised base; here it is applied to the base that is not quantised" if nf4 else "base as it is"
        return f"The adapter was trained on the {trained}."
    if whole:
        return f"All weights of the base were trained; these are the trained ones ({WHOLE}/)."
    source = "base quantised to NF4 and dequantised again" if nf4 else "original base"
    return f"The adapter is merged into the {source}, which is what was graded."
