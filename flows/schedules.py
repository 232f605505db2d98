"""When deployments run, by prefect.yaml: what of a schedule is on the server, and what has to change there."""

from collections.abc import Mapping, Sequence
from typing import Any

from align.errors import InputError

OWN = {"slug", "active", "parameters", "max_scheduled_runs"}
"""What is told of a schedule beside when it is: cron, interval or rrule, as Prefect has them."""


def new(asked: Mapping[str, Any]) -> list[Any]:
    """The schedules of a deployment of prefect.yaml that is not there yet."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    return [DeploymentScheduleCreate(**schedule) for schedule in _told(asked)]


def renewed(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be changed of one that is there, by the slugs of its schedules. What prefect.yaml says nothing of
    stays, such as that somebody paused one."""
    from prefect.client.schemas.actions import DeploymentScheduleUpdate

    return {"schedules": found} if (found := [DeploymentScheduleUpdate(**each) for each in _told(asked)]) else {}


def are(asked: Mapping[str, Any], there: Sequence[Any]) -> bool:
    """Whether those of prefect.yaml are on the server as they are to be. Others may be there, too."""
    known = {schedule.slug: schedule for schedule in there}
    return all(agrees(known.get(told["slug"]), told) for told in _told(asked))


def agrees(there: Any, told: Mapping[str, Any]) -> bool:
    """Whether something on the server has these values; None has none."""
    return there is not None and all(getattr(there, name) == value for name, value in told.items())


def _told(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
    from pydantic import TypeAdapter, ValidationError

    kinds: TypeAdapter[Any] = TypeAdapter(CronSchedule | IntervalSchedule | RRuleSchedule)
    found, where = [], f"prefect.yaml: {asked['name']}"
    for told in asked.get("schedules", ()):
        when = {name: value for name, value in told.items() if name not in OWN}
        try:
            schedule = kinds.validate_python(when)
        except ValidationError:
            raise InputError(f"{where}: {when} is no schedule; give cron, interval or rrule.") from None
        if "slug" not in told:
            raise InputError(f"{where}: the schedule {when} needs a slug, by which it is known.")
        found.append({"schedule": schedule, **{name: told[name] for name in OWN & told.keys()}})
    return found
