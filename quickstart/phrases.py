"""Puts an intent into words: as a question (register `chat`) or as the label of a saved query (register `note`)."""

import random

from quickstart.grammar import ABOVE, VALUES, Intent
from quickstart.words import (
    COLUMNS,
    COUNTERS,
    DIMENSIONS_EN,
    DIMENSIONS_KO,
    EN,
    KO,
    MEASURES_EN,
    MEASURES_KO,
    NOUNS,
    time_parts,
    value_word,
)

_ROWS_EN = {
    ("points", True): "most points",
    ("points", False): "fewest points",
    ("birth_year", True): "latest birth year",
    ("birth_year", False): "earliest birth year",
    ("price", True): "highest price",
    ("price", False): "lowest price",
    ("stock", True): "largest stock",
    ("stock", False): "smallest stock",
    ("amount", True): "highest amount",
    ("amount", False): "lowest amount",
}
_ROWS_KO = {
    ("points", True): "포인트가 가장 많은",
    ("points", False): "포인트가 가장 적은",
    ("birth_year", True): "나이가 가장 어린",
    ("birth_year", False): "나이가 가장 많은",
    ("price", True): "가장 비싼",
    ("price", False): "가장 싼",
    ("stock", True): "재고가 가장 많은",
    ("stock", False): "재고가 가장 적은",
    ("amount", True): "금액이 가장 큰",
    ("amount", False): "금액이 가장 작은",
}

