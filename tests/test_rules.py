"""The rules on form and language: what each drops, and what looks alike and stays."""

import json
from typing import Any

import pytest
from pools import dropped, pool, row

from align.models.base import BaseConfig
from align.rules.form import Broken, Echo, Empty, Length, Repetition, Truncated
from align.rules.language import Language
from align.rules.personal import PersonalData, personal, resident
from align.rules.texts import Mojibake, Refusal, misread

LONG = "The committee met on Monday to discuss the budget. It was decided that the museum would "
ES = "Normalmente este dato se ve en el panel de logística y se actualiza todos los lunes por la mañana."
DE = "Das hängt davon ab, wie die Kollegen im Lager die Pakete zählen, und es wird jeden Montag neu berechnet."
EN = "You can usually see this number in the monthly report of the team, and it is updated every week."
KO = "이 수치는 매달 발행되는 판매 보고서에서 확인하실 수 있으며 매주 월요일에 갱신됩니다."
ZH = "这个数据通常显示在物流部门的看板上，每周一早上会更新一次。"
JA = "この数値は毎月発行される販売報告書で確認でき、毎週月曜日に更新されます。"

DROPS: list[tuple[Any, str, str | None]] = [
    (Empty(), "Hi?", ""), (Empty(), "Hi?", None), (Empty(), "Hi?", " \n"), (Empty(), "Hi?", "..."), (Empty(), " ", "x"),
    (Truncated(), "Tell me.", LONG + "close on"), (Truncated(), "Tell me.", "First we take the eggs and the"),
    (Truncated(), "Tell me.", "It needs eggs, milk,"), (Truncated(), "Tell me.", "It is called f("),
    (Truncated(), "말해 줘", "위원회는 월요일에 모였습니다. 예산을 논의한 다음에 박물관을"),
    (Truncated(), "말해 줘", "위원회는 월요일에 모여서 예산을 논의했습니다. 그다음에는 박물관이 문을 닫는 시간"),
    (Truncated(), "Tell me.", LONG + "close. Then"), (Truncated(), "Tell me.", LONG + "close. It could"),
    (Truncated(), "Tell me.", LONG + "close and that visitors would"),
    (Truncated(), "Tell me.", f"{LONG}close.\n{LONG}open again.\nBut the people of the town did not know what"),
    (Truncated(ending=";"), "Count.", "SELECT COUNT(*) FROM a"),
    (Refusal(), "Count.", "As an AI language model, I cannot access your database."),
    (Refusal(), "Count.", "I'm sorry, but I can't help with that request."),
    (Refusal(), "Count.", "I cannot provide this information."),
    (Refusal(), "Count.", "Unfortunately, I am not able to browse the internet."),
    (Refusal(), "Draw.", "<nooutput>"), (Refusal(), "Draw.", "This task cannot be performed by a GPT model."),
    (Refusal(), "세어 줘", "죄송하지만 저는 AI 언어 모델이라 답변드릴 수 없습니다."),
    (Refusal(), "세어 줘", "인공지능으로서 저는 감정이 없습니다."),
    (Refusal(), "세어 줘", "죄송합니다만 요청하신 작업을 도와드릴 수 없습니다."),
    (Refusal(), "Draw.", "<noinput>\n<output image>"), (Refusal(), "Draw.", "![a cat](https://pics.example/cat.jpg)"),
    (Repetition(), "Go.", LONG + "close. " + "It is the last day of it. " * 3 + "It is the"),
    (Repetition(), "Go.", "ha ! " * 40), (Mojibake(), "Hi?", "¾È³çÇÏ¼¼¿ä"), (Language(), "Where is it?", "잘 모르겠어요."),
    (Echo(), "What is the capital of France, and which is the one of Spain?", "Hm. What is the capital of France, and which is the one of Spain?"),
    (Repetition(), "Go.", "I like it a lot and you do too. " * 12), (Repetition(), "Go.", "하하하 정말 좋아요 " * 12),
    (Echo(), "What is the capital of France?", "What is the capital of France"),
    (Echo(), "프랑스의 수도는 어디인가요?", "프랑스의 수도는 어디인가요?"),
    (Broken(), "Code.", "Look:\n```python\nx = 1\n"), (Broken(), "JSON.", '{"a": 1, "b": }'),
    (Broken(), "JSON.", '{"a": [1, 2], "b": {"c":'), (Broken(), "Code.", "def f(x):\n    return g(x, (1"),
    (Broken(), "Code.", "public class A {\n  void f() {\n  }"), (Broken(), "Count.", "SELECT COUNT(* FROM a"),
    (Broken(), "Page.", "<html>\n<body>\n<p>Hello</p>"),
    (Broken(), "JSON.", 'Here:\n```json\n{"a": 1,}\n```'),
    (Mojibake(), "Hi?", "I donâ€™t know."), (Mojibake(), "Hi?", "CafÃ© au lait"), (Mojibake(), "Hi?", "ì•ˆë…•"),
    (Mojibake(), "Hi?", "a\x07b"), (Mojibake(), "H\ufffd?", "fine"),
    (Language(), "What is the total revenue of last year?", ES), (Language(), "How many are sold?", KO),
    (Language(), "작년 총매출은 얼마인가요?", EN), (Language(), "작년 총매출은 얼마인가요?", ZH),
    (Language(), "去年的总收入是多少？请告诉我", JA), (Language(), "What do the orders of the year cost in total?", DE),
    (Language(), ES, EN),
    (Language(), "Translate into Spanish: You can see this number in the report.", EN),
    (Language(), "Answer in Korean, please: where can I see this number?", EN),
    (Language(), "이 문장을 영어로 번역해 주세요: " + KO, KO), (Language(), "일본어로 대답해 줘. 어디에서 볼 수 있어?", KO),
    (Language(), "Translate the text from German to French.\n" + DE, DE),
]  # fmt: skip

