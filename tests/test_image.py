"""The Dockerfile and the job templates, as far as they can be checked without a registry and a cluster."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from align.errors import InputError
from flows.deploy import TEMPLATES, deployments, template
from flows.recipe import ROOT
from flows.stages import STAGES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = ROOT / "Dockerfile"
KINDS = sorted(path.stem for path in TEMPLATES.glob("*.json"))
# Of a later prefect-docker than the metadata that Prefect brings: what goes to docker-py's containers.create.
LATER = {"docker": {"container_create_kwargs"}}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: (word, rest)."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for line in text.splitlines() if line for word, _, rest in [line.partition(" ")]]


def test_the_linter_finds_nothing():
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, "--no-color", str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_that_is_copied_is_there_and_is_sent_to_the_builder():
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    assert sent[0] == "*" and {f"!{source}" for source in copied} == {line for line in sent if line[:1] == "!"}
    assert all((ROOT / source).exists() for source in copied)
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(copied)


def test_it_installs_the_project_as_the_makefile_does():
    commands = [c.strip() for word, rest in instructions() if word == "RUN" for c in rest.split("&&")]
    installs = [shlex.split(c) for c in commands if c.startswith("pip ")]
    assert installs and all(words[:4] == ["pip", "install", "-c", "constraints.txt"] for words in installs)
    project = [words for words in installs if "-e" in words]
    assert len(project) == 2
    for words in project:
        extras = re.fullmatch(r"\.\[([\w,]+)\]", words[-1])
        assert extras and set(extras[1].split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    version = re.search(r"python:(\d+\.\d+)", DOCKERFILE.read_text())
    assert version and version[1] == PROJECT["tool"]["mypy"]["python_version"]


def test_both_targets_are_there():
    stages = [rest.split()[-1] for word, rest in instructions() if word == "FROM"]
    assert {"cpu", "cuda"} <= set(stages)
    starts = [json.loads(rest) for word, rest in instructions() if word == "CMD"]
    assert [words[:4] for words in starts] == [["prefect", "worker", "start", "--pool"]] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gpu", [False, True])
def test_a_template_is_of_the_worker_that_reads_it(kind: str, gpu: bool) -> None:
    ours: Any = template(kind, gpu, "align:test")  # type: ignore[arg-type]
    theirs = bundled()[kind]
    assert set(ours["job_configuration"]) - LATER.get(kind, set()) <= set(theirs["job_configuration"])
    variables = set(ours["variables"]["properties"])
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(ours["job_configuration"])))
    assert used == variables  # none is missing, and none has no effect
    assert ours["variables"]["properties"]["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    for name, about in ours["variables"]["properties"].items():
        if name in theirs["variables"]["properties"]:
            assert about["type"] == theirs["variables"]["properties"][name].get("type", "object"), name


def bundled() -> dict[str, Any]:
    """The base job templates that Prefect brings, by the type of the worker."""
    found = find_spec("prefect")
    assert found is not None and found.origin is not None
    file = Path(found.origin).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    return {kind: about["default_base_job_configuration"] for c in known.values() for kind, about in c.items()}


def test_a_gpu_job_of_docker_is_what_docker_understands():
    types = pytest.importorskip("docker.types")
    ours = template("docker", True, "align:test")
    devices = ours["variables"]["properties"]["devices"]["default"]
    made = types.HostConfig(version="1.43", device_requests=devices, shm_size="8g")
    assert made["DeviceRequests"][0]["Capabilities"] == [["gpu"]] and made["ShmSize"] == 8 << 30
    assert template("docker", False, "align:test")["variables"]["properties"]["devices"]["default"] == []


def test_a_gpu_job_of_kubernetes_asks_for_a_gpu_and_memory_and_mounts_the_store():
    ours = template("kubernetes", True, "align:test")
    variables = ours["variables"]["properties"]
    assert (variables["gpus"]["default"], variables["image"]["default"]) == (1, "align:test")
    pod = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    stages = {d["name"]: d for d in deployments({"align-cpu": "process", "align-gpu": "kubernetes"})["deployments"]}
    asked = {name: d["work_pool"].get("job_variables") for name, d in stages.items()}
    assert asked["dpo"] == {"memory_request": "16000M"} and asked["filter"] == {} and not asked["pipeline"]
    assert set(stages) >= {stage.name for stage in STAGES if stage.gpu}


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_containers_need_an_image(kind):
    with pytest.raises(InputError, match="--image"):
        template(kind, False)
