"""The pictures of Prefect's UI in the README, of a real server on which a recipe really runs.

python -m docs.pictures [RECIPE] [FOLDER]     # the quickstart, to docs/ui; needs Chromium, and some minutes
"""

import base64
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.recipe import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser
from served import Served, wait_for

WIDE, HIGH = 1280, 800
SETTLE = 4.0  # seconds in which a page draws what it asked for
DOWN = "document.querySelectorAll('*').forEach(e => e.scrollTop = e.scrollHeight)"


class Pictures:
    """A browser that is logged in, and where its pictures go."""

    def __init__(self, served: Served, browser: Browser, folder: Path):
        self.served, self.browser, self.folder = served, browser, folder
        browser.ask("Emulation.setDeviceMetricsOverride", width=WIDE, height=HIGH, deviceScaleFactor=1, mobile=False)
        browser.go(served.ui)
        login = base64.b64encode(served.login.encode()).decode()
        browser.value(f"localStorage.setItem('prefect-password', {json.dumps(login)})")

    def take(self, name: str, path: str, before: str = "") -> None:
        """A picture of a page of the UI, after a script, or of any address."""
        self.browser.go(path if "://" in path else f"{self.served.ui}/{path}")
        time.sleep(SETTLE)
        if before:
            self.browser.value(before)
            time.sleep(SETTLE / 4)
        self.browser.picture(self.folder / f"{name}.webp", WIDE, HIGH)
        print(self.folder / f"{name}.webp", flush=True)


def main(recipe: str = "quickstart", folder: str = str(ROOT / "docs" / "ui")) -> None:
    """Serve the recipe, run its pipeline, and look."""
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(ignore_cleanup_errors=True) as room:
        served = Served(Path(room), recipe)
        browser = Browser(Path(room) / "chromium")
        try:
            take(Pictures(served, browser, to))
        finally:
            browser.close()
            served.process.terminate()
            served.process.wait()


def take(pictures: Pictures) -> None:
    """All of them."""
    served = pictures.served
    with served.client() as client:
        pipeline = client.read_deployment_by_name("align/pipeline")
        run = client.create_flow_run_from_deployment(pipeline.id)

        def over() -> bool:
            state = client.read_flow_run(run.id).state
            return state is not None and state.is_final()

        moving = wait_for(lambda: _progress(served, run) or over())
        if moving is True:
            print("no stage trained long enough to be seen", file=sys.stderr)
        else:
            pictures.take("progress", f"artifacts/artifact/{moving.id}")
        wait_for(over, patience=3600)
        dpo = client.read_deployment_by_name("rerun-dpo/dpo")
    # What the change of one setting makes run again: the rest is cached.
    again = served.run("rerun-dpo/dpo", config=dict(dpo.parameters["config"]) | {"beta": 0.2}, downstream=True)
    made = served.artifacts(run)
    pictures.take("run", f"runs/flow-run/{run.id}")
    pictures.take("again", f"runs/flow-run/{again.id}", DOWN)
    pictures.take("form", f"deployments/deployment/{dpo.id}/run")
    for name in ("evaluate-metrics", "filter-funnel", "report"):
        found = next(a for a in made.values() if (a.key or "").endswith(name))
        pictures.take(name, f"artifacts/artifact/{found.id}")
    pictures.take("dashboard", "dashboard")
    reports = sorted((served.store.root / "artifacts").glob("report-*/report.html"), key=lambda p: p.stat().st_mtime)
    pictures.take("page", reports[-1].as_uri())


def _progress(served: Served, run: Any) -> Any:
    """An artifact of a run that shows how far a training is, if one runs."""
    return next((a for a in served.artifacts(run).values() if " · loss " in (a.description or "")), None)


if __name__ == "__main__":
    main(*sys.argv[1:])
