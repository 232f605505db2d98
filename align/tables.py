"""The tables that stages hand to each other, which are also the SQL views: their columns.

A table's name is its file's name in an artifact and its view's name in `align sql`. align/parquet.py reads and writes.
"""

import pyarrow as pa

from align.columns import FLAG, REAL, TEXT, WHOLE
from align.columns import more as _more
from align.columns import table as _table
from align.parquet import TOOLS, about, bare, completed, read, spoken, to_json, write
from align.tables_evaluation import (
    ANSWERS,
    COMPARISONS,
    DIVERGENCES,
    EVALUATIONS,
    HACKING,
    OPTIONS,
    PROMOTION,
    REWARDS,
    WIN_RATES,
)  # fmt: skip

__all__ = [
    "ANSWERS", "COMPARISONS", "DIVERGENCES", "EVALUATIONS", "HACKING", "OPTIONS", "PROMOTION", "REWARDS", "TOOLS",
    "WIN_RATES", "about", "bare", "completed", "read", "spoken", "to_json", "write",
]  # fmt: skip
MESSAGES = pa.list_(pa.struct([(name, TEXT) for name in ("role", "content", *TOOLS)]))


ROWS = _table(
    "Every row that ingest read, in one schema.",
    row_id=(TEXT, "Hash of the content: the same row from two files is the same row."),
    source=(TEXT, "The name that the recipe gives the source."),
    use=(TEXT, "What the row is for: instructions, prompts, preferences or evaluation."),
    split=(TEXT, "sft, preference, rejection or evaluation: by hash of the normalised prompt."),
    messages=(
        MESSAGES,
        "The turns before the response: system, user, assistant, tool, ..., user. JSON: tool_calls of an assistant's "
        "turn, and of the first one tools, the functions that may be called.",
    ),
    prompt=(TEXT, "Those turns as one text; the user's words where there is one turn."),
    response=(TEXT, "The final assistant turn; null for prompts and preferences."),
    calls=(FLAG, "Whether the last line of the response, or of a reference made of it, is its tool calls as JSON."),
    chosen=(TEXT, "The better response, or one that is labelled desirable (rejected is null then); of preferences."),
    rejected=(TEXT, "The worse response, or one that is labelled undesirable (chosen is null then); of preferences."),
    reference=(TEXT, "What a grader compares with; null where there is none."),
    meta=(TEXT, "JSON object of the columns that no shape knows."),
)
QUARANTINE = _table(
    "What ingest could not read.",
    source=(TEXT, "The source."),
    file=(TEXT, "The file."),
    line=(WHOLE, "The line, or the row's number."),
    reason=(TEXT, "Why it is no row."),
    text=(TEXT, "Its beginning."),
)
INSTRUCTIONS = _more(
    ROWS,
    "Every instruction row with the filter's verdict.",
    kept=(FLAG, "Whether the filter kept it."),
    reason=(TEXT, "The rule that dropped it; null where it was kept."),
    evidence=(TEXT, "JSON object: what the rule saw."),
)
_TRAINED = [f for f in ROWS if f.name not in ("chosen", "rejected", "reference", "meta")]
KEPT = pa.schema(_TRAINED, metadata={"about": "The rows that an SFT stage trains on: kept by the filter, or selected."})
CONTROL = pa.schema(_TRAINED, metadata={"about": "The rows that the control arm trains on instead of `kept`."})
DISTRIBUTIONS = _table(
    "How what was kept differs from what was read and from a random subset of that size.",
    which=(TEXT, "before, after or random."),
    measure=(TEXT, "What is counted: a length, a language, a score, the source."),
    bucket=(TEXT, "The bucket's name."),
    low=(REAL, "Its lower end; null where it is a name."),
    count=(WHOLE, "Rows in it."),
)
SAMPLES = _table(
    "Responses drawn from a policy, n per prompt.",
    row_id=(TEXT, "The row whose prompt was answered."),
    sample_id=(TEXT, "The sample."),
    sample_index=(pa.int32(), "Which of the n it is, from 0."),
    text=(TEXT, "The response."),
    finish_reason=(TEXT, "stop (the end-of-turn token was drawn) or truncated (a limit ended it)."),
    n_tokens=(pa.int32(), "Tokens drawn, the end-of-turn token among them."),
    reasoning=(
        TEXT,
        "The reasoning block that the template had before the response; null where there is none. Neither "
        "graded nor trained on.",
    ),  # fmt: skip
    logp=(pa.float32(), "Summed log-probability of the drawn tokens in nats, at temperature 1; null where unknown."),
)
SCORES = _table(
    "What a grader or a reward model thinks of a sample.",
    sample_id=(TEXT, "The sample."),
    scored_by=(TEXT, "The grader's name, or reward_model."),
    score=(REAL, "The score; 0 where unreadable, null where ungraded."),
    status=(TEXT, "correct, wrong, unreadable, ungraded, or scored (by a reward model)."),
    detail=(TEXT, "Why, in words."),
)
PAIRS = _table(
    "Preference pairs.",
    pair_id=(TEXT, "The pair."),
    row_id=(TEXT, "The row whose prompt both answer."),
    chosen_id=(TEXT, "The chosen sample; null for a reference or an imported pair."),
    rejected_id=(TEXT, "The rejected sample; null for an imported pair."),
    messages=(MESSAGES, "The turns before the response."),
    chosen=(TEXT, "The better response."),
    rejected=(TEXT, "The worse response."),
    margin=(REAL, "Score of the chosen minus score of the rejected; null where there are none."),
    labelled_by=(TEXT, "The grader's name, reference or imported."),
    held_out=(FLAG, "Kept from training, by hash of the prompt, to measure the reward model."),
    source=(TEXT, "The source of the row; null where it is not known."),
    category=(TEXT, "What the row's column category (or subset) says; null where it has neither."),
)
VERDICTS = _table(
    "What a judge said of two samples of a prompt, asked in both orders.",
    row_id=(TEXT, "The row whose prompt both answer."),
    first_id=(TEXT, "The sample that stood first in the first order."),
    second_id=(TEXT, "The other."),
    judged_by=(TEXT, "The judge's name."),
    winner=(TEXT, "first, second, tie (also where the verdict flips with the order), or none."),
    flipped=(FLAG, "Whether the judge preferred whatever stood in one place."),
    forward=(TEXT, "Its words in the first order."),
    backward=(TEXT, "Its words in the other."),
)
LABELS = _table(
    "Responses that are desirable or not, each by itself: what KTO is trained on.",
    label_id=(TEXT, "The label."),
    row_id=(TEXT, "The row whose prompt was answered."),
    sample_id=(TEXT, "The sample; null for a reference or an imported label."),
    messages=(MESSAGES, "The turns before the response."),
    response=(TEXT, "The response."),
    desirable=(FLAG, "Whether it is one to learn from."),
    labelled_by=(TEXT, "The grader's name, reference or imported."),
    held_out=(FLAG, "Kept from training, by hash of the prompt."),
)
HELD_OUT = _table(
    "The reward model's scores of the pairs that it was not trained on.",
    pair_id=(TEXT, "The pair."),
    chosen_score=(REAL, "Score of the chosen response."),
    rejected_score=(REAL, "Score of the rejected response."),
    chosen_before=(REAL, "Score of the chosen response before training; null where that says nothing (a new head)."),
    rejected_before=(REAL, "The same of the rejected response."),
    chosen_tokens=(WHOLE, "Tokens of the chosen response."),
    rejected_tokens=(WHOLE, "Tokens of the rejected response."),
    source=(TEXT, "The source of the pair's row."),
    category=(TEXT, "The category of the pair's row; null where it has none."),
)
REWARD_ACCURACY = _table(
    "How often the reward model prefers the chosen response of held-out pairs: of all, of each source and category.",
    by=(TEXT, "all, source or category."),
    name=(TEXT, "Which source or category; null of all."),
    pairs=(WHOLE, "Held-out pairs."),
    prompts=(WHOLE, "Their prompts, which are the unit of the interval."),
    accuracy=(REAL, "The mean over prompts of the share of pairs whose chosen score is the higher; a tie is half."),
    low=(REAL, "Lower end of its 95 % interval."),
    high=(REAL, "Upper end."),
    margin=(REAL, "Mean of the chosen score minus the rejected score, over pairs."),
)
REFERENCE = _table(
    "Log-probabilities of pairs under the policy that DPO starts from.",
    pair_id=(TEXT, "The pair."),
    chosen_logps=(REAL, "Summed log-probability of the chosen response's tokens, the end-of-turn token among them."),
    rejected_logps=(REAL, "The same of the rejected response."),
    chosen_tokens=(WHOLE, "Tokens of the chosen response that are summed over."),
    rejected_tokens=(WHOLE, "Tokens of the rejected response that are summed over."),
)
SELECTIONS = _table(
    "Which samples rejection sampling took.",
    row_id=(TEXT, "The row whose prompt was answered."),
    sample_id=(TEXT, "The sample that was taken."),
    arm=(TEXT, "best (of n by the reward model) or random (of the same n, the control)."),
)
BEST_OF = _table(
    "What the best of n by reward is worth to a grader, as n grows.",
    n=(WHOLE, "Responses of which the best is taken."),
    prompts=(WHOLE, "Prompts that this is over."),
    reward=(REAL, "The mean reward of the best of n."),
    grade=(REAL, "Its mean grade."),
    low=(REAL, "Lower end of the grade's 95 % interval."),
    high=(REAL, "Upper end."),
    oracle=(REAL, "The mean grade of the best of n by grade: what no reward can exceed."),
)
ROLLOUTS = _table(
    "What a policy drew while online RL trained it, and what that was worth.",
    row_id=(TEXT, "The row whose prompt was answered."),
    step=(WHOLE, "The optimiser step that drew it, from 1."),
    sample_index=(pa.int32(), "Which of the group it is, from 0."),
    text=(TEXT, "The response."),
    finish_reason=(TEXT, "stop or truncated."),
    n_tokens=(pa.int32(), "Tokens drawn, the end-of-turn token among them."),
    grade=(REAL, "The grader's score; null where ungraded, or without a grader."),
    score=(REAL, "The reward model's score; null without one."),
    reward=(REAL, "The weighted sum; null where a part is missing: nothing is learned from it."),
    trained=(FLAG, "Whether its group was trained on; a group of equal rewards gives its place to another prompt."),
)
DROPPED = _table(
    "What a stage could not use.",
    row_id=(TEXT, "The row or pair."),
    reason=(TEXT, "Why."),
    n_tokens=(WHOLE, "Its tokens, where they are the reason."),
)
ALTERED = _table(
    "Rows whose words hold control tokens of the model; they were broken up by a space, so that they stay words.",
    row_id=(TEXT, "The row or pair."),
    token=(TEXT, "The control token."),
    count=(WHOLE, "How often it stands in the row."),
)
TRAINING_LOG = _table(
    "What a training stage logged.",
    step=(WHOLE, "The optimiser step."),
    name=(TEXT, "loss, grad_norm, learning_rate, rewards/margins, ..."),
    value=(REAL, "Its value."),
)

TABLES: dict[str, pa.Schema] = {
    "rows": ROWS, "quarantine": QUARANTINE, "instructions": INSTRUCTIONS, "kept": KEPT, "control": CONTROL,
    "distributions": DISTRIBUTIONS, "samples": SAMPLES, "scores": SCORES, "pairs": PAIRS, "verdicts": VERDICTS,
    "labels": LABELS, "held_out": HELD_OUT, "reward_accuracy": REWARD_ACCURACY,
    "reference": REFERENCE, "selections": SELECTIONS, "best_of": BEST_OF,
    "rollouts": ROLLOUTS, "answers": ANSWERS, "options": OPTIONS,
    "evaluations": EVALUATIONS, "comparisons": COMPARISONS, "win_rates": WIN_RATES, "promotion": PROMOTION,
    "rewards": REWARDS, "divergences": DIVERGENCES, "hacking": HACKING,
    "dropped": DROPPED, "altered": ALTERED,
    "training_log": TRAINING_LOG,
}  # fmt: skip
"""The table in each file `NAME.parquet` of an artifact, by name; the view of that name reads it."""
