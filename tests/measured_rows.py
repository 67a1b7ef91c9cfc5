"""What measures the rows of `test_rows`: a small module, since each row's process imports it."""

import os
from pathlib import Path

from tutorial_utils.base import paths
from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError


def size(models, kind="text"):
    return {"bytes": len(Path(models["some"]).read_text()), "kind": kind, "process": os.getpid()}


def refuse(models):
    raise PrecisionError("This library has no FP8.", "Take another.")


def fail(models):
    raise RuntimeError("CUDA error 700\nwith a long explanation")


def die(models):
    os.write(2, b"first line\nterminate called after throwing\n")
    os.abort()


def not_here(models):
    raise BackendUnavailableError("The library isn't installed.", "Install it.")


def in_package(function):
    """Have Python take the lines of a function for the package's."""
    function.__code__ = function.__code__.replace(co_filename=str(paths.ROOT / "tutorial_utils" / "rows_of_a_test.py"))
    return function


@in_package
def misspell(models):
    return models.value()


@in_package
def misuse_c(models):
    return len(5)


def no_plain_values(models):
    return {"values": lambda: models}