_CHAT_EN = {
    "count": [
        "How many {np} are there?",
        "How many {np} do we have?",
        "Count the {np}.",
        "What is the {m}?",
        "I need the {m}.",
    ],
    "scalar": ["What is the {m}?", "Tell me the {m}.", "Could you work out the {m}?", "I would like to know the {m}."],
    "group": [
        "What is the {m} for each {dim}?",
        "Break down the {m} by {dim}.",
        "For each {dim}, show the {m}.",
        "Show me the {m} per {dim}.",
    ],
    "top": [
        "Which {n} {dims} have the {sup} {m}?",
        "Show the {n} {dims} with the {sup} {m}.",
        "By {m}, which are the {n} {sup} {dims}?",
    ],
    "top1": ["Which {dim} has the {sup} {m}?", "In which {dim} do we see the {sup} {m}?"],
    "having": ["Which {dims} have {cmp} {n} {np}?", "Show the {dims} where there are {cmp} {n} {np}."],
    "having units": [
        "Which {dims} sold {cmp} {n} units of {np}?",
        "Show the {dims} with {cmp} {n} units sold of {np}.",
    ],
    "rows": ["Which {n} {np} have the {by}?", "Show the {n} {np} with the {by}.", "Name the {n} {np} with the {by}."],
    "list": ["What are the names of {np}?", "Give me the names of {np}.", "Can you name the {np}?"],
    "share": ["What percentage of {np} are {part}?", "How many percent of {np} are {part}?"],
    "above": ["How many {np} have {cmp} average {col}?", "Count the {np} whose {col} is {cmp} average."],
    "without": ["How many {np} did not order anything in {n}?", "Count the {np} without an order in {n}."],
    "unsold": [
        "How many {np} were never ordered {n} or more at a time?",
        "Count the {np} that nobody bought {n} or more of at once.",
    ],
}
_NOTE_EN = {
    "scalar": [
        "{m}",
        "query for {m}",
        "report: {m}",
        "compute {m}",
        "query that returns the {m}",
        "used to find the {m}",
    ],
    "group": [
        "{m} by {dim}",
        "{m} grouped by {dim}",
        "{dim} table: {m}",
        "{m}, split over {dim}",
        "returns the {m} for every {dim}",
    ],
    "top": [
        "top {n} {dims} by {m}, {ord}",
        "{m} by {dim}, {ord}, limit {n}",
        "rank {dims}, {ord} {n}: {m}",
        "{n} {dims} of {sup} {m}",
        "finds the {n} {dims} where the {m} is {sup}",
    ],
    "having": ["{dims} with {m} {cmp} {n}", "{dims} filtered, {m} {cmp} {n}", "finds {dims} whose {m} is {cmp} {n}"],
    "rows": [
        "{np} by {col}, {ord}, limit {n}",
        "{ord} {n} by {col}: {np}",
        "{n} {np}, {by} first",
        "finds the {n} {np} that have the {by}",
    ],
    "list": ["names: {np}", "name list of {np}", "{np}, names only", "lists {np} by name"],
    "share": [
        "percent {part} among {np}",
        "share of {part}, {np}",
        "{part} ratio in {np}",
        "computes what part of {np} are {part}",
    ],
    "above": [
        "count of {np} with {col} {cmp} mean",
        "{np}, {col} {cmp} overall average, count",
        "counts {np} whose {col} is {cmp} the average",
    ],
    "without": [
        "count of {np} with no orders in {n}",
        "{np} inactive in {n}, count",
        "counts {np} who placed no order during {n}",
    ],
    "unsold": [
        "count of {np} never sold at quantity {n}+",
        "{np} without sales of {n} or more, count",
        "counts {np} never bought {n} or more at once",
    ],
}
_CHAT_KO = {
    "count": ["{np:은} 몇 {unit}인가요?", "{np:이} 모두 몇 {unit} 있나요?", "{m:을} 알려 주세요.", "{m:이} 궁금해요."],
    "scalar": ["{m:은} 얼마인가요?", "{m:을} 알려 주세요.", "{m:이} 얼마인지 궁금합니다.", "{m} 좀 계산해 줘."],
    "group": ["{dim}별 {m:을} 보여 주세요.", "{m:을} {dim}별로 나눠서 알려 줘.", "{dim}마다 {m:이} 얼마나 되나요?"],
    "top": ["{m:이} 가장 {sup} {dim} {n}개는 무엇인가요?", "{m:이} 제일 {sup} {dim} {n}개를 보여 줘."],
    "top1": ["{m:이} 가장 {sup} {dim:은} 무엇인가요?", "어느 {dim}에서 {m:이} 제일 {sup}가요?"],
    "having": ["{m:이} {n}{unit}{cmp} {dim:은} 무엇인가요?", "{m:이} {n}{unit}{cmp} {dim:을} 찾아 주세요."],
    "rows": ["{by} {np} {n}{unit:을} 보여 주세요.", "{np} 중에서 {by} {n}{unit:은}?"],
    "list": ["{np}의 이름을 알려 주세요.", "{np}에는 무엇이 있나요?", "{np} 이름 좀 보여 줘."],
    "share": ["{np} 중 {part} 비율은 몇 퍼센트인가요?", "{np} 가운데 {part:이} 차지하는 비율을 알려 줘."],
    "above": ["{col:이} 평균보다 {cmp} {np:은} 몇 {unit}인가요?", "평균보다 {col:이} {cmp} {np} 수를 알려 주세요."],
    "without": ["{n}년에 한 번도 주문하지 않은 {np:은} 몇 명인가요?", "{n}년에 주문이 없는 {np} 수를 알려 주세요."],
    "unsold": [
        "한 번에 {n}개 이상 팔린 적이 없는 {np:은} 몇 개인가요?",
        "{n}개 이상 주문된 적이 없는 {np} 수를 알려 줘.",
    ],
}
_NOTE_KO = {
    "scalar": ["{m}", "{m} 조회", "보고서: {m}", "{m} 계산", "{m:을} 구하는 쿼리", "{m:을} 조회한다"],
    "group": ["{dim}별 {m}", "{m} ({dim} 기준)", "{dim} 단위 {m} 집계", "{dim}마다 {m:을} 구하는 쿼리"],
    "top": [
        "{m} {ord} {n}개 {dim}",
        "{dim} 순위, {ord} {n}: {m}",
        "{m:이} {sup} {dim} {n}개",
        "{m:이} 가장 {sup} {dim} {n}개를 찾는 쿼리",
    ],
    "having": ["{m} {n} {cmp} {dim}", "{dim} 목록: {m} {n} {cmp}", "{m:이} {n}{unit}{cmp} {dim:을} 찾는 쿼리"],
    "rows": [
        "{np} {col} {ord} {n}",
        "{col} {ord} {n}: {np}",
        "{by} 순서로 {np} {n}{unit}",
        "{by} {np} {n}{unit:을} 찾는 쿼리",
    ],
    "list": ["{np} 이름 목록", "{np} 명단", "이름: {np}", "{np}의 이름을 모아 보는 쿼리"],
    "share": ["{np} 중 {part} 비중", "{part} 비율: {np}", "{np} {part} 퍼센트", "{np} 가운데 {part} 비율 계산"],
    "above": [
        "{np} 중 {col} 전체 평균 {cmp} 개수",
        "{col} 평균 {cmp} {np} 수",
        "{col:이} 평균보다 {cmp} {np:을} 세는 쿼리",
    ],
    "without": ["{n} 미주문 {np} 수", "{np} 중 {n}년 주문 없음, 개수", "{n}년에 주문 기록이 없는 {np:을} 세는 쿼리"],
    "unsold": [
        "{n}개 이상 판매 이력 없음, {np} 수",
        "{np} 중 {n}개 이상 미판매 개수",
        "한 번에 {n}개 이상 팔리지 않은 {np:을} 세는 쿼리",
    ],
}
_JOSA = {"은": ("은", "는"), "이": ("이", "가"), "을": ("을", "를"), "로": ("으로", "로")}


class _Korean(str):
    """A word whose format spec is the particle that follows it, chosen by its last consonant."""

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        last = (ord(self[-1]) - 0xAC00) % 28 if "가" <= self[-1] <= "힣" else 0
        return f"{self}{_JOSA[spec][0 if last and (spec, last) != ('로', 8) else 1]}"


