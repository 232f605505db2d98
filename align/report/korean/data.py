"""The Korean of the chapters on data."""

SENTENCES = {
    "What was read": "읽은 데이터",
    "{rows:row} from {sources:source}.": "출처 {sources}곳에서 {rows}행.",
    "source": "출처", "use": "용도", "shape": "형식", "read": "읽음", "taken": "사용", "quarantined": "격리", "split": "분할",
    "reason": "사유", "first at": "처음 나온 곳", "text": "내용", "rows": "행", "kept": "남김", "random": "무작위",
    "Prompts of instruction and prompt sources are shared out by a hash of the normalised prompt; all rows of evaluation "
    "and preference sources go to the split of that name.":
        "지시와 프롬프트 출처의 프롬프트는 정규화한 프롬프트의 해시로 나눕니다. 평가와 선호 출처의 행은 모두 그 이름의 분할에 들어갑니다.",
    "Quarantined rows by reason.": "격리된 행, 사유별.",
    "Quarantined rows by reason; {n:further reason} not listed.": "격리된 행, 사유별. 나머지 사유 {n}개는 생략했습니다.",
    "No row was quarantined.": "격리된 행이 없습니다.",
    "What the filter kept": "필터가 남긴 데이터",
    "{kept} of {read:row} kept ({share} %), {dropped} dropped.": "{read}행 중 {kept}행을 남기고({share}%) {dropped}행을 버렸습니다.",
    "no reason given": "사유 없음",
    "(no response)": "(응답 없음)",
    "How the kept rows differ from the read ones is not known: distributions.parquet is missing.":
        "남긴 행이 읽은 행과 어떻게 다른지 알 수 없습니다. distributions.parquet가 없습니다.",
    "Prompt length": "프롬프트 길이", "Response length": "응답 길이", "characters": "글자 수",
    "Language of the prompt": "프롬프트의 언어", "Language of the response": "응답의 언어", "Source": "출처",
    "Score: {measure}": "점수: {measure}",
    "Share of rows; the steps are powers of 2.": "행의 비율. 눈금은 2의 거듭제곱입니다.",
    "Share of rows; of those that have this score, the outer 1 % in the end bins.":
        "이 점수가 있는 행의 비율. 양 끝 1%는 끝 구간에 넣었습니다.",
    "Share of rows, as guessed from the text.": "행의 비율. 언어는 글에서 추정했습니다.",
    "Share of rows, as guessed from the text; {n:rarer one} not shown.":
        "행의 비율. 언어는 글에서 추정했습니다. 드문 {n}개는 생략했습니다.",
    "{title}: all rows are {bucket}.": "{title}: 모든 행이 {bucket}입니다.",
    "Random is what a control arm trains on: as many rows as were kept, drawn from all with a response.":
        "‘무작위’는 대조군이 학습하는 데이터로, 응답이 있는 전체 행에서 남긴 행과 같은 수를 뽑은 것입니다.",
    "{n:more character}": "{n}자 더 있음",
    # charts
    "Distribution of {x}: {names}": "{x}의 분포: {names}",
    "{x} of {names}": "{names}의 {x}",
    "{y} by {x}": "{x}에 따른 {y}",
    "{y} by {x}: {names}": "{x}에 따른 {y}: {names}",
    "share": "비율",
}  # fmt: skip
