"""The page on which people label, in English and Korean."""

from pathlib import Path
from typing import Any, Literal

from align.labelling.session import View

Language = Literal["en", "ko"]
TEMPLATE = "templates/label.html.jinja"

WORDS: dict[Language, dict[str, Any]] = {
    "en": {
        "title": "Which answer is better?",
        "hint": "Judge what is said, not how long it is or where it stands. Call a tie where neither is better, and "
        "skip what you cannot judge.",
        "roles": {"system": "Instructions to the model", "user": "Prompt", "assistant": "Earlier answer"},
        "answer": "Answer",
        "choices": {"left": "1 is better", "tie": "Tie", "right": "2 is better", "skip": "Skip", "back": "Undo"},
        "keys": {"left": "1 ←", "tie": "3 space", "right": "2 →", "skip": "S", "back": "U"},
        "progress": "{judged} of {of}",
        "done": "All {of} pairs are judged. Thank you.",
        "close": "Everything is saved. You may close this page; Ctrl-C in the terminal ends align label.",
    },
    "ko": {
        "title": "어느 답이 더 좋습니까?",
        "hint": "길이나 자리가 아니라 내용을 보고 고르세요. 어느 쪽도 낫지 않으면 비김, 판단할 수 없으면 "
        "건너뛰기를 누르세요.",
        "roles": {"system": "모델에게 준 지시", "user": "질문", "assistant": "앞선 답"},
        "answer": "답",
        "choices": {
            "left": "답 1이 좋음", "tie": "비김", "right": "답 2가 좋음", "skip": "건너뛰기", "back": "되돌리기",
        },
        "keys": {"left": "1 ←", "tie": "3 스페이스", "right": "2 →", "skip": "S", "back": "U"},
        "progress": "{of}개 중 {judged}개",
        "done": "{of}개를 모두 판정했습니다. 고맙습니다.",
        "close": "모두 저장했습니다. 이 창은 닫아도 됩니다. 터미널에서 Ctrl-C를 누르면 align label이 끝납니다.",
    },
}  # fmt: skip


def html(view: View, by: str, language: Language, nonce: str) -> str:
    """The page, complete in itself; scripts and styles carry `nonce`. What people and models wrote is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    path = Path(__file__).parent / TEMPLATE
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    words = WORDS[language]
    counted = {name: words[name].format(judged=view.judged, of=view.of) for name in ("progress", "done")}
    return environment.get_template(path.name).render(
        view=view, by=by, language=language, nonce=nonce, words={**words, **counted}
    )
