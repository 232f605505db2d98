"""The chat template that training uses: the model's own, with markers where trl knows its family, and complete."""

import re
import warnings
from typing import Any

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_CLOSED = re.compile(r"\{%[-+]?\s*endgeneration\s*[-+]?%\}")
BOS = "{{ bos_token }}"
EOS = "{% if not add_generation_prompt and messages[-1]['role'] == 'assistant' %}{{ eos_token }}{% endif %}"


def has_markers(template: str) -> bool:
    """Whether the template says itself, by {% generation %}, what the assistant's words are."""
    return bool(_GENERATION.search(template))


def without_markers(template: str) -> str:
    """The template with its markers replaced by a block that is always written, so that white space stays."""
    opened = _GENERATION.sub(lambda tag: tag[0].replace("generation", "if true"), template)
    return _CLOSED.sub(lambda tag: tag[0].replace("endgeneration", "endif"), opened)


def of_trl(tokenizer: Any) -> str | None:
    """trl's training template for the tokenizer's; None if trl does not know its exact text."""
    from trl.chat_template_utils import get_training_chat_template

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_training_chat_template(tokenizer)
        except Exception:  # ValueError for an unknown template; whatever a template raises when it is tried with tools
            return None


def lacks_bos(tokenizer: Any, rendered: str) -> bool:
    """Whether the tokenizer begins a text with BOS, and the template does not."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return False
    return bool(tokenizer(rendered, add_special_tokens=False)["input_ids"][:1] != [bos])