STAYS: list[tuple[Any, str, str | None]] = [
    (Empty(), "1+1?", "2"), (Empty(), "Wink.", ";)"),
    (Truncated(), "Tell me.", LONG + "close."), (Truncated(), "Name it.", "Paris"),
    (Truncated(), "List.", "1. Take the eggs\n2. Beat them\n3. Find someone to share them with"),
    (Truncated(), "Write.", f"{LONG}close. Sincerely yours"), (Truncated(), "Write.", f"{LONG}close. Jane Doe"),
    (Truncated(), "Title.", "What We Have Been Looking For"), (Truncated(), "Poem.", "The leaves, they fall,\nas we recall"),
    (Truncated(), "Write.", f"{LONG}close.\n{LONG}open again.\nYour friend"), (Truncated(), "List.", "- What to look for"),
    (Truncated(), "Post.", "We have a sale today. Come and have a look #sale"), (Truncated(), "Code.", "for (x of y) {\n}"),
    (Truncated(), "말해 줘", "장갑 하나 사셔야겠어요,"), (Truncated(), "말해 줘", "위원회가 모였습니다. 예산을 논의했습니다"),
    (Truncated(ending=";"), "Count.", "SELECT 1;\n"),
    (Refusal(), "Apologize.", "I'm sorry that I cannot come to the meeting."),
    (Refusal(), "What are you?", "I am an AI language model."), (Refusal(), "Explain chatbots.", "As an AI, a chatbot is"),
    (Refusal(), "Riddle.", "What has legs but cannot walk? A table."), (Refusal(), "Joke.", "I can't stand Mondays."),
    (Refusal(), "사과해 줘", "늦어서 죄송합니다. 다시는 그러지 않겠습니다."), (Refusal(), "챗봇이 뭐야?", "AI로서 저는 챗봇이에요."),
    (Refusal(), "Explain why this is no good instruction.", "It asks for an action and cannot be done by a GPT model."),
    (Refusal(), "Embed it.", "Use ![a cat](https://pics.example/cat.jpg) in the page."),
    (Repetition(), "Truth table.", "P Q R | v\n" + "T T F | T\nT F F | T\nF T F | F\nT T F | T\n" * 3),
    (Repetition(), "Regex.", r"^[a-zA-Z0-9.!#$%&'*+/=?^_{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9])*$"),
    (Repetition(), "Go.", LONG + "close. Go, go, go, go, go!"), (Language(), "PPL 심하네", "눈살이 찌푸려지죠."),
    (Repetition(), "Go.", "no no no"), (Repetition(), "Go.", " ".join(f"word{i} and so on" for i in range(12))),
    (Echo(), "Hello!", "Hello!"), (Echo(), "Correct: she go home", "She goes home."),
    (Echo(), "What is the capital of France?", "What is the capital of France? It is the city of Paris."),
    (Broken(), "Code.", "```python\nx = 1\n```"), (Broken(), "JSON.", '{"a": [1, 2]}'), (Broken(), "Set.", "{1, 2, 3}"),
    (Broken(), "Page.", "<p>Hello<br>there</p>"),
    (Broken(), "Code.", "def f(x):  # :( no\n    return '('"), (Broken(), "Count.", "SELECT COUNT(*) FROM a"),
    (Broken(), "Code.", "for example (as said before:\nthis is prose"), (Broken(), "Smile.", "It is fine :("),
    (Mojibake(), "Hi?", "Café — “naïve” 안녕 🙂 é—"), (Mojibake(), "Hi?", "tab\tand\r\nline"),
    (Language(), "작년 총매출은 얼마인가요?", "SELECT SUM(amount) FROM orders WHERE year(ordered) = 2021;"),
    (Language(), "작년 총매출은 얼마인가요?", "SELCT name FORM products ORDER BY price DESC LIMIT 4;"),
    (Language(), "Translate into Spanish: You can see this number in the report.", ES),
    (Language(), "이 문장을 영어로 번역해 주세요: " + KO, EN), (Language(), "Translate into Korean: " + EN, KO),
    (Language(), "Translate from German to French.\n" + DE, "Vous pouvez voir ce nombre dans le rapport mensuel de la"),
    (Language(), "Translate into Japanese: It is fine.", "いいです。 (It is fine.)"), (Language(), "Translate to Spanish: ox", "buey"),
    (Language(), "How would a translator render it, and what do I reply to Korean friends?", EN), (Language(), "Answer.", ES), (Language(), EN, EN), (Language(), KO, KO),
    (Language(), "Which restaurants in the city of Montreal are the best?", "L'Express\nLes 400 Coups\nPlats du Chef\nLa Chronique"),
    (Language(), "이 글을 요약해 줘: " + EN, "보고서에서 볼 수 있는 수치입니다."),
]  # fmt: skip

