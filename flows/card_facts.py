"""What the store knows of a policy, for its card: what it comes of, what it was trained on, how it was graded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.handover.card import Facts
from align.handover.export import Form, made_from
from align.handover.licence import licence_of
from align.models.base import BaseConfig, identity
from storage import runs
from storage.store import Store
from storage.views import connect


def facts_of(
    store: Store,
    run: str,
    model: str,
    base: BaseConfig,
    artifact: str,
    form: Form,
    licence: str | None,
    served: Mapping[str, Any] | None,
    why: str,
) -> Facts:
    """What the card says of a policy; `why` there is no certificate, where `served` is None."""
    source = runs.source(store, run)
    past = _past(store, run, artifact)
    query = "SELECT * FROM comparisons ORDER BY suite, mode, model, against"
    cursor = connect(store, query, run).execute(query)
    names = [column[0] for column in cursor.description or []]
    return Facts(
        model=model, form=form, weights=made_from(base, form), run=run, recipe=source["name"],
        description=source.get("description", ""), base=base.hub or (base.path or Path()).resolve().name,
        base_hub=base.hub is not None, base_revision=base.revision, base_digest=identity(base)["weights"],
        licence=licence or licence_of(base), languages=_languages(store, run), sources=_sources(store, run),
        lineage=past, settings={p["stage"]: p["settings"] for p in past},
        comparisons=[dict(zip(names, row, strict=True)) for row in cursor.fetchall()],
        served=served, uncertified=why,
    )  # fmt: skip


def _past(store: Store, run: str, artifact: str) -> list[dict[str, Any]]:
    """The artifacts that one comes of and itself, in the order of the run."""
    recorded = {s["artifact"]: s for s in runs.stages(store, run) if s["artifact"]}
    found: dict[str, dict[str, Any]] = {}
    todo = [artifact]
    while todo:
        name = todo.pop()
        if name in found or name not in recorded:
            continue
        record, here = recorded[name], store.artifact(name)
        made = [a for a in store.attempts(record["key"]) if a.artifact == name]
        before = [v["artifact"] for v in made[-1].inputs.values() if "artifact" in v] if made else []
        found[name] = {
            "stage": record["stage"], "artifact": name, "digest": here.digest() if here else "",
            "made_from": ", ".join(recorded[b]["stage"] for b in dict.fromkeys(before) if b in recorded),
            "counts": _counts(record["metrics"]), "settings": made[-1].config if made else {},
        }  # fmt: skip
        todo += before
    return [found[name] for name in recorded if name in found]


def _counts(metrics: Mapping[str, Any]) -> str:
    names = ("rows", "read", "kept", "samples", "pairs", "labels", "steps")
    return ", ".join(f"{name} {metrics[name]:,}" for name in names if isinstance(metrics.get(name), int))


def _sources(store: Store, run: str) -> list[dict[str, Any]]:
    """What was read, by source."""
    asked = runs.source(store, run)["ingest"]["sources"]
    counted: dict[str, Any] = next((s["metrics"] for s in runs.stages(store, run) if s["stage"] == "ingest"), {})
    found = []
    for name, source in asked.items():
        hub = source.get("hub")
        where = f"{hub['id']} at {hub['revision']}" if hub else Path(source["path"] or name).name
        counts = {column: counted.get(f"{column}.{name}") for column in ("read", "rows", "quarantined")}
        found.append({"source": name, "from": where, "use": source["use"], "dataset": hub and hub["id"], **counts})
    return found


def _languages(store: Store, run: str) -> list[str]:
    """The languages of at least a twentieth of the prompts that the filter kept."""
    query = "SELECT bucket, count FROM distributions WHERE which = 'after' AND measure = 'prompt_language'"
    counted = dict(connect(store, query, run).execute(query).fetchall())
    enough = sum(counted.values()) / 20
    return sorted(name for name, n in counted.items() if len(name) in (2, 3) and n >= enough)
