"""The rules on prompts: what they point at without showing it, and placeholders where there is no input."""

import pytest
from pools import dropped, pool, row

from align.rules.prompts import Placeholder, Unseen

UNSEEN = {
    "link": ["Summarize the article.\n\nhttps://news.example/a-story", "Sum up this article: https://news.example/x",
             "Read the page and describe it.\n\nWebsite URL: https://news.example/",
             "다음 기사를 요약해 줘\nhttps://news.example/ko"],
    "picture": ["Describe the painting.\n![img](https://pics.example/1.jpg)",
                'Classify the shape.\n\n<img src="https://pics.example/1.png" alt="shape">'],
    "attachment": ["Crop the photo to a square.\n\n<image attached>", "How would you improve this design?\n\n[Image of a logo]"],
    "text": ["Summarize the following article.", "Complete the following haiku", "Is the sentence below correct?",
             "Write a caption for this photo.", "What is the creature in the photo?", "다음 문장을 영어로 번역해 줘.",
             "주어진 표를 설명하세요"],
}  # fmt: skip
SEEN = [
    "Summarize the following article: Prices rose by a tenth in May.", "Summarize the following article.\n\nPrices rose.",
    "Write the HTML code of a link.\n\nhttps://www.example.com", "Create a bookmark for a web page\nhttps://news.example",
    "Which regex finds the link in this text?\nSee https://news.example/a for more of it.",
    "Describe what https://news.example does in general, as far as it is known to everybody who reads news.",
    "Write a caption.\n\n[Image of two figures in a boat on a lake under a yellow sky]",
    "Is the following sentence true? Humans can breathe under water.", 'Is the following word a noun: "cat"?',
    "Write a program that reverses a given string.", "Design an algorithm to sort the given array [3, 1, 2].",
    "다음 달 여행 계획을 세워 줘.", "다음 문장을 번역해 줘: 안녕하세요.", "이 글을 끝으로 잊고 싶어", "What is in the photo album of a family?",
]  # fmt: skip


@pytest.mark.parametrize("kind, prompt", [(k, p) for k, prompts in UNSEEN.items() for p in prompts])
def test_what_is_not_shown(kind: str, prompt: str) -> None:
    found = dropped(Unseen(), (prompt, "It is a fine piece of work."))
    assert found[0]["missing"] == kind and found[0]["text"]


@pytest.mark.parametrize("prompt", SEEN)
def test_what_is_shown_or_needs_no_showing(prompt: str) -> None:
    assert dropped(Unseen(), (prompt, "It is a fine piece of work.")) == {}


def test_an_earlier_turn_may_show_it() -> None:
    turns = [
        {"role": "system", "content": "Article: prices rose."},
        {"role": "user", "content": "Sum up the article above."},
    ]
    assert 0 in dropped(Unseen(), ("Sum up the article above.", "They rose."))
    assert dropped(Unseen(), row("Sum up the article above.", "They rose.", messages=turns)) == {}

    said = "Describe it.\nhttps://news.example/a"
    earlier = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": "I cannot."},
        {"role": "user", "content": "Why?"},
    ]
    assert 0 in dropped(Unseen(), (said, "It is fine."))
    assert dropped(Unseen(), row(f"user: {said}\n\nassistant: I cannot.\n\nuser: Why?", "So.", messages=earlier)) == {}


MARKS = [
    "Noinput",
    "<no input>",
    "No input needed.",
    "N/A",
    "\\<noinput\\>",
    '"<noinput>"',
    "[No Input]",
    "{\\noinput}",
]


@pytest.mark.parametrize("mark", MARKS)
def test_a_placeholder_is_taken_out_of_all_turns(mark: str) -> None:
    rows = pool([(f"Name a river.\n\n{mark}", "The Nile.")])
    assert dict(Placeholder().drops(rows)) == {}
    assert rows.text("prompt", 0) == "Name a river." and rows.turns(0) == ["Name a river."]
    assert rows.remarks[0] == {"removed": mark} and rows.notes == {"placeholders_removed": 1}
    assert dropped(Placeholder(action="drop"), (f"Name a river.\n\n{mark}", "The Nile.")) == {0: {"placeholder": mark}}


@pytest.mark.parametrize(
    "prompt", ["Noinput", "What does N/A mean?\nIs it n/a or N.A.?", "There was no input.\nAnd now?"]
)
def test_what_only_looks_like_a_placeholder(prompt: str) -> None:
    rows = pool([(prompt, "Fine.")])
    assert dict(Placeholder().drops(rows)) == {} and rows.text("prompt", 0) == prompt and not rows.remarks
