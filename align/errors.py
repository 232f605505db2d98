"""The two ways to fail: what the user gave is wrong (exit status 2), or a stage could not do its work (1)."""


class AlignError(Exception):
    """One clear sentence that names the file, row or key, and says what to do."""

    exit_status = 1


class InputError(AlignError):
    """A recipe, option, file or row is wrong. Nothing was changed; exit status 2."""

    exit_status = 2


class StageError(AlignError):
    """A stage cannot do its work (0 rows, a check before training failed, a grader raised); exit status 1."""
