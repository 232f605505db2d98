"""The real chat templates of known families, unchanged: what is trained on, what is read back, and the table of them."""

from typing import Any

import families
import pytest
from families import ASK, BY_NAME, FAMILIES, chat_of, template_of, tokenizer_of

from align.errors import InputError, StageError
from align.models.chat import Chat

TURNS = [*ASK, {"role": "assistant", "content": "One, two."}, {"role": "user", "content": "Sure?"}]
names = pytest.mark.parametrize("name", BY_NAME)


def said(chat: Chat, example: Any) -> str:
    return str(chat.tokenizer.decode([t for t, m in zip(example.ids, example.mask, strict=True) if m]))


@names
def test_a_family_passes_and_trains_on_the_response_and_its_end(name: str) -> None:
    chat = chat_of(name)
    chat.check()
    (example,) = chat.examples([ASK], ["Hello."])
    prompt = chat.prompts([ASK])[0]
    assert example.ids[: example.prompt] == prompt and not any(example.mask[: example.prompt])
    assert all(example.mask[example.prompt :]) and example.ids[-1] == chat.end_id
    assert said(chat, example).endswith(f"Hello.{chat.tokenizer.decode([chat.end_id])}")


@names
def test_what_a_family_says_is_read_back(name: str) -> None:
    chat = chat_of(name)
    for response in ("SELECT 1;", "서울\n\n- a\n- b", "x < y and y > z"):
        (example,) = chat.examples([ASK], [response])
        assert chat.read([example.ids[example.prompt : -1]]) == [(response, None)]


@names
def test_all_turns_of_a_family_or_the_last(name: str) -> None:
    chat = chat_of(name)
    (every,) = chat.examples([TURNS], ["Three."], "all")
    (last,) = chat.examples([TURNS], ["Three."], "last")
    assert every.ids == last.ids and every.ids[-1] == chat.end_id
    assert "One, two." in said(chat, every) and "Three." in said(chat, every)
    assert "One, two." not in said(chat, last) and "Three." in said(chat, last)
    assert last.mask == [0] * last.prompt + [1] * (len(last.ids) - last.prompt)
    for words in ("Hi", "Sure?"):
        assert words not in said(chat, every)


@names
def test_a_family_begins_with_one_bos_where_its_tokenizer_does(name: str) -> None:
    chat, family = chat_of(name), BY_NAME[name]
    if not family.adds_bos:
        pytest.skip("the tokenizer adds none")
    assert chat.prompts([ASK])[0].count(chat.tokenizer.bos_token_id) == 1
    assert chat.prompts([ASK])[0][0] == chat.tokenizer.bos_token_id


@pytest.mark.parametrize("name", [f.models for f in FAMILIES if chat_of(f.models).source == "trl"])
def test_rendering_finds_what_trl_marks(name: str) -> None:
    """A blank more, and trl knows the template no longer: the words are then found by rendering."""
    by_trl = chat_of(name)
    template = template_of(BY_NAME[name]) + "{# #}"
    found = Chat(tokenizer_of(BY_NAME[name], template))
    found.check()
    assert found.source == "rendering"
    (a,), (b,) = by_trl.examples([ASK], ["Hello."]), found.examples([ASK], ["Hello."])
    ends = [c.tokenizer.decode([c.end_id]) for c in (by_trl, found)]
    assert said(by_trl, a).removesuffix(ends[0]) == said(found, b).removesuffix(ends[1])


@names
def test_a_system_message_alone_is_asked_whole(name: str) -> None:
    """As it is, or where the template raises or drops it, as the user's turn; and its answer is trained on."""
    chat, task = chat_of(name), [{"role": "system", "content": "Name a colour."}]
    asked = task if chat.lone_system == "system" else [{"role": "user", "content": "Name a colour."}]
    (ids,), (example,) = chat.prompts([task]), chat.examples([task], ["Red."])
    assert ids == chat.prompts([asked])[0] and chat.tokenizer.decode(ids).count("Name a colour.") == 1
    assert said(chat, example).endswith("Red." + chat.tokenizer.decode([chat.end_id]))
    assert "colour" not in said(chat, example)
    if name.startswith(("Gemma", "Mistral")):
        assert chat.lone_system == "user"
    if name.startswith(("Qwen", "Llama", "Phi", "SmolLM")):
        assert chat.lone_system == "system"


def test_a_system_message_that_a_template_drops_is_asked_as_the_users_turn() -> None:
    template = template_of(BY_NAME["Phi-4"])
    dropped = template.replace("in messages %}", "in messages if message['role'] != 'system' %}")
    assert dropped != template
    chat, task = Chat(tokenizer_of(BY_NAME["Phi-4"], dropped)), [{"role": "system", "content": "Name a colour."}]
    assert chat.lone_system == "user" and "user<|im_sep|>Name a colour." in chat.tokenizer.decode(
        chat.prompts([task])[0]
    )
    told = chat.tokenizer.decode(chat.prompts([[*task, *ASK]])[0])
    assert "colour" not in told, "a template is not changed where there is a user"


def test_a_family_that_ends_no_turn_gets_eos() -> None:
    chat = Chat(tokenizer_of(BY_NAME["GLM-4.5"], template_of(BY_NAME["GLM-4.5"]) + "{# #}"))
    assert chat.added == ("eos",) and chat.facts()["added"] == "eos"
    (example,) = chat.examples([ASK], ["Hello."])
    assert said(chat, example) == "\n<think></think>\nHello.<|endoftext|>"


def test_the_bos_that_a_template_leaves_out_is_noticed_and_added() -> None:
    chat = chat_of("Zephyr")
    assert chat.added == ("bos",) and chat.facts()["added"] == "bos"
    assert chat.tokenizer.apply_chat_template(ASK, tokenize=False).startswith("<s><|user|>"), "what is saved has it too"
    again = Chat(chat.tokenizer)
    assert again.added == () and again.template == chat.template


def test_a_template_that_writes_the_words_twice_is_refused() -> None:
    template = template_of(BY_NAME["Phi-4"]).replace(
        "message['content']", "message['content'] + ' ' + message['content']"
    )
    with pytest.raises(StageError, match="writes the assistant's words 2 times"):
        Chat(tokenizer_of(BY_NAME["Phi-4"], template)).check()


def test_a_template_that_changes_the_words_is_refused() -> None:
    template = template_of(BY_NAME["Phi-4"]).replace("message['content']", "message['content'] | upper")
    with pytest.raises(InputError, match="drops the assistant's words, or changes them"):
        Chat(tokenizer_of(BY_NAME["Phi-4"], template))


def test_a_prompt_that_is_not_the_beginning_is_refused_for_that_reason() -> None:
    template = template_of(BY_NAME["Phi-4"]).replace("{{ '<|im_start|>assistant", "{{ '<|im_start|>model")
    with pytest.raises(
        StageError, match=r"ends with '.*model<\|im_sep\|>', is not the beginning of what it is trained"
    ):
        Chat(tokenizer_of(BY_NAME["Phi-4"], template)).check()


def test_the_table_is_up_to_date() -> None:
    assert families.PAGE.read_text(encoding="utf-8") == families.table(), "run: python tests/families.py"
