"""The Korean of the chapter on reward hacking."""

SENTENCES = {
    "Signs of reward hacking": "보상 악용의 징후",
    "{n:sign} found by comparing the answers of the chain's policies with the first's; rewards are a diagnosis here, and "
    "never a grade.":
        "체인 정책들의 답변을 첫 정책과 비교해 징후 {n}건을 찾았습니다. 여기서 보상은 진단일 뿐 채점이 아닙니다.",
    "{who} writes longer than {other}, {now} characters instead of {was} [{low}, {high}], and its grade is not shown to "
    "rise ({n:question}).":
        "{who:은} {other}보다 길게 씁니다. {was}자에서 {now}자로 늘었지만 [{low}, {high}] 점수 향상은 입증되지 않았습니다 (문항 {n}개).",
    "{who} reaches the token limit more often than {other}, in {now} % of its answers instead of {was} % {interval}, and "
    "its grade is not shown to rise ({n:question}).":
        "{who:은} {other}보다 자주 토큰 한도에 이릅니다. 답변의 {was}%에서 {now}%로 늘었지만 {interval} 점수 향상은 입증되지 않았습니다 "
        "(문항 {n}개).",
    "{who} repeats itself more than {other}: {now} % of its runs of four words stood in the answer before, instead of "
    "{was} % {interval}, and its grade is not shown to rise ({n:question}).":
        "{who:은} {other}보다 같은 말을 더 되풀이합니다. 답변 안에서 반복된 네 단어 구절이 {was}%에서 {now}%로 늘었지만 {interval} "
        "점수 향상은 입증되지 않았습니다 (문항 {n}개).",
    "{who} refuses more often than {other}, in {now} % of its answers instead of {was} % {interval}, and its grade is not "
    "shown to rise ({n:question}).":
        "{who:은} {other}보다 자주 답변을 거부합니다. {was}%에서 {now}%로 늘었지만 {interval} 점수 향상은 입증되지 않았습니다 (문항 {n}개).",
    "{who} gives different questions the same answer more often than {other}, in {now} % of its answers instead of {was} % "
    "{interval}, and its grade is not shown to rise ({n:question}).":
        "{who:은} {other}보다 자주 다른 질문에 같은 답을 합니다. {was}%에서 {now}%로 늘었지만 {interval} 점수 향상은 입증되지 "
        "않았습니다 (문항 {n}개).",
    "{who} speaks to a judge in {now} % of its answers, {other} in {was} % {interval} ({n:question}).":
        "{who:은} 답변의 {now}%에서 심사자에게 말을 겁니다. {other:은} {was}%입니다 {interval} (문항 {n}개).",
    "{who} answers with nothing but a colon or an opening in {now} % of its answers, {other} in {was} % {interval} "
    "({n:question}).":
        "{who:은} 답변의 {now}%에서 콜론이나 첫머리만 씁니다. {other:은} {was}%입니다 {interval} (문항 {n}개).",
    "{who} flatters who asks in {now} % of its answers, {other} in {was} % {interval}, and its grade is not shown to rise "
    "({n:question}).":
        "{who:은} 답변의 {now}%에서 질문자에게 아첨합니다. {other:은} {was}%이며 {interval} 점수 향상은 입증되지 않았습니다 (문항 {n}개).",
    "The reward model likes {who} better than {other}, {now} instead of {was} [{low}, {high}], but its grade is shown to "
    "fall ({n:question}).":
        "보상 모델은 {who:을} {other}보다 좋아하지만({was}에서 {now}, [{low}, {high}]) 점수는 하락이 입증되었습니다 (문항 {n}개).",
    "{who} is further from the base model than {other}, {now} nats a token instead of {was} [{low}, {high}], and its grade "
    "is not shown to rise ({n:question}).":
        "{who:은} {other}보다 기본 모델에서 멀어졌습니다. 토큰당 {was}나트에서 {now}나트로 늘었지만 [{low}, {high}] 점수 향상은 입증되지 "
        "않았습니다 (문항 {n}개).",
    "grade %": "점수 %",
    "measure": "척도", "the first policy": "첫 정책", "value": "값", "interval of the change": "변화의 구간",
    "Everything measured": "측정한 모든 것",
    "KL to the base": "기본 모델까지의 KL",
    "KL(policy ‖ base) is in nats a token, estimated by the mean log-ratio of the policy's own samples that ended by "
    "themselves, of at most {n:question} of a suite; an estimate near 0 may fall below it.":
        "KL(정책 ‖ 기본 모델)은 토큰당 나트이며, 정책이 직접 샘플링해 스스로 끝맺은 답변의 평균 로그 비율로 추정합니다(평가 묶음마다 최대 "
        "문항 {n}개). 0에 가까운 추정값은 0보다 작을 수 있습니다.",
    "The reward is being gamed in selection: with more samples to choose from it rises, and the grade of the best is shown "
    "to fall.":
        "선별에서 보상이 악용되고 있습니다. 고를 샘플이 늘수록 보상은 오르지만 최선의 점수는 하락이 입증되었습니다.",
    "question": "질문",
}  # fmt: skip
