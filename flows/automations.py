"""The automations of a Prefect server that look after align's runs: it notices what no run can tell of itself."""

from datetime import timedelta
from typing import Any
from uuid import UUID

SILENCE = timedelta(seconds=100)  # three heartbeats: a run that says nothing for so long is dead
BEGINS = timedelta(minutes=30)  # from when a worker takes a run: an image may have to be fetched first


def make(client: Any, notify: UUID | None) -> None:
    """Make or renew the automations on a server. `notify` is the deployment that tells people; None: nobody is told."""
    from prefect.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.actions import ChangeFlowRunState, RunDeployment
    from prefect.states import StateType

    beat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Crashed", "Cancelled", "Suspended")}
    goes = {f"prefect.flow-run.{name}" for name in ("Running", "Cancelling", "Scheduled", "AwaitingRetry", "Late")}

    def crashed(name: str, description: str, after: str, expect: set[str], within: timedelta, message: str) -> None:
        trigger = EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of("align", "rerun-*", "maintain", "notify"),  # others may beat more slowly
            for_each={"prefect.resource.id"}, after={after}, expect=expect,
            posture=Posture.Proactive, threshold=1, within=within,
        )  # fmt: skip
        action = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)
        _upsert(client, AutomationCore(name=name, description=description, trigger=trigger, actions=[action]))

    crashed(
        "Runs without heartbeats have crashed",
        "A run that was killed together with its worker would stay Running for ever. After "
        f"{SILENCE.total_seconds():.0f} s without a heartbeat it is marked as crashed.",
        beat, {beat, *ends}, SILENCE, "No heartbeats: the process was killed.",
    )  # fmt: skip
    crashed(
        "Runs that do not begin have crashed",
        "A run whose worker was killed between taking and beginning it would stay Pending for ever. After "
        f"{BEGINS.total_seconds() / 60:.0f} min it is marked as crashed.",
        "prefect.flow-run.Pending", {*goes, *ends}, BEGINS, "It did not begin: the worker that took it was lost.",
    )  # fmt: skip

    if notify is None:
        return

    def tell(name: str, description: str, events: set[str], title: str, text: str, **match: Any) -> None:
        said = {key: {"__prefect_kind": "jinja", "template": t} for key, t in (("title", title), ("text", text))}
        trigger = EventTrigger(expect=events, posture=Posture.Reactive, threshold=1, **match)
        actions = [RunDeployment(source="selected", deployment_id=notify, parameters=said)]
        _upsert(client, AutomationCore(name=name, description=description, trigger=trigger, actions=actions))

    tell(
        "People are told of pipelines that fail",
        "Runs the deployment notify, which tells $ALIGN_NOTIFY of its worker.",
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        "align: {{ flow_run.name }} {{ flow_run.state.name }}",
        "{{ flow_run.state.message }}",
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=_of("align", "maintain"),
    )
    tell(
        "People are told of promotions",
        "Of models that became champion, and of those that wait for approval.",
        {"align.promoted", "align.waits"},
        "align: {{ event.payload.recipe }}",
        "{{ event.payload.verdict }}",
        match={"prefect.resource.id": "align.champion.*"},
    )


def _of(*flows: str) -> dict[str, Any]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}


def _upsert(client: Any, wanted: Any) -> None:
    if known := client.read_automations_by_name(wanted.name):
        client.update_automation(known[0].id, wanted)
    else:
        client.create_automation(wanted)