def _filter_words(entity: str, field: str, value: object, lang: str, register: str, rng: random.Random) -> str:
    forms = KO if lang == "ko" else EN
    form = rng.choice(forms.get(f"{entity} {field}", forms[field])[register])
    if isinstance(value, tuple):
        return form.format(*time_parts(field, value))
    if field.endswith(("_over", "_under")) and isinstance(value, int) and value >= 10000 and rng.random() < 0.4:
        if lang == "en":
            return form.format(f"{value:,}")
        return form.format(f"{value // 10000}만 " if value % 10000 == 0 and "{}원" in form else f"{value:,}")
    return form.format(_Korean(value_word(value, lang)))


def _noun_phrase(intent: Intent, lang: str, register: str, rng: random.Random) -> str:
    noun = NOUNS[lang][intent.entity]
    words = [_filter_words(intent.entity, f, v, lang, register, rng) for f, v in intent.filters]
    if lang == "ko":
        if register == "note" and rng.random() < 0.4:
            return ", ".join([noun, *words])
        # In a question the time of an order comes first, or a short label would swallow it.
        if register == "chat":
            words.sort(key=lambda w: " " not in w)
        else:
            rng.shuffle(words)
        return " ".join([*words, noun])
    before = [w[1:] for w in words if w.startswith("-")]
    after = [w for w in words if not w.startswith("-")]
    if register == "note":
        rng.shuffle(after)
        if rng.random() < 0.4:
            return ", ".join([noun, *before, *after])
    return " ".join([*before, noun, *after])


def say(intent: Intent, lang: str, register: str, rng: random.Random) -> str:
    """One wording of an intent; `register` is `chat` (a question) or `note` (the label of a saved query)."""
    ko, chat = lang == "ko", register == "chat"
    # Half of the notes are written out: framed like notes, but with the noun phrases that people speak in.
    words = "chat" if chat or rng.random() < 0.5 else "note"
    np = _noun_phrase(intent, lang, words, rng)
    forms = (_CHAT_KO if ko else _CHAT_EN) if chat else (_NOTE_KO if ko else _NOTE_EN)
    how, _, column = intent.what.partition(" ")
    column = COLUMNS[lang].get(column or how, "")
    measure = (MEASURES_KO if ko else MEASURES_EN).get(how)
    m = rng.choice(measure[words]).format(np=_Korean(np), col=column) if measure else ""
    key = intent.kind
    if chat and key == "scalar" and how == "count":
        key = "count"
    if chat and key == "top" and intent.n == 1:
        key = "top1"
    if chat and not ko and key == "having" and how == "units":
        key = "having units"
    dim = DIMENSIONS_KO.get(intent.dim, "") if ko else DIMENSIONS_EN.get(intent.dim, ("", ""))[0]
    fields = {
        "np": np,
        "m": m,
        "col": column,
        "dim": dim,
        "n": str(intent.n),
        "unit": COUNTERS[intent.entity],
        "dims": DIMENSIONS_EN.get(intent.dim, ("", ""))[1],
        "part": "",
        "by": "",
        "cmp": "",
        "sup": "",
        "ord": "",
    }
    if intent.kind == "share":
        fields["part"] = _part(intent, lang, words, rng)
    if intent.kind == "rows":
        fields["by"] = (_ROWS_KO if ko else _ROWS_EN)[(intent.what, intent.high)]
    if intent.kind == "above" and not column:
        fields["col"] = COLUMNS[lang][ABOVE[intent.entity]]
    high = intent.high
    fields["sup"] = ("높은" if high else "낮은") if ko else ("highest" if high else "lowest")
    fields["ord"] = rng.choice(
        (("상위", "내림차순") if high else ("하위", "오름차순"))
        if ko
        else (("descending", "largest") if high else ("ascending", "smallest"))
    )
    fields["cmp"] = _compare(intent, ko, words == "chat")
    return rng.choice(forms[key]).format(**{k: _Korean(v) for k, v in fields.items()})


def _compare(intent: Intent, ko: bool, chat: bool) -> str:
    if intent.kind == "above":
        if chat:
            return ("높은" if intent.high else "낮은") if ko else ("above" if intent.high else "below")
        return ("초과" if intent.high else "미만") if ko else ("over" if intent.high else "under")
    if chat:
        return ("보다 많은" if intent.high else "보다 적은") if ko else ("more than" if intent.high else "fewer than")
    return ("초과" if intent.high else "미만") if ko else (">" if intent.high else "<")


def _part(intent: Intent, lang: str, register: str, rng: random.Random) -> str:
    """What a share is the share of: a value of a field, said alone."""
    words = _filter_words(intent.entity, intent.what, VALUES[intent.what][intent.n], lang, register, rng).removeprefix(
        "-"
    )
    return f"{words} {NOUNS['ko'][intent.entity]}" if lang == "ko" and register == "chat" else words
