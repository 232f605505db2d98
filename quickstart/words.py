"""The words for filters, measures and dimensions, in English and Korean.

Every list has two registers: `chat`, as people ask, and `note`, as analysts label a saved query. The base model is
pretrained on notes only. A noun phrase is `before` + noun + `after` in English; in Korean every filter stands before the noun.
"""  # noqa: E501

from quickstart.world import BRANDS, CATEGORIES, CITIES, GENDERS, GRADES, PAYMENTS, STATUSES

Register = dict[str, list[str]]

_KO = {**CITIES, **GRADES, **GENDERS, **CATEGORIES, **BRANDS, **STATUSES, **PAYMENTS}
_EN = {
    "F": "female",
    "M": "male",
    "vip": "VIP",
    "shipping": "in-transit",
    "mobile": "mobile pay",
    "transfer": "bank transfer",
}
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
ORDINALS = ("first", "second", "third", "fourth")

# "-" in front marks an English phrase that stands before the noun.
EN: dict[str, Register] = {
    "c.city": {"chat": ["living in {}", "based in {}", "in {}"], "note": ["from {}", "city {}", "-{}", "at {}"]},
    "c.grade": {"chat": ["-{}", "with {} membership", "-{}-tier"], "note": ["-{} grade", "grade {}", "-{}"]},
    "c.gender": {"chat": ["-{}"], "note": ["-{}", "gender {}"]},
    "c.joined": {"chat": ["who signed up in {}", "who became members in {}"], "note": ["joined {}", "joined in {}"]},
    "c.born_before": {
        "chat": ["born before {}", "with a birth year before {}"],
        "note": ["born earlier than {}", "birth year under {}"],
    },
    "c.born_after": {
        "chat": ["born after {}", "with a birth year after {}"],
        "note": ["born later than {}", "birth year over {}"],
    },
    "c.points_over": {
        "chat": ["who have more than {} points", "with over {} points"],
        "note": ["points above {}", "having above {} points"],
    },
    "p.category": {"chat": ["in the {} category", "-{}"], "note": ["category {}", "of type {}", "-{}"]},
    "p.brand": {"chat": ["made by {}", "from the brand {}"], "note": ["brand {}", "of {} brand", "-{}"]},
    "p.price_over": {
        "chat": ["that cost more than {} won", "priced over {} won"],
        "note": ["price above {}", "above {} won"],
    },
    "p.price_under": {
        "chat": ["that cost less than {} won", "cheaper than {} won"],
        "note": ["price below {}", "below {} won"],
    },
    "p.stock_under": {
        "chat": ["with fewer than {} in stock", "with less than {} left"],
        "note": ["stock below {}", "stock under {}"],
    },
    "o.status": {"chat": ["-{}", "that are {}"], "note": ["status {}", "-{}"]},
    "o.payment": {"chat": ["paid by {}", "that were paid with {}"], "note": ["payment {}", "via {}", "-{}"]},
    "o.year": {"chat": ["placed in {}", "in {}"], "note": ["of {}", "year {}", "during {}"]},
    "o.month": {"chat": ["placed in {1} {0}", "in {1} {0}"], "note": ["of {1} {0}", "for {1} {0}", "{0}-{2:02d}"]},
    "o.quarter": {
        "chat": ["in the {1} quarter of {0}", "placed in Q{2} {0}"],
        "note": ["{0} Q{2}", "for quarter {2} of {0}", "{1} quarter {0}"],
    },
    "o.amount_over": {"chat": ["worth more than {} won", "over {} won"], "note": ["amount above {}", "above {} won"]},
    "o.amount_under": {"chat": ["worth less than {} won", "under {} won"], "note": ["amount below {}", "below {} won"]},
    "o.free": {"chat": ["with free delivery", "without a delivery fee"], "note": ["free shipping", "zero fee"]},
    "orders c.city": {
        "chat": ["from customers in {}", "by customers living in {}"],
        "note": ["from {}", "city {}", "-{}"],
    },
    "orders c.grade": {
        "chat": ["by {}-tier customers", "from customers with {} membership"],
        "note": ["grade {}", "-{} grade", "-{}"],
    },
    "orders c.gender": {"chat": ["by {} customers", "from {} customers"], "note": ["-{}", "gender {}"]},
    "items c.city": {
        "chat": ["sold to customers in {}", "bought in {}"],
        "note": ["from {}", "city {}", "-{}", "at {}"],
    },
    "items o.status": {"chat": ["in {} orders", "from {} orders"], "note": ["status {}", "-{}"]},
    "items o.year": {"chat": ["ordered in {}", "sold in {}"], "note": ["of {}", "year {}", "during {}"]},
    "items o.month": {
        "chat": ["ordered in {1} {0}", "sold in {1} {0}"],
        "note": ["of {1} {0}", "for {1} {0}", "{0}-{2:02d}"],
    },
    "items o.quarter": {
        "chat": ["ordered in the {1} quarter of {0}", "sold in Q{2} {0}"],
        "note": ["{0} Q{2}", "for quarter {2} of {0}", "{1} quarter {0}"],
    },
}
KO: dict[str, Register] = {
    "c.city": {"chat": ["{}에 사는", "{}에 거주하는", "{} 거주"], "note": ["{}", "{} 지역", "도시 {}"]},
    "c.grade": {"chat": ["{} 등급", "{} 등급인"], "note": ["{}", "등급 {}", "{} 회원"]},
    "c.gender": {"chat": ["{}"], "note": ["{}", "성별 {}"]},
    "c.joined": {"chat": ["{}년에 가입한", "{}년에 회원이 된"], "note": ["{} 가입", "가입 연도 {}"]},
    "c.born_before": {
        "chat": ["{}년 전에 태어난", "{}년 이전에 출생한"],
        "note": ["출생 {} 미만", "출생 연도 {} 이전"],
    },
    "c.born_after": {"chat": ["{}년 후에 태어난", "{}년 이후에 출생한"], "note": ["출생 {} 초과", "출생 연도 {} 이후"]},
    "c.points_over": {
        "chat": ["포인트가 {}점이 넘는", "{}포인트보다 많이 가진"],
        "note": ["포인트 {} 초과", "{}점 초과"],
    },
    "p.category": {"chat": ["{} 카테고리의", "{} 분류에 속한"], "note": ["{}", "분류 {}", "{} 품목"]},
    "p.brand": {"chat": ["{} 브랜드의", "{}에서 만든"], "note": ["브랜드 {}", "{} 상표", "{} 브랜드"]},
    "p.price_over": {"chat": ["가격이 {}원이 넘는", "{}원보다 비싼"], "note": ["가격 {} 초과", "{}원 초과"]},
    "p.price_under": {"chat": ["가격이 {}원이 안 되는", "{}원보다 싼"], "note": ["가격 {} 미만", "{}원 미만"]},
    "p.stock_under": {"chat": ["재고가 {}개보다 적은", "{}개도 안 남은"], "note": ["재고 {} 미만", "재고 {}개 미만"]},
    "o.status": {"chat": ["{}"], "note": ["{}", "상태 {}"]},
    "o.payment": {"chat": ["{:로} 결제한", "{:로} 계산한"], "note": ["{} 결제", "결제 수단 {}"]},
    "o.year": {"chat": ["{}년에 들어온", "{}년에 접수된"], "note": ["{}년", "{} 연도", "{}년도"]},
    "o.month": {"chat": ["{0}년 {2}월에 들어온", "{0}년 {2}월에 접수된"], "note": ["{0}년 {2}월", "{0}-{2:02d}"]},
    "o.quarter": {"chat": ["{0}년 {2}분기에 들어온", "{0}년 {2}분기에 접수된"], "note": ["{0}년 {2}분기", "{0} Q{2}"]},
    "o.amount_over": {"chat": ["{}원이 넘는", "금액이 {}원보다 큰"], "note": ["금액 {} 초과", "{}원 초과"]},
    "o.amount_under": {"chat": ["{}원이 안 되는", "금액이 {}원보다 작은"], "note": ["금액 {} 미만", "{}원 미만"]},
    "o.free": {"chat": ["배송비가 없는", "무료 배송된"], "note": ["무료 배송", "배송비 0"]},
    "orders c.city": {"chat": ["{}에 사는 고객의", "{} 고객이 한"], "note": ["{}", "{} 지역", "도시 {}"]},
    "orders c.grade": {"chat": ["{} 등급 고객의", "{} 등급인 고객이 한"], "note": ["{}", "등급 {}", "{} 회원"]},
    "orders c.gender": {"chat": ["{} 고객의", "{} 고객이 한"], "note": ["{}", "성별 {}"]},
    "items c.city": {"chat": ["{}에 사는 고객이 산", "{}에서 팔린"], "note": ["{}", "{} 지역", "도시 {}"]},
    "items o.status": {"chat": ["{} 주문의"], "note": ["{}", "상태 {}"]},
    "items o.year": {"chat": ["{}년에 팔린", "{}년에 주문된"], "note": ["{}년", "{} 연도", "{}년도"]},
    "items o.month": {"chat": ["{0}년 {2}월에 팔린", "{0}년 {2}월에 주문된"], "note": ["{0}년 {2}월", "{0}-{2:02d}"]},
    "items o.quarter": {
        "chat": ["{0}년 {2}분기에 팔린", "{0}년 {2}분기에 주문된"],
        "note": ["{0}년 {2}분기", "{0} Q{2}"],
    },
}

