"""What a Prefect server needs to run pipelines: pools, deployments, forms that are filled in, automations. All of it is
made or renewed, so that doing it again changes nothing."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from align.errors import InputError
from flows import automations, schedules
from flows.paths import portable
from flows.recipe import RECIPES, Recipe, find, load
from flows.server import FLOWS
from flows.stages import STAGES, Stage

MANIFEST = Path(__file__).with_name("prefect.yaml")  # a link to the one at the top, so that packages have it
TEMPLATES = Path(__file__).with_name("pools")
CPU, GPU = "align-cpu", "align-gpu"
KEYS = {"name", "entrypoint", "description", "tags", "parameters", "work_pool", "schedules"}  # of prefect.yaml
Kind = Literal["process", "docker", "kubernetes", "keep"]
POOLS = {
    CPU: "Pipelines, and stages that only read.",
    GPU: "Stages that load a model. Each device of a worker computes one at a time.",
}
# What a job has on top that may use GPUs: all of a docker host's, which take turns by the limits of flows/devices.py.
ON_GPU: dict[str, dict[str, Any]] = {
    "process": {},
    "docker": {"devices": [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}]},
    "kubernetes": {"gpus": 1},
}


def deploy(recipe: str, kinds: Mapping[str, Kind], image: str | None = None) -> None:
    """Make everything on the server that Prefect's settings name, for `recipe` as the deployments' default.

    `kinds` are the types of the pools; one to `keep` is made by others, in a way of their own. Raises InputError where
    that is not there, or one of another type is, or an image is missing.
    """
    make(named(recipe), load(recipe), kinds, image)


def named(recipe: str) -> str:
    """How runs, which have a working directory of their own, find a recipe: by its name, or its whole path."""
    path = find(recipe)
    return recipe if path.parent == RECIPES else str(path.resolve())


def make(
    recipe: str,
    loaded: Recipe,
    kinds: Mapping[str, Kind],
    image: str | None = None,
    tell: bool = True,
) -> None:
    """The same, with whether people are told of what happens."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for name, kind in kinds.items():
            pool(client, name, kind, image)
        deployed(client, kinds, recipe, loaded)
        automations.make(client, client.read_deployment_by_name("notify/notify").id if tell else None)


def pool(client: Any, name: str, kind: Kind, image: str | None) -> None:
    """Make or renew a work pool, unless it is one to keep."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    kept: dict[str, Any] = {}
    try:
        found = client.read_work_pool(name)
        there, kept = found.type, {"concurrency_limit": found.concurrency_limit, "is_paused": found.is_paused}
    except ObjectNotFound:
        if kind == "keep":
            raise InputError(f"There is no work pool {name} to keep; `prefect work-pool create {name}`.") from None
        there = kind
    if kind == "keep":
        return
    if there != kind:
        raise InputError(
            f"The work pool {name} is of type {there}; name that with --type, or delete it first with "
            f"`prefect work-pool delete {name}`."
        )
    wanted = WorkPoolCreate(
        name=name, type=kind, description=POOLS[name], base_job_template=template(kind, name == GPU, image),
        **kept,
    )  # fmt: skip
    client.create_work_pool(wanted, overwrite=True)


def template(kind: Kind, gpu: bool, image: str | None = None) -> dict[str, Any]:
    """The base job template of a pool. Raises InputError where a container has no image."""
    found: dict[str, Any] = json.loads((TEMPLATES / f"{kind}.json").read_text(encoding="utf-8"))
    variables = found["variables"]["properties"]
    if "image" in variables:
        if image is None:
            raise InputError(f"Jobs of type {kind} need --image, built from the Dockerfile (docs/cluster.md).")
        variables["image"]["default"] = image
    for name, value in {"env": FLOWS, **(ON_GPU[kind] if gpu else {})}.items():
        variables[name]["default"] = value
    return found


def deployed(client: Any, kinds: Mapping[str, Kind], recipe: str, loaded: Recipe) -> None:
    """Make or renew every deployment, with `recipe` as the default of those that take one, and its settings as what the
    stages' forms show. A schedule that somebody paused stays so.

    As `prefect deploy --all` does, which asks for every fact anew and takes three times as long, and for what is there
    as long again.
    """
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["align"]))
    there = {(d.flow_id, d.name): d for d in client.read_deployments(deployment_filter=ours, limit=200)}
    flows: dict[str, Any] = {flow.name: flow.id for flow in client.read_flows(limit=200)}
    for asked in deployments(kinds)["deployments"]:
        flow = _flow(asked["entrypoint"])
        where = flows.get(flow.name) or client.create_flow_from_name(flow.name), asked["name"]
        facts = {
            "entrypoint": asked["entrypoint"], "version": flow.version, "tags": asked["tags"],
            "description": asked.get("description") or flow.description,
            "parameters": asked.get("parameters", {}) | _form(asked, flow, recipe, loaded),
            "parameter_openapi_schema": flow.parameters.model_dump(exclude_unset=True),
            "enforce_parameter_schema": True, "pull_steps": [], "work_pool_name": asked["work_pool"]["name"],
            "job_variables": asked["work_pool"].get("job_variables", {}),
        }  # fmt: skip
        if where not in there:
            client.create_deployment(*where, **facts, schedules=schedules.new(asked))
        elif not (schedules.agrees(there[where], facts) and schedules.are(asked, there[where].schedules)):
            client.update_deployment(there[where].id, DeploymentUpdate(**facts, **schedules.renewed(asked)))


def _flow(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(import_module(module), name)


def _form(asked: Mapping[str, Any], flow: Any, recipe: str, loaded: Recipe) -> dict[str, Any]:
    """What a deployment's form is filled in with."""
    if "recipe" not in flow.parameters.properties:
        return {}
    settings = {"config": portable(getattr(loaded, asked["name"]))} if "stage" in asked["tags"] else {}
    return {"recipe": recipe, **settings}


def deployments(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """prefect.yaml, and one deployment for each stage that people run alone, or that workers with a GPU compute."""
    from ruamel.yaml import YAML

    found: dict[str, Any] = YAML(typ="safe").load(MANIFEST.read_text(encoding="utf-8"))
    for each in found["deployments"]:
        if more := sorted(each.keys() - KEYS):
            raise InputError(
                f"prefect.yaml: {each['name']}: {', '.join(more)} is nothing that align deploys; take it out, or use "
                "`prefect deploy`."
            )
    found["deployments"] += [
        {"name": stage.name, "entrypoint": f"flows.rerun.{stage.name}",
         "tags": [*stage.tags, *(["stage"] if stage.alone else [])], "work_pool": _work_pool(stage, kinds)}
        for stage in STAGES if stage.alone or stage.gpu
    ]  # fmt: skip
    return found


def _work_pool(stage: Stage, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    name = GPU if stage.gpu else CPU
    memory = {"memory_request": f"{stage.memory}M"} if kinds[name] == "kubernetes" else {}
    return {"name": name, "job_variables": memory}
