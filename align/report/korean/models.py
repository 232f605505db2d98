"""The Korean of the chapters on models."""

SENTENCES = {
    # what was drawn
    "What was drawn": "샘플링 결과",
    "samples": "샘플", "per prompt": "프롬프트당", "mean tokens": "평균 토큰", "prompts too long": "너무 긴 프롬프트",
    "for preference pairs": "선호 쌍용", "for rejection sampling": "거부 샘플링용",
    "There are no samples {what}.": "{what} 샘플이 없습니다.",
    "Truncated: the response reached the token limit before its end-of-turn token.":
        "잘림: 응답이 종료 토큰보다 먼저 토큰 한도에 이르렀습니다.",
    "No sample was graded right or wrong, so how mixed the prompts are is not known.":
        "정답이나 오답으로 채점된 샘플이 없어 프롬프트가 얼마나 섞여 있는지 알 수 없습니다.",
    "{mixed} of {n:graded prompt} ({share} %) have both right and wrong samples; only those can give a pair.":
        "채점된 프롬프트 {n}개 중 {mixed}개({share}%)에 정답과 오답 샘플이 모두 있습니다. 그런 프롬프트에서만 쌍을 만들 수 있습니다.",
    "Right samples per prompt": "프롬프트당 정답 샘플 수",
    "right samples of a prompt": "프롬프트의 정답 샘플 수",
    "Grey: no pair can be made where all are wrong or all right.": "회색: 모두 오답이거나 모두 정답이면 쌍을 만들 수 없습니다.",
    # pairs
    "The preference pairs": "선호 쌍",
    "{pairs:pair} on {prompts:prompt}; {held} held out from training.": "프롬프트 {prompts}개에서 {pairs}쌍. {held}쌍은 학습에서 제외했습니다.",
    "imported": "가져옴", "labelled by {grader}": "{grader:이} 라벨링", "number": "수",
    "what became of what was read": "읽은 것의 처리 결과",
    "The chosen response is the longer one in {share} % of the pairs that differ in length [{low}, {high}]; on average "
    "{chosen} against {rejected} characters.":
        "길이가 다른 쌍의 {share}% [{low}, {high}]에서 선택된 응답이 더 깁니다. 평균은 {chosen}자와 {rejected}자입니다.",
    "A model can learn from these pairs that longer is better.": "모델이 이 쌍에서 ‘길수록 좋다’고 배울 수 있습니다.",
    "Share of pairs per bin; the longest 1 % count in the last bin.": "구간별 쌍의 비율. 가장 긴 1%는 마지막 구간에 넣었습니다.",
    "chosen": "선택", "rejected": "거부",
    "samples that the grader could not read (they count as wrong)": "채점기가 읽지 못한 샘플(오답으로 셈)",
    "samples that could not be graded": "채점하지 못한 샘플",
    "samples truncated": "잘린 샘플",
    "samples equal to another of their prompt": "같은 프롬프트의 다른 샘플과 동일",
    "prompts with a pair": "쌍이 있는 프롬프트",
    "prompts with right samples only": "정답 샘플만 있는 프롬프트",
    "prompts with wrong samples only": "오답 샘플만 있는 프롬프트",
    "prompts without a graded sample": "채점된 샘플이 없는 프롬프트",
    "prompts whose samples may not be paired": "샘플을 짝지을 수 없는 프롬프트",
    "pairs whose chosen response is the reference": "선택된 응답이 기준 답안인 쌍",
    "imported preferences": "가져온 선호 데이터",
    "of them labels of single responses": "그중 단일 응답 라벨",
    "of them with an empty response": "그중 빈 응답",
    "of them with two equal responses": "그중 두 응답이 같음",
    # reward model
    "The reward model": "보상 모델",
    "Reward model": "보상 모델",
    "Not measured: no pair was held out from the reward model's training.":
        "측정 안 됨: 보상 모델 학습에서 제외한 쌍이 없습니다.",
    "The reward model prefers the chosen response in {accuracy} of {n:held-out pair}; always taking the longer one is "
    "right in {baseline} %, a difference of {apart}{doubt}.":
        "보상 모델은 학습에 쓰지 않은 {n}쌍의 {accuracy}에서 선택된 응답을 선호합니다. 늘 긴 쪽을 고르면 {baseline}%가 맞으며, "
        "차이는 {apart}입니다{doubt}.",
    "The reward model prefers the chosen response in {accuracy} of {n:held-out pair}; always taking the shorter one is "
    "right in {baseline} %, a difference of {apart}{doubt}.":
        "보상 모델은 학습에 쓰지 않은 {n}쌍의 {accuracy}에서 선택된 응답을 선호합니다. 늘 짧은 쪽을 고르면 {baseline}%가 맞으며, "
        "차이는 {apart}입니다{doubt}.",
    "Margin of the chosen response": "선택된 응답의 마진",
    "margin": "마진",
    "reward of chosen − rejected": "보상 차이(선택 − 거부)",
    "Right of the line the reward model agrees with the label.": "선의 오른쪽에서는 보상 모델이 라벨과 일치합니다.",
    "Calibration": "보정",
    "stated probability": "예측한 확률", "share right": "맞은 비율",
    "Held-out pairs in bins of equal size; on the dashed line it is as often right as it says. Lines: 95 % intervals.":
        "학습에 쓰지 않은 쌍을 같은 크기의 구간으로 나눴습니다. 점선 위에서는 예측한 확률만큼 맞습니다. 선: 95% 구간.",
    "Rewards": "보상", "reward": "보상",
    "by": "구분", "name": "이름", "right %": "정답 %", "category": "범주",
    # selection
    "What rejection sampling chose": "거부 샘플링이 고른 응답",
    "The selection is missing.": "선별 결과가 없습니다.",
    "{n:prompt} kept. The best of n has a mean reward of {best}, a random one of the same n {random}. The reward says how "
    "much the reward model likes them; whether they are better shows only in the evaluation.":
        "프롬프트 {n}개를 남겼습니다. n개 중 최선의 평균 보상은 {best}, 같은 n개 중 무작위 응답은 {random}입니다. 보상은 보상 모델이 "
        "얼마나 좋아하는지를 말할 뿐이며, 실제로 나은지는 평가에서만 드러납니다.",
    "The reward is being gamed: the best of {n} has a higher reward than the best of {less}, and is shown to have a lower "
    "grade.":
        "보상이 악용되고 있습니다. {n}개 중 최선은 {less}개 중 최선보다 보상이 높지만 채점 점수는 더 낮음이 입증되었습니다.",
    "samples scored": "점수를 매긴 샘플", "of them eligible": "그중 대상", "prompts kept": "남긴 프롬프트",
    "both arms hold the same response": "두 군의 응답이 같음",
    "mean grade of a random one": "무작위 응답의 평균 채점",
    "mean grade of the best of n by reward": "보상 기준 최선의 평균 채점",
    "mean grade of the best of n by the grader": "채점기 기준 최선의 평균 채점",
    "all samples": "전체 샘플", "best of n": "n개 중 최선", "random of n": "n개 중 무작위",
    "Share of the responses per bin.": "구간별 응답의 비율.",
    # training
    "How training went": "학습 경과",
    "{stage}: there is no training log.": "{stage}: 학습 기록이 없습니다.",
    "stage": "단계", "rows or pairs": "행 또는 쌍", "steps": "스텝", "first loss": "처음 손실", "final loss": "마지막 손실",
    "too long": "너무 긴 것", "loss": "손실", "step": "스텝",
    "log-probability": "로그확률", "implicit reward": "암묵적 보상", "preference accuracy": "선호 정확도",
    "Relative to the reference, times beta.": "기준 모델 대비, 베타를 곱한 값.",
    "Of whole responses, in nats; batches differ.": "응답 전체, 단위는 nat. 배치마다 다릅니다.",
    "On the pairs being trained on.": "학습 중인 쌍에서.",
    "held-out pairs": "학습에 쓰지 않은 쌍", "training pairs": "학습 쌍",
    "held-out labels": "학습에 쓰지 않은 라벨", "training labels": "학습 라벨",
    "{stage} changed the log-probability of the chosen responses of {what} by {chosen} nats on average, that of the "
    "rejected by {rejected}.":
        "{stage} 단계에서 {what}의 선택된 응답의 로그확률은 평균 {chosen} nat, 거부된 응답은 {rejected} nat 변했습니다.",
    "The chosen became less likely: a lower rate, an NLL term or fresher pairs are the cures.":
        "선택된 응답의 확률이 낮아졌습니다. 학습률을 낮추거나, NLL 항을 더하거나, 더 최근의 쌍을 쓰면 나아집니다.",
}  # fmt: skip
