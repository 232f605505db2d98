"""The Korean of what is said of a run itself, and of the page of all runs."""

SENTENCES = {
    "Run {run} of {recipe}, started {at} UTC, goes on. Made {now} UTC; {command} renews it.":
        "{recipe} 실행 {run}, {at} UTC 시작, 진행 중. 이 페이지는 {now} UTC에 만들었으며 {command}로 갱신합니다.",
    "Run {run} of {recipe}, started {at} UTC. Made {now} UTC.": "{recipe} 실행 {run}, {at} UTC 시작. 이 페이지는 {now} UTC에 만들었습니다.",
    "Run {run} of {recipe}, started {at} UTC, failed. Made {now} UTC.":
        "{recipe} 실행 {run}, {at} UTC 시작, 실패. 이 페이지는 {now} UTC에 만들었습니다.",
    "Run {run} of {recipe}, started {at} UTC, was interrupted. Made {now} UTC.":
        "{recipe} 실행 {run}, {at} UTC 시작, 중단됨. 이 페이지는 {now} UTC에 만들었습니다.",
    "{model} is the champion of {recipe}.": "{recipe}의 챔피언은 이 {model}입니다.",
    "{model} was a champion of {recipe}.": "이 {model:은} {recipe}의 챔피언이었습니다.",
    # how far it is
    "How far it is": "진행 상황",
    "{done} of {n:stage} done.": "{n}개 단계 중 {done}개를 마쳤습니다.",
    "is running": "실행 중",
    "Still to come: {stages}.": "남은 단계: {stages}.",
    # costs
    "What it cost": "비용",
    "{n:stage} ran in {seconds} s; {cached} found in the store, which saved {saved} s. Stages may run side by side.":
        "{n}개 단계를 {seconds}초에 실행했습니다. {cached}개는 저장소에 있어 {saved}초를 아꼈습니다. 단계는 동시에 실행될 수 있습니다.",
    "what became of it": "처리", "made by run": "만든 실행", "seconds": "초", "seconds when made": "만들 때의 초",
    "tokens drawn": "생성한 토큰", "tokens trained on": "학습한 토큰", "peak memory, MB": "최대 메모리, MB",
    "peak GPU memory, MB": "최대 GPU 메모리, MB", "why": "이유", "Why stages ran": "단계를 실행한 이유",
    "ran": "실행함", "cached": "저장소에 있음", "skipped": "건너뜀", "failed": "실패", "running": "실행 중", "to come": "예정",
    "Seconds are those of the stage's own process, tokens and memory those of the attempt that made the artifact; of memory "
    "the last line has the most that one stage held.":
        "초는 단계 자신의 프로세스에서 잰 시간이고, 토큰과 메모리는 산출물을 만든 시도의 값입니다. 메모리의 마지막 줄은 한 단계가 쓴 최댓값입니다.",
    "{stage} failed:": "{stage} 실패:",
    # lineage
    "Where everything comes from": "계보",
    "{n:artifact}. An artifact is named by its stage and the beginning of the digest over its contents.":
        "산출물 {n}개. 산출물의 이름은 단계 이름과 내용 다이제스트의 앞부분입니다.",
    "artifact": "산출물", "digest (SHA-256)": "다이제스트(SHA-256)", "made of": "재료",
    "Artifacts, digests and parents": "산출물, 다이제스트, 재료",
    # settings
    "How to do it again": "다시 실행하는 방법",
    "The recipe is not there any more, or is of another version.": "레시피가 더는 없거나 다른 버전입니다.",
    "Since then the recipe has changed in {keys}; below it is as it was.": "그 뒤로 레시피의 {keys} 설정이 바뀌었습니다. 아래는 당시 설정입니다.",
    "Today this command gives the same settings.": "지금도 이 명령은 같은 설정을 줍니다.",
    "The command is not on record; the settings below are a recipe: save them and run that file.":
        "명령이 기록되어 있지 않습니다. 아래 설정이 레시피이므로 파일로 저장하여 실행하면 됩니다.",
    "All settings, as a recipe": "레시피로 쓴 전체 설정",
    "library": "라이브러리", "version": "버전", "Versions of the libraries": "라이브러리 버전",
    # all runs
    "Runs": "실행 목록",
    "{n:run} of {m:recipe}.": "레시피 {m}개의 실행 {n}개.",
    "Made {now} UTC.": "이 페이지는 {now} UTC에 만들었습니다.",
    "Champion: {model} of run {run}, {scores}.": "챔피언: 실행 {run}의 {model}, {scores}.",
    "There is no champion.": "챔피언이 없습니다.",
    "run": "실행", "started (UTC)": "시작(UTC)", "status": "상태", "final model": "최종 모델",
    "not promoted": "승격 안 됨", "champion {n}, the present one": "{n}번째 챔피언(현재)", "champion {n}": "{n}번째 챔피언",
    "Verdicts on promotion": "승격 판정",
    "score of the final model, %": "최종 모델의 점수, %",
    "Green: promoted. Lines are 95 % intervals.": "초록: 승격됨. 선은 95% 구간입니다.",
    "done": "완료", "interrupted": "중단됨",
}  # fmt: skip