REFUSED = """I'm sorry, but I cannot fulfill that request.
My apologies, but I cannot complete this task.
I’m sorry, but I can’t assist with that.
I’m unable to help with that.
I won't be able to help you with this.
I must decline to answer that.
I don't have enough information to answer this question.
It is not appropriate for me to discuss that topic.
I cannot in good conscience help with this.
I'm sorry, I don't understand the question.
As a large language model trained by a company, I have no opinions.
I'm just a language model, so I can't help you with that.
죄송합니다. 이해하지 못했습니다.
미안하지만 그건 할 수 없어요.
요청하신 내용은 제공할 수 없습니다.
저는 그 질문에 답할 수 없습니다.
답변을 드릴 수 없습니다.
저는 언어 모델일 뿐이라 개인적인 경험이 없습니다.""".splitlines()
ANSWERED = """I don't see any particular reason to think so.
I cannot recommend this book highly enough, and I will do so again.
I won't go there again, the food was cold.
Sorry seems to be the hardest word.
때론 이해할 수 없는 일이 많아요.
도움이 필요하면 언제든 말씀해 주세요.
이 문제는 한 번에 답할 수 있습니다. 답은 3입니다.""".splitlines()


def test_refusals_and_what_only_sounds_like_one() -> None:
    found = dropped(Refusal(), *(("Tell me.", text) for text in REFUSED + ANSWERED))
    assert set(found) == set(range(len(REFUSED)))


@pytest.mark.parametrize("rule, prompt, response", DROPS, ids=lambda v: getattr(v, "rule", None))
def test_drops(rule: Any, prompt: str, response: str | None) -> None:
    found = dropped(rule, (prompt, response))
    assert 0 in found and found[0] and json.dumps(found[0])


