"""The model card: README.md with the metadata that hubs read, and what is known of a policy, with its intervals.

It names no path of the machine that it is made on and no secret: settings hold digests in place of files, and what is
left goes through `clean`.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.handover.export import Form
from align.redact import redact

SOURCE = ("source", "from", "use", "read", "rows", "quarantined")
ARTIFACT = ("stage", "artifact", "digest", "made_from", "counts")
UNKNOWN = "other"  # the licence that hubs know for one that they do not know
_PATH = re.compile(r"(?<![\w:/.~-])~?/(?:[^\s/`'\"|<>()\[\]{},;:]+/)+([^\s/`'\"|<>()\[\]{},;:]+)")


@dataclass(frozen=True)
class Facts:
    """What a card says."""

    model: str
    """The stage that trained it."""
    form: Form
    weights: str
    """A sentence: which weights these are."""
    run: str
    recipe: str
    description: str
    base: str
    """The base's Hub id, or the name of its folder."""
    base_hub: bool
    base_revision: str | None
    base_digest: str
    licence: str | None
    languages: Sequence[str] = ()
    sources: Sequence[Mapping[str, Any]] = ()
    """Of each source: source, from, use, read, rows, quarantined; `dataset` where it is one of the Hub's."""
    lineage: Sequence[Mapping[str, Any]] = ()
    """Of each artifact that it comes of, in order: stage, artifact, digest, made_from, counts."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings by stage."""
    comparisons: Sequence[Mapping[str, Any]] = ()
    """Rows of the view `comparisons`: every model alone, and this one against the others."""
    served: Mapping[str, Any] | None = None
    """What served.json holds; None where there is no certificate."""
    uncertified: str = ""
    """Why there is none."""


def clean(text: str) -> str:
    """The text without secrets, and with the last part of each absolute path in its place."""
    return redact(_PATH.sub(r"\1", text))


def card(facts: Facts) -> str:
    """The text of README.md."""
    body = "\n\n".join(part for part in _parts(facts) if part)
    return clean(f"---\n{_yaml(_metadata(facts))}---\n\n{body}\n")


