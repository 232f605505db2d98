"""Talking to a policy: what is shown while it speaks, and what it remembers."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import tiny
from rich.console import Console

from align.errors import InputError
from align.models import stream as streaming
from align.models.base import BaseConfig
from align.models.engine import Prompt, Sampling
from align.models.generate import Sampler
from align.models.stream import stream
from flows import chatting
from flows.chatting import Talk, converse, side_by_side

ASK = [{"role": "user", "content": "What is 3 plus 3?"}]


@pytest.fixture(scope="module")
def policy(base: BaseConfig, adapter: Path) -> Sampler:
    return Sampler(base, adapter)


@pytest.fixture(scope="module")
def untrained(base: BaseConfig) -> Sampler:
    return Sampler(base)


def drawn(policy: Sampler, messages: list[dict[str, str]], most: int = 20) -> str:
    return policy.draw([Prompt("a", messages)], Sampling(n=1, temperature=0, max_new_tokens=most))[0].text


@pytest.mark.parametrize("question", ["What is 3 plus 3?", "서울의 주문은?", "Which way is north?"])
def test_what_grows_is_the_greedy_answer(policy: Sampler, untrained: Sampler, question: str) -> None:
    messages = [{"role": "user", "content": question}]
    for one in (policy, untrained):
        pieces = list(stream(one, messages, 20))
        assert pieces[-1] == drawn(one, messages)
        assert len(pieces) > 3 and all(a in b for a, b in zip(pieces, pieces[1:-1], strict=False))
        assert not any(p.endswith("\ufffd") for p in pieces[:-1]), "a letter is shown when all of its bytes are there"


@pytest.mark.parametrize("family", families.BY_NAME)
def test_what_a_family_has_before_a_response_is_not_shown(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = families.chat_of(family)
    (example,) = chat.examples([families.ASK], ["Hello, 서울."])
    policy: Any = SimpleNamespace(chat=chat, stop=[chat.end_id], context=1000)
    monkeypatch.setattr(streaming, "_tokens", lambda *_: iter(example.ids[example.prompt :]))
    pieces = list(stream(policy, families.ASK, 100))
    assert pieces[-1] == "Hello, 서울." and all(pieces[-1].startswith(piece) for piece in pieces)


def test_windows_slide(tmp_path: Path) -> None:
    one = Sampler(tiny.tiny_base(tmp_path, window=8, quantization="none"))
    assert list(stream(one, ASK, 30))[-1] == drawn(one, ASK, 30)


def test_a_talk_remembers_and_forgets(policy: Sampler) -> None:
    talk = Talk("sft", policy, "Be kind.", 12)
    *_, first = talk.ask("What is 1 plus 1?")
    *_, second = talk.ask("And 2 plus 2?")
    assert [m["role"] for m in talk.messages] == ["system", *["user", "assistant"] * 2]
    assert talk.messages[2]["content"] == first and talk.messages[4]["content"] == second
    assert second == drawn(policy, talk.messages[:4], 12)
    talk.reset()
    assert talk.messages == [{"role": "system", "content": "Be kind."}]


def test_an_answer_that_is_broken_off_is_no_part_of_it(policy: Sampler) -> None:
    talk = Talk("sft", policy)
    answer = talk.ask("What is 1 plus 1?")
    next(answer)
    del answer
    assert talk.messages == []


def test_a_conversation_without_room(
    policy: Sampler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "what " * policy.context
    with pytest.raises(InputError, match=f"fills the model's {policy.context} tokens of context"):
        next(stream(policy, [{"role": "user", "content": long}], 20))
    lines = iter([long, "What is 1 plus 1?", ""])
    converse([Talk("sft", policy, max_new_tokens=4)], lambda: next(lines))
    out, err = capsys.readouterr()
    assert "No room for this in the context of sft; /reset begins a new one." in err
    assert out.rstrip("\n") == drawn(policy, [{"role": "user", "content": "What is 1 plus 1?"}], 4)


def test_two_answers_side_by_side(policy: Sampler, untrained: Sampler) -> None:
    talks = [Talk("sft", policy, max_new_tokens=8), Talk("\x1b[2Jbase", untrained, max_new_tokens=16)]
    page = io.StringIO()
    side_by_side(talks, "What is 3 plus 3?", Console(file=page, width=100, force_terminal=False))
    shown = page.getvalue()
    header = next(line for line in shown.splitlines() if "sft" in line)
    assert "\\x1b[2Jbase" in header and "\x1b[2J" not in shown
    assert talks[0].messages[1]["content"][:5] in shown and len(talks[1].messages) == 2


def test_a_control_character_of_an_answer_commands_nothing(
    policy: Sampler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatting, "stream", lambda *_: iter(["a", "a\x1b[2J", "b"]))
    lines = iter(["x", ""])
    converse([Talk("sft", policy)], lambda: next(lines))
    assert capsys.readouterr().out == "a\\x1b[2J\nb\n", "what was no beginning stays, and the whole follows"