@pytest.mark.parametrize("rule, prompt, response", STAYS, ids=lambda v: getattr(v, "rule", None))
def test_stays(rule: Any, prompt: str, response: str | None) -> None:
    assert dropped(rule, (prompt, response)) == {}


def test_length_in_characters() -> None:
    rule = Length(unit="characters", min_prompt=2, max_prompt=5, min_response=2, max_response=5)
    found = dropped(rule, ("ab", "abc"), ("a", "abc"), ("abcdef", "abc"), ("abc", "a"), ("abc", "한국어입니다"))
    assert {at: e["field"] for at, e in found.items()} == {1: "prompt", 2: "prompt", 3: "response", 4: "response"}
    assert found[4] == {"field": "response", "characters": 6, "min": 2, "max": 5}


def test_length_in_tokens(base: BaseConfig) -> None:
    """Only rows that might be out of bounds are counted, and those exactly."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    texts = (
        ["word " * n for n in (1, 5, 10, 20, 40)] + ["가나다라" * n for n in (1, 2, 5, 10)] + ["supercalifragilistic"]
    )
    sizes = [len(tokenizer(t)["input_ids"]) for t in texts]
    for low, high in ((1, 30), (5, 40), (12, 60), (60, 80)):
        found = dropped(Length(min_response=low, max_response=high), *(("Hi", t) for t in texts), base=base)
        assert {at: e["tokens"] for at, e in found.items()} == {
            i: n for i, n in enumerate(sizes) if not low <= n <= high
        }


def test_what_mojibake_reads() -> None:
    assert misread("It isnâ€™t") == {"text": "â€™", "reads": "’"}
    assert misread("bell\x07") == {"character": "U+0007"}
    assert misread("plain") is None


FOUND = {
    "email": ["Write to kim.min-su@naver.co.kr.", "<a.b+c@mail.org>"],
    "phone": ["Call 010-1234-5678 now", "02-345-6789", "+82 10-9876-5432", "(415) 867-5309", "01098765432", "+49 30 901820"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "card 378282246310005."],
    "rrn": ["900101-1234568", "No 9001011234568."],
}  # fmt: skip
NOT_FOUND = ["user@example.com", "4111 1111 1111 1112", "900101-1234567", "901301-1234568", "in 1999-2000-2001 there", "555-0123",
             "1234567890123456", "SELECT 12345678901234", "3.14159265358979", "v1.2.3@latest", "0000 0000 0000 0000"]  # fmt: skip


@pytest.mark.parametrize("kind, text", [(k, t) for k, texts in FOUND.items() for t in texts])
def test_personal_data_is_found(kind: str, text: str) -> None:
    assert [k for k, _, _ in personal(text, tuple(FOUND))] == [kind]
    assert dropped(PersonalData(), ("Hi?", text)) == {0: {"kinds": [kind]}}


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_personal_data(text: str) -> None:
    assert personal(text, tuple(FOUND)) == []


def test_checksums() -> None:
    assert resident("9001011234568") and not resident("9001011234567")
    assert resident("9001011980008"), "a place of birth that was never assigned counts all the same"
    assert not resident("9902291234567"), "1999 had no 29 February"


def test_masking_keeps_the_row_and_says_so() -> None:
    turns = [{"role": "system", "content": "Mail a@b.org"}, {"role": "user", "content": "I am kim@naver.com"}]
    rows = pool(
        [("Hi", "Call 010-1234-5678 or kim@naver.com!"), row("I am kim@naver.com", "ok", messages=turns), ("Hi", "ok")]
    )
    assert dict(PersonalData(action="mask").drops(rows)) == {}
    assert rows.text("response", 0) == "Call [phone] or [email]!" and rows.text("prompt", 1) == "I am [email]"
    assert rows.turns(1) == ["Mail [email]", "I am [email]"] and rows.turns(2) == ["Hi"]
    assert rows.remarks == {0: {"masked": ["email", "phone"]}, 1: {"masked": ["email"]}} and rows.notes == {"masked": 2}