def _metadata(f: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {"license": f.licence or UNKNOWN}
    if not f.licence:
        found["license_name"] = "unknown"
    if f.base_hub:
        found |= {"base_model": f.base, "base_model_relation": "adapter" if f.form == "adapter" else "finetune"}
    if datasets := sorted({s["dataset"] for s in f.sources if s.get("dataset")}):
        found["datasets"] = datasets
    if f.languages:
        found["language"] = list(f.languages)
    libraries: dict[Form, str] = {"adapter": "peft", "gguf": "gguf", "merged": "transformers"}
    tags = [stage["stage"] for stage in f.lineage if stage["stage"] in ("sft", "dpo")]
    return found | {
        "library_name": libraries[f.form],
        "pipeline_tag": "text-generation",
        "tags": ["align", "conversational", *dict.fromkeys([*tags, *(["lora"] if f.form == "adapter" else [])])],
    }


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    text, yaml = io.StringIO(), YAML()
    yaml.default_flow_style, yaml.allow_unicode, yaml.width = False, True, 4096
    yaml.dump(value, text)
    return text.getvalue()


def _parts(f: Facts) -> Iterator[str]:
    yield f"# {_text(f.recipe)}: {_text(f.model)}"
    yield _text(f.description)
    revision = f" at revision `{f.base_revision}`" if f.base_revision else ""
    digest = f" (weights sha256 `{f.base_digest[:16]}`)"
    name = f"[{f.base}](https://huggingface.co/{f.base})" if f.base_hub else f"`{f.base}`, a local directory"
    yield f"The base is {name}{revision}{digest}. {f.weights}"
    if not f.licence:
        yield "**The licence is unknown**: the base names none. Give one with `align export --license`."
    yield f"## How to use it\n\n{_use(f)}"
    yield f"## Is it what was graded?\n\n{_certificate(f)}"
    yield f"## Evaluation\n\n{_evaluation(f)}"
    if f.sources:
        yield f"## Data\n\n{_table(SOURCE, f.sources)}\n\n`rows` are those taken of what was `read`."
    yield f"## Lineage\n\nRun `{f.run}` of the recipe `{f.recipe}`.\n\n{_table(ARTIFACT, f.lineage)}"
    if f.settings:
        yield (
            "## Settings\n\nFiles stand as digests of their contents.\n\n<details><summary>of each stage</summary>"
            f"\n\n```yaml\n{_yaml(_plain(f.settings))}```\n\n</details>"
        )
    yield f"## Limitations\n\n{_limitations(f)}"


def _use(f: Facts) -> str:
    if f.form == "gguf":
        return "```sh\nllama-cli -m model.gguf -cnv\nllama-server -m model.gguf\n```"
    if f.form == "adapter":
        dtype = f.served["plain"]["dtype"] if f.served else "auto"
        return (
            "```python\nfrom peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer, "
            f'GenerationConfig\n\nmodel = AutoPeftModelForCausalLM.from_pretrained(DIR, dtype="{dtype}")\n'
            "tokenizer = AutoTokenizer.from_pretrained(DIR)\nsettings = GenerationConfig.from_pretrained(DIR)  # ends "
            "with a turn\nids = tokenizer.apply_chat_template(\n"
            '    [{"role": "user", "content": "..."}], add_generation_prompt=True, return_tensors="pt", '
            "return_dict=True\n)\nsaid = model.generate(**ids, generation_config=settings, max_new_tokens=256)\n```"
        )
    return (
        '```python\nfrom transformers import pipeline\n\ntalk = pipeline("text-generation", model=DIR)\n'
        'print(talk([{"role": "user", "content": "..."}])[0]["generated_text"][-1]["content"])\n```\n\n'
        "`vllm serve DIR` and `transformers serve DIR` load it too. It answers greedily unless it is told to sample."
    )


def _certificate(f: Facts) -> str:
    if f.served is None:
        return f"**Not certified**: {f.uncertified}."
    s = f.served
    lines = [f"{'Certified' if s['certified'] else '**Not certified**'} (`served.json`): {s['because']}."]
    plain, found = s["plain"], s["plain"]["drift"]
    of = "The merged weights that the GGUF was converted from, loaded" if f.form == "gguf" else "Loaded"
    lines.append(
        f"{of} by transformers {plain['transformers']} ({plain['dtype']}, {plain['device']}), it answers "
        f"{plain['items']} evaluation items greedily. Of the answers {plain['same_text']:.1%} are those that were "
        f"graded, to the letter, and {plain['same_tokens']:.1%} of their first tokens; {plain['prompts_alike']} of the "
        "prompts are the same tokens."
    )
    if "difference" in plain:
        interval = f"{plain['difference']:+.1%} [{plain['low']:+.1%}, {plain['high']:+.1%}]"
        lines.append(
            f"Graded again: {plain['mean_exported']:.1%} against {plain['mean_graded']:.1%}, a paired difference of "
            f"{interval} on {plain['graded']} items ({plain['verdict']})."
        )
    if found["max"] is not None:
        lines.append(
            f"Drift: over {found['tokens']} tokens of {found['answers']} answers the log-probabilities differ from "
            f"those of the graded policy by {found['mean']:.2g} nats a token on average, by {found['max']:.2g} at most."
        )
    server = s.get("server", {})
    if "failed" in server:
        lines.append("A server did not answer, so that only transformers was asked.")
    if "served_by" in server:
        lines.append(f"Through `{server['served_by']}` {server['same_text']:.1%} of the answers are the graded ones.")
    return "\n\n".join(lines)


def _evaluation(f: Facts) -> str:
    alone = [
        {"suite": c["suite"], "mode": c["mode"], "model": c["model"], "n": c["n"],
         "mean grade %": _interval(c["mean"], c["low"], c["high"])}
        for c in f.comparisons if c["against"] is None
    ]  # fmt: skip
    if not alone:
        return "This run has evaluated nothing."
    against = [
        {"suite": c["suite"], "mode": c["mode"], "against": c["against"], "n": c["n"],
         "difference %": _interval(c["diff"], c["diff_low"], c["diff_high"], "+"), "verdict": c["verdict"]}
        for c in f.comparisons if c["against"] is not None and c["model"] == f.model
    ]  # fmt: skip
    parts = ["Held-out items; 95 % intervals over items.", _table(tuple(alone[0]), alone)]
    if against:
        parts += [f"`{f.model}` against the others, paired by item:", _table(tuple(against[0]), against)]
    return "\n\n".join(parts)


def _limitations(f: Facts) -> str:
    lines = [
        "The intervals say how much the choice of items matters; they come of one training with one seed.",
        "What is not in the evaluation above was not measured, among it safety, toxicity and bias.",
    ]
    if f.languages:
        lines.append(f"The training data is in {', '.join(f.languages)}; other languages were not trained on.")
    if f.form == "adapter" and "NF4" in f.weights:
        lines.append("The policy that was graded is the adapter on the quantised base; see the drift above.")
    if f.form == "gguf":
        lines.append("What was graded are the weights before their conversion; the GGUF file itself was not asked.")
    return "\n".join(f"- {line}" for line in lines)


def _interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None or low is None or high is None:
        return ""
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_text(row.get(c)) for c in columns)} |" for row in rows]
    return "\n".join(lines)


def _text(value: Any) -> str:
    """A value as text that no table, page or heading takes for its own."""
    if value is None:
        return ""
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(shown.split()).replace("<", "&lt;").replace("|", "\\|")


def _plain(value: Any) -> Any:
    """The value in types that YAML writes plainly."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return value.name
    return value
