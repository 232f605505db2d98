"""Where each thing lies in a store, as a name relative to its root; a directory and a bucket have the same names.

    artifacts/<stage>-<digest>/   the files of one artifact, and manifest.json, written last: existence means complete
    attempts/<key>/<time>.json    one execution of a stage: key, config, code, inputs, metrics, the artifact it made
    runs/<run id>/                run.json, one JSON file per stage, finished.json
    champions/<recipe>/<n>.json   the models that were promoted; the last is the champion
    tags/<name>.json              the run that a tag names

Only a directory has these, which may be lost: locks/ tmp/ cache/ checkpoints/. Only a bucket has these:

    leases/key/<key>              who computes a key; leases/use/<run id>: who is at work; leases/gc: who removes
    journal/<number>.json         what was recorded, in order; a number is taken by whoever writes it first
    index/<epoch>/                Parquet segments that hold the journal's entries up to a number
    clock/<machine>               written to ask for the bucket's time
"""

ARTIFACTS, ATTEMPTS, RUNS, CHAMPIONS, TAGS = "artifacts", "attempts", "runs", "champions", "tags"
LEASES, JOURNAL, INDEX, CLOCK = "leases", "journal", "index", "clock"
LASTING = (ARTIFACTS, ATTEMPTS, RUNS, CHAMPIONS, TAGS)
MANIFEST = "manifest.json"


def artifact(name: str, file: str | None = None) -> str:
    """An artifact's directory, or a file of it."""
    return f"{ARTIFACTS}/{name}/{file}" if file else f"{ARTIFACTS}/{name}"


def manifest(name: str) -> str:
    """The record of an artifact."""
    return f"{ARTIFACTS}/{name}/{MANIFEST}"


def attempts(key: str) -> str:
    """The directory of a key's attempts."""
    return f"{ATTEMPTS}/{key}"


def attempt(key: str, created_at: str) -> str:
    """The record of an attempt."""
    return f"{ATTEMPTS}/{key}/{created_at}.json"


def run(run_id: str) -> str:
    """The directory of a run."""
    return f"{RUNS}/{run_id}"


def started(run_id: str) -> str:
    """The record of a run's start."""
    return f"{RUNS}/{run_id}/run.json"


def finished(run_id: str) -> str:
    """The record of a run's end."""
    return f"{RUNS}/{run_id}/finished.json"


def stages(run_id: str) -> str:
    """The directory of what became of a run's stages."""
    return f"{RUNS}/{run_id}/stages"


def stage(run_id: str, number: int, name: str) -> str:
    """The record of what became of a stage, the `number`-th to end in its run."""
    return f"{RUNS}/{run_id}/stages/{number:03d}-{name}.json"


def tag(name: str) -> str:
    """The record of a tag."""
    return f"{TAGS}/{name}.json"


def is_plain(name: str) -> bool:
    """Whether a name that people give cannot lead out of the store."""
    return not ("/" in name or "\0" in name or name.startswith(".") or len(name) > 200)
