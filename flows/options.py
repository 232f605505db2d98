"""The options that several verbs have."""

from typing import Annotated

from cyclopts import Parameter

Overrides = Annotated[list[str] | None, Parameter(name="--set", negative="", help="dotted.key=value; may be repeated")]
Select = Annotated[str | None, Parameter(name="--select", help="stages: a, +a, a+, several separated by spaces")]
StoreDir = Annotated[
    str | None, Parameter(name="--store", help="a directory, s3://... or gs://...; default $ALIGN_STORE, else .align")
]
RunId = Annotated[
    str | None, Parameter(name="--run", help="a run's id, the beginning of one, or a tag; default latest")
]
Model = Annotated[str | None, Parameter(help="the stage that trained it; default the last of the pipeline")]
Json = Annotated[bool, Parameter(name="--json", negative="")]
