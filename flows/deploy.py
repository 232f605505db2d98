"""What a Prefect server needs to run pipelines: pools, deployments, forms that are filled in, automations. All of it is
made or renewed, so that doing it again changes nothing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from align.errors import AlignError, InputError
from flows import automations, child
from flows.paths import portable
from flows.recipe import RECIPES, Recipe, find, load
from flows.server import FLOWS
from flows.stages import STAGES, Stage

MANIFEST = Path(__file__).with_name("prefect.yaml")  # a link to the one at the top, so that packages have it
TEMPLATES = Path(__file__).with_name("pools")
CPU, GPU = "align-cpu", "align-gpu"
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
    loaded, name = load(recipe), named(recipe)
    with TemporaryDirectory(prefix="align-deploy-") as folder:
        make(name, loaded, kinds, dict(os.environ), Path(folder), image)


def named(recipe: str) -> str:
    """How runs, which have a working directory of their own, find a recipe: by its name, or its whole path."""
    path = find(recipe)
    return recipe if path.parent == RECIPES else str(path.resolve())


def make(
    recipe: str,
    loaded: Recipe,
    kinds: Mapping[str, Kind],
    environment: dict[str, str],
    folder: Path,
    image: str | None = None,
    tell: bool = True,
) -> None:
    """The same, with a folder for what is written on the way, and whether people are told of what happens."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for name, kind in kinds.items():
            pool(client, name, kind, image)
    _deployments(kinds, environment, folder)
    with get_client(sync_client=True) as client:
        fill_forms(client, recipe, loaded)
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


def _deployments(kinds: Mapping[str, Kind], environment: dict[str, str], folder: Path) -> None:
    manifest, log = folder / "prefect.yaml", folder / "deploy.log"
    log.unlink(missing_ok=True)
    manifest.write_text(json.dumps(deployments(kinds)), encoding="utf-8")  # JSON is YAML
    words = ["--no-prompt", "deploy", "--all", "--prefect-file", str(manifest)]
    deploying = child.spawn("prefect", *words, env=environment, log=log)
    try:
        if deploying.wait():
            raise AlignError(f"The deployments of prefect.yaml could not be made: {child.tail(log)}")
    finally:
        child.stop(deploying)


def deployments(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """prefect.yaml, and one deployment for each stage that people run alone, or that workers with a GPU compute."""
    from ruamel.yaml import YAML

    found: dict[str, Any] = YAML(typ="safe").load(MANIFEST.read_text(encoding="utf-8"))
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


def fill_forms(client: Any, recipe: str, loaded: Recipe) -> None:
    """Make a recipe the default of every deployment that takes one, and its settings what the stages' forms show."""
    from prefect.client.schemas.actions import DeploymentUpdate

    for deployment in client.read_deployments(limit=200):
        if "align" not in deployment.tags or "recipe" not in deployment.parameter_openapi_schema["properties"]:
            continue
        parameters: dict[str, Any] = {**deployment.parameters, "recipe": recipe}
        if "stage" in deployment.tags:
            parameters["config"] = portable(getattr(loaded, deployment.name))
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))
