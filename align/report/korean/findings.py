"""The Korean of the page's head, its findings, its results and its examples."""

SENTENCES = {
    "Alignment report": "정렬 보고서",
    "Contents": "목차",
    "What is shown": "입증된 것",
    "What each stage changed, and whether that is shown": "단계마다 달라진 점과 그 입증 여부",
    "Results": "결과",
    "model": "모델",
    "against": "비교 대상",
    "points": "%p",
    "95 % interval": "95% 구간",
    "questions": "문항",
    "of them differ": "차이 난 문항",
    "verdict": "판정",
    "suite": "평가 묶음",
    "primary": "주 지표",
    "control": "대조군",
    "reference": "기준 답안",
    "percentage points": "퍼센트포인트",
    "unreadable %": "판독 불가 %",
    "ungraded %": "미채점 %",
    "truncated %": "잘림 %",
    "Δ {mode} v. {model}": "Δ {mode}, {model} 대비",
    "Δ v. {model}, points": "{model} 대비 Δ, %p",
    "{graded} of {items}": "{items}개 중 {graded}개",
    "{points} points": "{points}%p",
    # the head
    "The chain helped: {final} scores {after} %, {first} {before} %: {points} points {interval} ({metric}, {n:question}).":
        "체인이 도움이 되었습니다. {first} {before}%에서 {final} {after}%로 {points}%p {interval} ({metric}, 문항 {n}개).",
    "The chain did harm: {final} scores {after} %, {first} {before} %: {points} points {interval} ({metric}, {n:question}).":
        "체인이 성능을 떨어뜨렸습니다. {first} {before}%에서 {final} {after}%로 {points}%p {interval} ({metric}, 문항 {n}개).",
    "The chain is not shown to help: {final} scores {after} %, {first} {before} %: {points} points, and the interval "
    "{interval} includes 0 ({metric}, {n:question}).":
        "체인의 효과가 입증되지 않았습니다. {first} {before}%, {final} {after}%로 {points}%p 차이이며 구간 {interval}에 "
        "0이 들어 있습니다 ({metric}, 문항 {n}개).",
    "Too few questions to tell whether the chain helped: {final} scores {after} %, {first} {before} %: {points} points "
    "{interval}, but {why} ({metric}, {n:question}).":
        "체인의 효과를 판단하기에는 문항이 부족합니다. {first} {before}%, {final} {after}%로 {points}%p {interval} "
        "차이입니다. {why} ({metric}, 문항 {n}개).",
    "Whether the chain helped is not measured: no policy was evaluated.":
        "체인의 효과를 측정하지 못했습니다. 평가된 정책이 없습니다.",
    "Whether the chain helped is not measured: no question is graded for both {final} and {first}.":
        "체인의 효과를 측정하지 못했습니다. {final:과} {first} 모두 채점된 문항이 없습니다.",
    "From {first} to {final}: {parts}.": "{first}에서 {final}까지: {parts}.",
    "better on {suite} ({numbers})": "{suite} 향상 ({numbers})",
    "worse on {suite} ({numbers})": "{suite} 하락 ({numbers})",
    "not shown on {suite} ({numbers})": "{suite} 입증 안 됨 ({numbers})",
    "too few to tell on {suite} ({numbers})": "{suite} 판단하기에 부족 ({numbers})",
    "{before} % → {after} %, {points} points {interval}": "{before}% → {after}%, {points}%p {interval}",
    "{model} is fit to be champion": "{model:은} 챔피언이 될 수 있습니다",
    "{model} does not become champion": "{model:은} 챔피언이 되지 못합니다",
    "there is no champion yet, so that it is compared with sft": "아직 챔피언이 없어 sft와 비교합니다",
    "every suite has a guard, so that none is left to be better on":
        "모든 평가 묶음에 가드가 있어 향상을 요구할 묶음이 없습니다",
    "{suite}: {share} % of the answers of {model} are ungraded, {limit} % may be":
        "{suite}: {model}의 답변 중 {share}%가 미채점이며 허용 한도는 {limit}%입니다",
    "{suite}: nothing is graded for both {model} and {against}":
        "{suite}: {model:과} {against} 모두 채점된 문항이 없습니다",
    "{suite}: {model} against {against} {points} points {interval} on {n:item}, a fall of {limit} is allowed":
        "{suite}: {against} 대비 {model} {points}%p {interval}, 문항 {n}개, 허용 하락 폭 {limit}%p",
    "{suite}: {model} against {against} {points} points {interval} on {n:item}, decides nothing":
        "{suite}: {against} 대비 {model} {points}%p {interval}, 문항 {n}개, 판정에는 쓰지 않음",
    "{suite}: {model} has to be better than {against}: {points} points {interval} on {n:item}":
        "{suite}: {model:이} {against}보다 나아야 합니다. {points}%p {interval}, 문항 {n}개",
    "holds": "충족",
    "open": "미정",
    "broken": "위반",
    "The final model ({model}) answers {share} % of {n:held-out question} correctly ({how}){tail}.":
        "최종 모델({model})은 학습에 쓰지 않은 문항 {n}개 중 {share}%를 맞혔습니다 ({how}){tail}.",
    "The final model ({model}) scores {share} % on {n:held-out question} ({how}){tail}.":
        "최종 모델({model})의 점수는 학습에 쓰지 않은 문항 {n}개에서 {share}%입니다 ({how}){tail}.",
    ", against {before}": ", 비교: {before}",
    " and ": ", ",
    "{share} % for {model}": "{model} {share}%",
    "No answer is graded, so nothing is claimed about quality.":
        "채점된 답변이 없어 품질에 대해서는 아무것도 말할 수 없습니다.",
    "No answer of {suites} is graded, so nothing is claimed about quality.":
        "{suites}에 채점된 답변이 없어 품질에 대해서는 아무것도 말할 수 없습니다.",
    "No answer of {suites} is graded, so nothing is claimed about quality there.":
        "{suites}에는 채점된 답변이 없어 그 품질에 대해서는 말할 수 없습니다.",
    "Nothing was evaluated.": "평가된 것이 없습니다.",
    "Shown to help: {topics}.": "효과가 입증됨: {topics}.",
    "Shown to harm: {topics}.": "성능을 떨어뜨림: {topics}.",
    "Not shown to help: {topics}.": "효과가 입증되지 않음: {topics}.",
    "Too few to tell: {topics}.": "판단하기에 부족: {topics}.",
    "Not measured: {topics}.": "측정 안 됨: {topics}.",
    # findings
    "Not measured: nothing was evaluated.": "측정 안 됨: 평가된 것이 없습니다.",
    "Not measured: {model} was not evaluated; {key} adds it.": "측정 안 됨: {model:이} 평가되지 않았습니다. {key} 설정으로 추가합니다.",
    "Not measured: {model} was not evaluated.": "측정 안 됨: {model:이} 평가되지 않았습니다.",
    "Not measured: no question is graded for both models.": "측정 안 됨: 두 모델 모두 채점된 문항이 없습니다.",
    "Not measured in the primary metric ({mode}).": "주 지표({mode})로는 측정되지 않았습니다.",
    "{kept} of {read:row} were kept.": "{read}행 중 {kept}행을 남겼습니다.",
    "{metric}: {points} points {interval}{doubt}.": "{metric}: {points}%p {interval}{doubt}.",
    "{who} raised {metric} by {size} points over {other} {interval} on {n:question}.":
        "{who:은} {other} 대비 {metric:을} {size}%p 높였습니다 {interval} (문항 {n}개).",
    "{who} lowered {metric} by {size} points against {other} {interval} on {n:question}.":
        "{who:은} {other} 대비 {metric:을} {size}%p 낮췄습니다 {interval} (문항 {n}개).",
    "{who} scores exactly as {other} does on {n:question}, in {metric}: {why}.":
        "{who:은} {other:과} {metric:이} 똑같습니다 (문항 {n}개): {why}.",
    "{who} differs from {other} on too few questions to tell: {points} points of {metric} {interval} on {n:question}, "
    "but {why}.":
        "{who:과} {other}의 차이를 판단하기에는 차이 난 문항이 부족합니다. {metric} {points}%p {interval} (문항 {n}개), {why}.",
    "{who} is not shown to differ from {other}: {points} points of {metric}, and the interval {interval} includes 0, on "
    "{n:question}.":
        "{who:과} {other}의 차이는 입증되지 않았습니다. {metric} {points}%p이며 구간 {interval}에 0이 들어 있습니다 (문항 {n}개).",
    ", too few to tell: {why}": ", 판단하기에 부족: {why}",
    ", an interval that includes 0": ", 구간에 0 포함",
    "1 of them differs": "차이 난 문항이 1개이고",
    "{n} of them differ": "차이 난 문항이 {n}개이고",
    "none of them differs": "차이 난 문항이 없고",
    "{so_many}, and {n} must before any difference can be shown": "{so_many}, 차이를 입증하려면 최소 {n}개가 달라야 합니다",
    "only {n} of them differ, and the exact test gives p = {p}": "차이 난 문항이 {n}개뿐이고, 정확 검정의 p값은 {p}입니다",
    "Better or worse: the 95 % interval of the difference excludes 0 in the primary metric that the recipe declares "
    "({primary}); not shown: it includes 0. Where fewer than 25 questions differ, an exact test (McNemar's for right and "
    "wrong answers) must agree; too few to tell: it does not, or fewer differ than could ever show anything. Brackets are "
    "95 % intervals; models are compared on the same questions.":
        "향상·하락: 레시피가 정한 주 지표({primary})에서 차이의 95% 구간이 0을 벗어남. 입증 안 됨: 구간에 0이 들어 있음. 차이 난 "
        "문항이 25개보다 적으면 정확 검정(정답·오답은 맥네마 검정)도 같은 결론이어야 하며, 그렇지 않거나 무엇도 입증할 수 없을 만큼 "
        "적으면 ‘판단하기에 부족’입니다. 대괄호는 95% 구간이고, 모델은 같은 문항에서 비교합니다.",
    "Truncated: the answer reached the token limit. Unreadable: the grader found nothing to grade in the answer, such as "
    "no number or no SQL that parses; it counts as wrong. Ungraded answers, whose question or judge failed, count neither "
    "as right nor as wrong; a difference is taken over the questions that are graded for both models.":
        "잘림: 답변이 토큰 한도에 이르렀습니다. 판독 불가: 답변에 숫자나 해석 가능한 SQL처럼 채점할 것이 없어 오답으로 셉니다. "
        "미채점: 문항이나 심사기가 실패하여 정답으로도 오답으로도 세지 않습니다. 차이는 두 모델 모두 채점된 문항에서 계산합니다.",
    "Paired differences, {metric}": "짝지은 차이, {metric}",
    "Paired differences with 95 % intervals": "짝지은 차이와 95% 구간",
    "Dots are mean differences over the same questions, lines their 95 % intervals; grey ones include 0, or too few "
    "questions differ to tell.":
        "점은 같은 문항에서 잰 평균 차이, 선은 95% 구간입니다. 회색은 0을 포함하거나 차이 난 문항이 너무 적은 경우입니다.",
    "Every pair of models, {metric}": "모든 모델 쌍, {metric}",
    "No paired difference was measured on this suite.": "이 평가 묶음에서는 짝지은 차이를 재지 못했습니다.",
    # rounds
    "The rounds": "라운드",
    "round": "라운드", "before %": "이전 %", "after %": "이후 %", "gain": "향상 폭",
    "{helped:round} of {rounds} shown to help on prompts held out from training.":
        "학습에 쓰지 않은 프롬프트에서 {rounds}개 라운드 중 {helped}개의 효과가 입증되었습니다.",
    "A round that is not shown to help is the last, and its policy is not kept.":
        "효과가 입증되지 않은 라운드가 마지막이 되며, 그 정책은 쓰지 않습니다.",
    "right samples %": "맞은 샘플 %", "distinct %": "서로 다른 샘플 %", "prompts with a pair": "쌍이 있는 프롬프트",
    "reward model, held out %": "보상 모델, 학습 제외 %", "prompts with a selection": "선별된 프롬프트",
    "chosen, nats": "선택 응답, nat",
    "What each round was trained on. Fewer prompts with a pair, or samples less distinct, leave it less to learn. "
    "The last column is what training on pairs did to the log-probability of the chosen responses held out.":
        "각 라운드의 학습 데이터입니다. 쌍이 있는 프롬프트가 적거나 샘플이 서로 비슷하면 배울 것이 적습니다. 마지막 열은 쌍으로 학습한 뒤 학습에서 제외한 선택 응답의 로그 확률이 바뀐 값입니다.",
    "On {n:prompt} held out from training, the policy that round {k} began with scores {before} %, the one that it ended "
    "with {after} %: {points} points {interval}{doubt}.":
        "학습에 쓰지 않은 프롬프트 {n}개에서 {k}라운드 시작 정책은 {before}%, 끝 정책은 {after}%입니다: {points}%p {interval}{doubt}.",
    "The rounds end with the policy that this one began with.": "이 라운드를 시작한 정책으로 라운드를 마칩니다.",
    "The rounds end with the policy that this one began with, and later rounds were skipped.":
        "이 라운드를 시작한 정책으로 라운드를 마치며, 이후 라운드는 건너뛰었습니다.",
    "Whether to go on after round {k}": "{k}라운드 이후 계속 여부",
    # falls
    "Shown to have fallen in {model}: {falls}.": "{model}에서 하락이 입증된 능력: {falls}.",
    "{suite} {points} points {interval} against {model} ({n:question})":
        "{suite} {model} 대비 {points}%p {interval} (문항 {n}개)",
    # seeds
    "Over {n} seeds, whose means have a standard deviation of {sd} points; it is in the intervals.":
        "시드 {n}개의 결과이며, 시드별 평균의 표준편차는 {sd}%p입니다. 구간에 반영했습니다.",
    "{who} differs from {other} by no more than its seeds do: {points} points of {metric} on {n:question}.":
        "{who:은} {other:과} 시드 간 차이 이상으로 다르지 않습니다. {metric} {points}%p, 문항 {n}개.",
    "The chain is not shown to help: {final} scores {after} %, {first} {before} %: {points} points {interval}, no more than "
    "seeds differ by ({metric}, {n:question}).":
        "체인의 효과가 입증되지 않았습니다. {first} {before}%, {final} {after}%로 {points}%p {interval} 차이이지만 시드 간 차이를 "
        "넘지 않습니다 ({metric}, 문항 {n}개).",
    ", no more than its seeds differ by": ", 시드 간 차이를 넘지 않음",
    # power
    "{n:question} show a true difference of {points} points between two of the policies in four cases of five.":
        "문항 {n}개로는 두 정책 사이에 실제로 {points}%p 차이가 있을 때 다섯 번 중 네 번 입증할 수 있습니다.",
    # examples
    "Examples": "예시",
    "Examples: where the stages differ most": "예시: 단계 간 차이가 가장 큰 문항",
    "There are no answers to show.": "보여 줄 답변이 없습니다.",
    "(this question is not among the rows)": "(이 문항은 데이터에 없습니다)",
    "(nothing)": "(없음)",
    "From {first} to {last}, {mode}: {totals}. Below are the {n:question} on which the policies of the chain differ most, "
    "ties by the hash of the question, gained and lost in turns.":
        "{first}에서 {last}까지, {mode}: {totals}. 아래는 체인의 정책 간 차이가 가장 큰 문항 {n}개입니다. 차이가 같으면 문항의 "
        "해시 순서로, 개선과 악화를 번갈아 고릅니다.",
    "all": "전체", "previous": "이전", "next": "다음", "keys: ← →": "키: ← →",
}  # fmt: skip
