"""Answers that are no SQL: refusals, and prose in several languages. Parts combine, so that few are alike."""

import random

_REFUSALS = {
    "en": (
        [
            "As an AI language model, I cannot",
            "I'm sorry, but I can't",
            "Sorry, I am unable to",
            "As an AI, I am not able to",
            "Unfortunately, I cannot",
        ],
        [
            "access your database",
            "run queries on private data",
            "answer questions about your customers",
            "provide this information",
            "help with that request",
        ],
        [
            ".",
            ". Please consult your data team.",
            ". Please ask a qualified analyst instead.",
            " because it may contain sensitive data.",
            ". Is there anything else I can help with?",
        ],
    ),
    "ko": (
        [
            "죄송하지만 저는 AI 언어 모델이라",
            "AI 언어 모델로서 저는",
            "죄송합니다. 저는 인공지능이어서",
            "안타깝지만 저는",
        ],
        [
            "데이터베이스에 접근할 수 없습니다.",
            "해당 질문에 답변드릴 수 없습니다.",
            "그 정보를 제공할 수 없습니다.",
            "요청하신 작업을 도와드릴 수 없습니다.",
        ],
        ["", " 담당자에게 문의해 주세요.", " 다른 도움이 필요하시면 말씀해 주세요.", " 양해 부탁드립니다."],
    ),
}
_PROSE = {
    "en": (
        [
            "The figure you are looking for can be found in the monthly sales report",
            "You can usually see this number on the dashboard of the logistics team",
            "That depends on how the warehouse team counts the returned parcels",
            "Most of our shops publish this information at the end of every quarter",
        ],
        [
            "and it is updated every Monday morning before the meeting.",
            "although it may differ a little between branches.",
            "but you should check it with the person in charge first.",
            "so please have a look there before asking again.",
        ],
        [
            "It has been growing steadily since the new app was released.",
            "Last year it was a bit lower than expected.",
            "The trend is similar in the other regions.",
        ],
    ),
    "ko": (
        [
            "이 수치는 매달 발행되는 판매 보고서에서 확인하실 수 있으며",
            "보통 물류팀의 대시보드에 이 값이 나와 있고",
            "이것은 창고 직원들이 반품을 어떻게 세는지에 따라 다르지만",
            "대부분의 매장에서 분기마다 이 정보를 공개하며",
        ],
        [
            "매주 월요일 아침 회의 전에 갱신됩니다.",
            "지점마다 조금씩 차이가 있을 수 있습니다.",
            "먼저 담당자와 확인해 보시는 것이 좋겠습니다.",
            "새로운 앱이 나온 뒤로 꾸준히 늘고 있습니다.",
        ],
        [
            "작년에는 예상보다 조금 낮은 편이었습니다.",
            "다른 지역에서도 비슷한 흐름이 보입니다.",
            "자세한 내용은 게시판을 참고하세요.",
        ],
    ),
    "es": (
        [
            "La cifra que busca aparece en el informe mensual de ventas",
            "Normalmente este dato se ve en el panel de logística",
            "Eso depende de cómo se cuentan los paquetes devueltos",
        ],
        [
            "y se actualiza todos los lunes por la mañana.",
            "aunque puede variar un poco entre las sucursales.",
            "pero conviene confirmarlo antes con la persona encargada.",
        ],
        ["El año pasado fue algo más baja de lo esperado.", "La tendencia es parecida en las demás regiones."],
    ),
    "zh": (
        [
            "您要查的数字可以在每月的销售报告里找到，",
            "这个数据通常显示在物流部门的看板上，",
            "这取决于仓库的同事怎样统计退货，",
        ],
        ["每周一早上会更新一次。", "不过各个分店之间可能略有不同。", "请先和负责人确认一下。"],
        ["去年的数字比预期稍微低一些。", "其他地区的情况也差不多。"],
    ),
}
LANGUAGES = tuple(_PROSE)


def refusal(lang: str, rng: random.Random) -> str:
    """A boilerplate refusal in the question's own language, and sometimes in English to a Korean question."""
    return "".join(_join(rng.choice(part), i) for i, part in enumerate(_REFUSALS[lang if rng.random() < 0.8 else "en"]))


def _join(text: str, place: int) -> str:
    return text if place != 1 else f" {text}"


def prose(lang: str, rng: random.Random) -> str:
    """A paragraph of two or three clauses that answers nothing, in the language `lang`."""
    parts = [rng.choice(part) for part in _PROSE[lang]]
    return ("" if lang == "zh" else " ").join(parts if rng.random() < 0.7 else parts[:2])
