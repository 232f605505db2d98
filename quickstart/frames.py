"""The sentences around the noun phrases: questions (chat) and the labels of saved queries (note).

The base model is pretrained on notes only; no note is worded as a question is.
"""

ROWS_EN = {
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
ROWS_KO = {
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

CHAT_EN = {
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
NOTE_EN = {
    "scalar": [
        "{m}",
        "query for {m}",
        "report: {m}",
        "compute {m}",
        "query that returns the {m}",
        "used to find the {m}",
        "to learn what the {m} is",
    ],
    "count": [
        "how many {np} exist",
        "how many {np}, in all",
        "counts all {np}",
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
        "by {m}, the {n} {sup} {dims}",
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
        "how many percent are {part}, of all {np}",
    ],
    "above": [
        "count of {np} with {col} {cmp} mean",
        "{np}, {col} {cmp} overall average, count",
        "counts {np} whose {col} is {cmp} the average",
        "how many {np} lie {cmp} the average {col}",
    ],
    "without": [
        "count of {np} with no orders in {n}",
        "{np} inactive in {n}, count",
        "counts {np} who placed no order during {n}",
        "{np} that did not order anything in {n}, counted",
    ],
    "unsold": [
        "count of {np} never sold at quantity {n}+",
        "{np} without sales of {n} or more, count",
        "counts {np} never bought {n} or more at once",
        "{np} nobody ever bought {n} or more of, counted",
    ],
}
CHAT_KO = {
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
NOTE_KO = {
    "scalar": [
        "{m}",
        "{m} 조회",
        "보고서: {m}",
        "{m} 계산",
        "{m:을} 구하는 쿼리",
        "{m:을} 조회한다",
        "{m:이} 얼마인지 알아본다",
        "{m:이} 얼마인지 궁금할 때 쓰는 쿼리",
    ],
    "count": [
        "{np:이} 모두 몇 {unit}인지 센다",
        "몇 {unit}의 {np:이} 있는지 확인",
        "{np:은} 몇 {unit}인지 본다",
    ],
    "group": [
        "{dim}별 {m}",
        "{m} ({dim} 기준)",
        "{dim} 단위 {m} 집계",
        "{dim}마다 {m:을} 구하는 쿼리",
        "{dim}별로 {m:을} 나눠 본다",
    ],
    "top": [
        "{m} {ord} {n}개 {dim}",
        "{dim} 순위, {ord} {n}: {m}",
        "{m:이} {sup} {dim} {n}개",
        "{m:이} 가장 {sup} {dim} {n}개를 찾는 쿼리",
        "{m:이} 제일 {sup} {dim} {n}개를 고른다",
    ],
    "having": [
        "{m} {n} {cmp} {dim}",
        "{dim} 목록: {m} {n} {cmp}",
        "{m:이} {n}{unit}{cmp} {dim:을} 찾는 쿼리",
        "{m:이} {n}{unit}{cmp} {dim:을} 모두 모은다",
    ],
    "rows": [
        "{np} {col} {ord} {n}",
        "{col} {ord} {n}: {np}",
        "{by} 순서로 {np} {n}{unit}",
        "{by} {np} {n}{unit:을} 찾는 쿼리",
        "{np} 중에서 {by} {n}{unit:을} 뽑는다",
    ],
    "list": [
        "{np} 이름 목록",
        "{np} 명단",
        "이름: {np}",
        "{np}의 이름을 모아 보는 쿼리",
        "{np:은} 무엇인지 이름으로 본다",
    ],
    "share": [
        "{np} 중 {part} 비중",
        "{part} 비율: {np}",
        "{np} {part} 퍼센트",
        "{np} 가운데 {part} 비율 계산",
        "{np} 중 {part:이} 몇 퍼센트인지 본다",
    ],
    "above": [
        "{np} 중 {col} 전체 평균 {cmp} 개수",
        "{col} 평균 {cmp} {np} 수",
        "{col:이} 평균보다 {cmp} {np:을} 세는 쿼리",
        "평균보다 {col:이} {cmp} {np:은} 몇 {unit}인지 본다",
    ],
    "without": [
        "{n} 미주문 {np} 수",
        "{np} 중 {n}년 주문 없음, 개수",
        "{n}년에 주문 기록이 없는 {np:을} 세는 쿼리",
        "{n}년에 한 번도 주문하지 않은 {np:을} 센다",
    ],
    "unsold": [
        "{n}개 이상 판매 이력 없음, {np} 수",
        "{np} 중 {n}개 이상 미판매 개수",
        "한 번에 {n}개 이상 팔리지 않은 {np:을} 세는 쿼리",
        "{n}개 이상 주문된 적이 없는 {np:을} 센다",
    ],
}
NOTE_EN["count"] += NOTE_EN["scalar"]
NOTE_KO["count"] += NOTE_KO["scalar"]
