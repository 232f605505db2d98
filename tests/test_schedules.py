"""Schedules of prefect.yaml: as Prefect has them, and what is wrong is one sentence. On a server: tests/test_prefect.py."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.errors import InputError
from flows import deploy, schedules

NIGHTLY = {"cron": "0 2 * * *", "timezone": "Asia/Seoul", "slug": "nightly"}
HOURLY = {"interval": 3600, "slug": "hourly", "active": False, "max_scheduled_runs": 3}


def asked(*told: dict[str, Any]) -> dict[str, Any]:
    return {"name": "pipeline", "schedules": list(told)}


def test_each_kind_is_what_prefect_makes_of_it() -> None:
    night, hour, rule = schedules.new(asked(NIGHTLY, HOURLY, {"rrule": "FREQ=DAILY", "slug": "daily"}))
    assert (night.schedule.cron, night.schedule.timezone, night.slug) == ("0 2 * * *", "Asia/Seoul", "nightly")
    assert hour.schedule.interval == timedelta(hours=1) and not hour.active and hour.max_scheduled_runs == 3
    assert rule.schedule.rrule.endswith("FREQ=DAILY") and schedules.new({"name": "notify"}) == []


def test_what_prefect_yaml_says_nothing_of_stays() -> None:
    (night,) = schedules.renewed(asked(NIGHTLY))["schedules"]
    assert night.model_dump(exclude_unset=True).keys() == {"schedule", "slug"}
    assert schedules.renewed({"name": "notify"}) == {}


def test_one_that_is_as_it_is_to_be_is_left() -> None:
    there = [SimpleNamespace(**{"active": False, "slug": s.slug, "schedule": s.schedule}) for s in
             schedules.new(asked(NIGHTLY, {"interval": 60, "slug": "by hand"}))]  # fmt: skip
    assert schedules.are(asked(NIGHTLY), there)
    assert not schedules.are(asked(NIGHTLY | {"active": True}), there)
    assert not schedules.are(asked(NIGHTLY | {"cron": "0 3 * * *"}), there)
    assert not schedules.are(asked(NIGHTLY, HOURLY), there)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"slug": "x"}, "pipeline: {} is no schedule; give cron"),
        ({"cron": "never", "slug": "x"}, "is no schedule"),
        ({"cron": "0 2 * * *", "timezone": "Mars", "slug": "x"}, "is no schedule"),
        ({"cron": "0 2 * * *"}, "needs a slug"),
    ],
)
def test_what_is_none_is_one_sentence(told: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        schedules.new(asked(told))


def test_what_align_does_not_deploy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = deploy.MANIFEST.read_text().replace(
        "    tags: [align]\n", "    tags: [align]\n    concurrency_limit: 3\n", 1
    )
    (tmp_path / "prefect.yaml").write_text(text)
    monkeypatch.setattr(deploy, "MANIFEST", tmp_path / "prefect.yaml")
    with pytest.raises(InputError, match="pipeline: concurrency_limit is nothing that align deploys"):
        deploy.deployments(dict.fromkeys(deploy.POOLS, "process"))