NOUNS = {
    "en": {"customers": "customers", "products": "products", "orders": "orders", "items": "products"},
    "ko": {"customers": "고객", "products": "상품", "orders": "주문", "items": "상품"},
}
COUNTERS = {"customers": "명", "products": "개", "orders": "건", "items": "개"}

# Measures: "{np}" is the noun phrase.
MEASURES_EN: dict[str, Register] = {
    "count": {"chat": ["number of {np}"], "note": ["count of {np}", "{np} count", "number of {np}"]},
    "avg": {"chat": ["average {col} of {np}"], "note": ["mean {col}, {np}", "average {col} of {np}", "avg {col} {np}"]},
    "sum": {"chat": ["total {col} of {np}"], "note": ["sum of {col}, {np}", "total {col} of {np}", "{col} sum {np}"]},
    "max": {"chat": ["highest {col} of {np}"], "note": ["max {col}, {np}", "maximum {col} of {np}", "top {col} {np}"]},
    "min": {"chat": ["lowest {col} of {np}"], "note": ["min {col}, {np}", "minimum {col} of {np}", "least {col} {np}"]},
    "buyers": {
        "chat": ["number of different customers behind {np}"],
        "note": ["distinct customers of {np}", "unique buyers, {np}", "different customers in {np}"],
    },
    "units": {"chat": ["number of units sold of {np}"], "note": ["units sold, {np}", "quantity of {np}"]},
    "revenue": {"chat": ["revenue from {np}"], "note": ["sales revenue, {np}", "revenue of {np}"]},
    "containing": {"chat": ["number of orders that contain {np}"], "note": ["orders with {np}", "order count of {np}"]},
}
MEASURES_KO: dict[str, Register] = {
    "count": {"chat": ["{np} 수"], "note": ["{np} 수", "{np} 건수", "{np} 개수"]},
    "avg": {"chat": ["{np}의 평균 {col}"], "note": ["{np} 평균 {col}", "{np} {col} 평균"]},
    "sum": {"chat": ["{np}의 총 {col}"], "note": ["{np} {col} 합계", "{np} 총 {col}"]},
    "max": {"chat": ["{np}의 최고 {col}"], "note": ["{np} {col} 최댓값", "{np} 최대 {col}"]},
    "min": {"chat": ["{np}의 최저 {col}"], "note": ["{np} {col} 최솟값", "{np} 최소 {col}"]},
    "buyers": {"chat": ["{np:을} 한 서로 다른 고객 수"], "note": ["{np} 고유 고객 수", "{np} 구매자 수"]},
    "units": {"chat": ["{np}의 판매 수량"], "note": ["{np} 판매량", "{np} 수량 합계"]},
    "revenue": {"chat": ["{np}의 매출"], "note": ["{np} 매출액", "{np} 매출"]},
    "containing": {"chat": ["{np:이} 들어 있는 주문 수"], "note": ["{np} 포함 주문 수", "{np} 주문 건수"]},
}
COLUMNS = {
    "en": {
        "points": "points",
        "price": "price",
        "stock": "stock",
        "amount": "amount",
        "fee": "delivery fee",
        "birth_year": "birth year",
    },
    "ko": {
        "points": "포인트",
        "price": "가격",
        "stock": "재고",
        "amount": "금액",
        "fee": "배송비",
        "birth_year": "출생 연도",
    },
}
DIMENSIONS_EN = {
    "c.city": ("city", "cities"),
    "c.grade": ("grade", "grades"),
    "c.gender": ("gender", "genders"),
    "c.joined": ("sign-up year", "sign-up years"),
    "p.category": ("category", "categories"),
    "p.brand": ("brand", "brands"),
    "p.name": ("product", "products"),
    "o.status": ("status", "statuses"),
    "o.payment": ("payment method", "payment methods"),
    "o.year": ("year", "years"),
    "o.month": ("month", "months"),
}
DIMENSIONS_KO = {
    "c.city": "도시",
    "c.grade": "등급",
    "c.gender": "성별",
    "c.joined": "가입 연도",
    "p.category": "카테고리",
    "p.brand": "브랜드",
    "p.name": "상품",
    "o.status": "상태",
    "o.payment": "결제 수단",
    "o.year": "연도",
    "o.month": "월",
}


def value_word(value: object, lang: str) -> str:
    """How a stored value is said: 'Busan' and '부산', 'M' and 'male'."""
    if isinstance(value, str):
        return _KO[value] if lang == "ko" else _EN.get(value, value)
    return str(value)


def time_parts(field: str, value: tuple[int, int]) -> tuple[int, str, int]:
    """(year, word, number) of a month or quarter, for the formats above."""
    return value[0], (MONTHS if field == "o.month" else ORDINALS)[value[1] - 1], value[1]
