"""The report's Korean: each English sentence of the code with what it is in Korean, a file for each part of the page."""

from align.report.korean import data, findings, hacking, models, pipeline, run

SENTENCES: dict[str, str] = {
    **data.SENTENCES, **findings.SENTENCES, **hacking.SENTENCES, **models.SENTENCES, **pipeline.SENTENCES,
    **run.SENTENCES,
}  # fmt: skip
