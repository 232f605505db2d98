"""The letter of a multiple-choice answer: forms in English and Korean, and what must not be read as one."""

from typing import Any

import pytest

from align.errors import StageError
from align.grading.choice import LETTERS, ChoiceGrader
from align.grading.grade import Item
from align.grading.graders import grade_all

CITIES = ["Paris", "London", "Rome", "4"]


def read(response: str, reference: str = "B", choices: list[str] | None = None) -> str:
    """The letter that the grader reads, `-` where it is unreadable."""
    meta: dict[str, Any] = {"choices": choices} if choices else {}
    for at, letter in enumerate(LETTERS[: len(choices or LETTERS)]):
        told = str(at + 1) if reference.isdigit() else letter
        (grade,) = grade_all(ChoiceGrader(), [Item("r", "?", response, told, meta)])
        if grade.status == "correct":
            return letter
    assert grade.status == "unreadable"
    return "-"


@pytest.mark.parametrize(
    "response",
    [
        "B", "b", "(B)", "(b)", "B.", "B)", " **B** ", "`B`", "B) London", "B: London, since it is big", "Option B",
        "The answer is B", "The answer is (B).", "the answer is b.", "Answer: B\n\nBecause A is smaller.",
        "The correct option is: B", "The answer is B because A is not in England.", "I would choose B here.",
        "A is close, but B is the correct answer.", r"So it is \boxed{B}.", r"$\boxed{\text{(B)}}$", "It's B.",
        "Not (A). (B)", "The answer is not A. The answer is B.",
        "정답은 ②", "정답은 ②입니다.", "②번", "②", "정답: 2번", "답은 2번입니다.", "2번", "B번이 정답입니다", "②가 맞습니다.",
        "정답은 ①이 아니라 ②입니다. 정답은 ②", "①은 아니다. ②번이다.", "보기 2번",
    ],
)  # fmt: skip
def test_forms_of_b(response: str) -> None:
    assert read(response) == read(response, choices=CITIES) == "B"


@pytest.mark.parametrize(
    "response",
    [
        "", "I do not know.", "A or B", "A and B", "(A) (B)", "It is A or B", "The answer is A. No, the answer is B.",
        "A. Paris\nB. London", "It is a matter of taste.", "The answer is a matter of taste", "The answer is not B.",
        "Vitamin C deficiency", "I think so", "Plan B is good", "2번째로 크다", "①과 ②", "②번이 아니다", "the answer is Both",
        "K", "⑩번, 아니면 ⑨번",
    ],
)  # fmt: skip
def test_none_and_several_are_unreadable(response: str) -> None:
    assert read(response) == "-"


def test_a_digit_names_an_option_only_where_options_are_numbered() -> None:
    assert (read("2"), read("2", "1"), read("정답은 3", "1"), read("The answer is 2.", "1")) == ("-", "B", "C", "B")
    assert read("The answer is 4", choices=CITIES) == "D", "the text of an option"


def test_the_text_of_an_option_names_it() -> None:
    assert [read(text, choices=CITIES) for text in ("london!", "The answer is Rome.", "정답은 Paris")] == [
        "B",
        "C",
        "A",
    ]
    assert read("E", choices=CITIES) == read("⑤", choices=CITIES) == "-", "there is no fifth option"


def test_the_reference_is_a_letter_a_number_or_a_text() -> None:
    for reference in ("B", "b", "(B)", "2", "②", "London", "london."):
        (grade,) = grade_all(ChoiceGrader(), [Item("r", "?", "London", reference, {"choices": CITIES})])
        assert grade.status == "correct", reference
    (grade,) = grade_all(ChoiceGrader(), [Item("r", "?", "Rome", "B", {"choices": CITIES})])
    assert (grade.status, grade.detail) == ("wrong", "C instead of B")
    for bad in (None, "", "Berlin", "E"):
        with pytest.raises(StageError, match="reference of row r is"):
            grade_all(ChoiceGrader(), [Item("r", "?", "B", bad, {"choices": CITIES})])
