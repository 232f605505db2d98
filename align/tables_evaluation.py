"""The tables of evaluation: what policies answer, how that is graded and compared, and what is decided by it."""

import pyarrow as pa

from align.columns import FLAG, INDEX, REAL, TEXT, WHOLE
from align.columns import table as _table

ANSWERS = _table(
    "What one policy answers to the evaluation items.",
    suite=(TEXT, "The suite: the name of the items' source."),
    row_id=(TEXT, "The item."),
    mode=(TEXT, "greedy or sampled; what is not drawn is the same in both."),
    turn=(INDEX, "Which of the item's turns is answered, from 1."),
    sample_index=(INDEX, "Which of the samples it is, from 0."),
    response=(
        TEXT,
        "The response; of multiple_choice the likeliest option per byte, of perplexity the reference. Null where the "
        "prompt leaves no room for one.",
    ),
    finish_reason=(TEXT, "stop or truncated; null where nothing is drawn."),
    n_tokens=(INDEX, "Tokens drawn, or scored."),
    reasoning=(TEXT, "The reasoning block before the response; null where there is none. Never graded."),
    likeliest=(TEXT, "Of multiple_choice: the option of the highest log-probability, whatever its length; else null."),
    logp=(REAL, "Log-probability in nats of a response that was not drawn, with the end of its turn; else null."),
    score=(REAL, "Of a benchmark: what lm-evaluation-harness gave; null where evaluate grades."),
    detail=(TEXT, "Of a benchmark: the metric, and what was expected; else null."),
)
OPTIONS = _table(
    "How likely one policy finds the options of multiple-choice items.",
    suite=(TEXT, "The suite."),
    row_id=(TEXT, "The item."),
    option=(INDEX, "Which of its choices it is, from 0."),
    text=(TEXT, "What is scored: the option's text, or its letter."),
    logp=(REAL, "Log-probability in nats as the whole answer, with the end of the turn."),
    logp_per_byte=(REAL, "That divided by the bytes of the text."),
    n_tokens=(WHOLE, "Tokens that are summed over."),
)
EVALUATIONS = _table(
    "The answers of every policy to the evaluation items, graded.",
    suite=(TEXT, "The suite: the name of the items' source."),
    row_id=(TEXT, "The item."),
    model=(TEXT, "base, or the stage that trained the policy."),
    mode=(TEXT, "greedy or sampled; what is not drawn is the same in both."),
    turn=(INDEX, "Which of the item's turns is answered, from 1."),
    sample_index=(INDEX, "Which of the samples it is, from 0."),
    response=(TEXT, "The response, as in answers; null where the prompt leaves no room for one."),
    score=(REAL, "The grade from 0 to 1; 0 where unreadable, null where ungraded. Higher is better, in every suite."),
    status=(
        TEXT,
        "correct, wrong, unreadable (nothing to grade in the response), ungraded (item or judge failed) or scored "
        "(nothing is right or wrong: perplexity, and a tie before a judge; preferred is correct).",
    ),
    finish_reason=(TEXT, "stop or truncated; null where nothing is drawn."),
    detail=(TEXT, "Why, in words."),
    score_raw=(REAL, "Of multiple_choice: the grade of the likeliest option whatever its length; else null."),
    n_tokens=(INDEX, "Tokens drawn, or scored."),
    logp=(REAL, "Log-probability in nats of a response that was not drawn; else null."),
)
COMPARISONS = _table(
    "Each model alone, and each ordered pair of models on the items that are graded for both.",
    suite=(TEXT, "The suite."),
    mode=(TEXT, "greedy or sampled."),
    model=(TEXT, "The model."),
    against=(TEXT, "The model that it is compared with; null where it stands alone."),
    n=(WHOLE, "Items graded for the model, or for both."),
    mean=(REAL, "The model's mean grade."),
    low=(REAL, "Lower end of its 95 % interval."),
    high=(REAL, "Upper end."),
    diff=(REAL, "Mean paired difference."),
    diff_low=(REAL, "Lower end of its 95 % interval."),
    diff_high=(REAL, "Upper end."),
    differ=(WHOLE, "Items whose scores differ."),
    p_exact=(
        REAL,
        "Two-sided p of the exact test (McNemar's for right and wrong); null where 25 or more differ.",
    ),
    seeds=(WHOLE, "Seeds of the model, or of a pair the more; 1 but for chain.seeds."),
    seed_sd=(REAL, "Standard deviation of the seeds' means, which is in the interval; null where there is one seed."),
    detectable=(REAL, "The smallest true difference that so many items would have shown in four cases of five."),
    verdict=(
        TEXT,
        "better or worse (the interval excludes 0, and the exact test does not object), not shown (it includes 0), or "
        "too few to tell (too few items differ); null where the model stands alone.",
    ),
)
WIN_RATES = _table(
    "How often a judge prefers each model's answers to a baseline's, as it is and with the effect of length taken out.",
    suite=(TEXT, "The suite."),
    mode=(TEXT, "greedy or sampled."),
    model=(TEXT, "The model."),
    baseline=(TEXT, "What it is compared with: reference (answers), or a model."),
    n=(WHOLE, "Items with a verdict."),
    wins=(WHOLE, "Answers that are preferred in both orders."),
    ties=(WHOLE, "Answers that tie, or whose verdict flips with the order."),
    losses=(WHOLE, "Answers to which the baseline's are preferred."),
    win_rate=(REAL, "The mean over items; a tie is half a win."),
    low=(REAL, "Lower end of its 95 % interval."),
    high=(REAL, "Upper end."),
    lc_win_rate=(REAL, "The win rate at equal length (align/grading/length_control.py)."),
    lc_low=(REAL, "Lower end of its 95 % interval."),
    lc_high=(REAL, "Upper end."),
    length_effect=(REAL, "Log-odds that a much longer answer adds to winning: phi of the regression."),
    longer=(REAL, "Characters by which the answers are longer than the baseline's, on average."),
)
REWARDS = _table(
    "What the reward model says of the evaluation's answers (chain.diagnose): a diagnosis, and never a grade.",
    suite=(TEXT, "The suite."),
    row_id=(TEXT, "The item."),
    model=(TEXT, "Whose answer it is."),
    mode=(TEXT, "greedy or sampled: the primary mode."),
    sample_index=(INDEX, "Which of the samples it is, from 0."),
    score=(REAL, "The reward; null where it is longer than the reward model reads."),
)
DIVERGENCES = _table(
    "How likely policies and their base find answers that the policies drew (chain.diagnose): (logp - logp_base) / "
    "n_tokens is an estimate of KL(policy || base) a token.",
    suite=(TEXT, "The suite."),
    row_id=(TEXT, "The item."),
    model=(TEXT, "Whose answer it is."),
    mode=(TEXT, "sampled."),
    sample_index=(INDEX, "Which of the samples it is, from 0."),
    logp=(REAL, "Log-probability in nats of the answer and the end of its turn under the policy."),
    logp_base=(REAL, "The same under the base."),
    n_tokens=(WHOLE, "Tokens that are summed over."),
)
HACKING = _table(
    "Signs of reward hacking: what answers of the chain's policies have more of than the first's. Diagnosis, no grade.",
    suite=(TEXT, "The suite; null for best_of_n."),
    mode=(TEXT, "greedy or sampled."),
    model=(TEXT, "The policy."),
    against=(TEXT, "The first policy of the chain."),
    measure=(
        TEXT,
        "length (characters), truncated, repetition (runs of four words that stood in the answer before), refusal, "
        "judge (speaks to one), key (nothing but a colon or an opening), flattery, constant (another item has the same "
        "answer), reward, kl (nats a token from the base, of sampled answers), distinct_1 to distinct_3, or best_of_n.",
    ),
    n=(WHOLE, "Items."),
    value=(REAL, "Its mean over the items; but for length, reward, kl and distinct_n the share of answers."),
    was=(REAL, "That of the first policy."),
    diff=(REAL, "Mean paired difference."),
    low=(REAL, "Lower end of its interval; those of all measures, policies and suites hold together at 95 %."),
    high=(REAL, "Upper end."),
    found=(FLAG, "Whether it is a sign: shown to rise while the grade is not (judge, key: whatever the grade)."),
    examples=(pa.list_(TEXT), "Items where it rose most."),
    text=(TEXT, "It in words, where found."),
)
PROMOTION = _table(
    "Why the final model may become champion, or may not: every rule with what became of it.",
    rule=(TEXT, "better, guard, ungraded, or watched (a suite that decides nothing)."),
    suite=(TEXT, "The suite."),
    mode=(TEXT, "greedy or sampled."),
    model=(TEXT, "The final model; of ungraded the one whose answers are counted."),
    against=(TEXT, "The model that it is compared with; null for ungraded."),
    n=(WHOLE, "Items graded for both."),
    diff=(REAL, "Mean paired difference."),
    low=(REAL, "Lower end of its 95 % interval."),
    high=(REAL, "Upper end."),
    share=(REAL, "Of ungraded: the share of answers."),
    limit=(REAL, "Of guard the fall that is allowed, of ungraded the share."),
    held=(
        FLAG,
        "Whether it holds; null where it decides nothing: watched, or a guard that is not shown to hold.",
    ),
    text=(TEXT, "It in words."),
)
