"""Rows of bad input: what is called, which error it must raise, and which cause and which remedy that must name.

`at` is where a row works: `at.given` holds what it makes for itself, and what it asks to be written goes into `at.out`,
which must be empty after the error, as must the folder of temporary files.
"""

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from node_models import FLOAT, of_nodes
from onnx import TensorProto, helper, numpy_helper
from small_models import images, residual_model

from tutorial_utils.base import errors
from tutorial_utils.base.errors import CourseError

SECONDS = 20  # that no row takes: what does hangs
IMAGES = images(2)


class WrongCallError(Exception):
    """What argparse answers: the cause is its last line, the remedy the usage before."""

    def __init__(self, cause: str, remedy: str):
        super().__init__(cause, remedy)
        self.cause, self.remedy = cause, remedy


class HangError(BaseException):
    """A call takes too long. No `except Exception` may take it for an answer."""


class At:
    """The folders of one row."""

    def __init__(self, folder: Path):
        self.given, self.out, self.temporary = (folder / name for name in ("given", "out", "temporary"))
        for one in (self.given, self.out, self.temporary):
            one.mkdir()

    def write(self, name: str, content: bytes | str | onnx.ModelProto) -> Path:
        """Write a file into `given` and return its path."""
        if isinstance(content, onnx.ModelProto):
            content = content.SerializeToString()
        path = self.given / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def pipe(self, name: str) -> Path:
        """Make a pipe that nobody writes to."""
        os.mkfifo(self.given / name)
        return self.given / name

    def link(self, name: str, target: str) -> Path:
        """Make a link."""
        (self.given / name).symlink_to(target)
        return self.given / name

    def sparse(self, name: str, size: int) -> Path:
        """Make a file of zeros that takes no room on the disk."""
        with (self.given / name).open("wb") as file:
            file.truncate(size)
        return self.given / name

    @property
    def model(self) -> Path:
        """A good model that takes images."""
        return self.write("good.onnx", residual_model())

    @property
    def tiny(self) -> Path:
        """A good model of one node, for what takes long."""
        return self.write("tiny.onnx", one_node())

    def left(self) -> list[str]:
        """Return what a failed call has left behind."""
        found = [path for folder in (self.out, self.temporary) for path in folder.rglob("*")]
        unfinished = self.given.rglob(".*")  # folders that writers make beside their target have such names
        return [str(path) for path in (*found, *unfinished) if path.suffix != ".lock"]  # a lock stays: others may wait


Call = Callable[[At], Any]


@dataclass(frozen=True)
class Row:
    """One case."""

    name: str
    call: Call
    error: type[Exception]
    cause: str  # a regular expression that finds the true cause in the error's
    remedy: str  # one that finds what to do about it
    good: Call = field(repr=False)  # what must work afterwards

    def check(self, folder: Path) -> None:
        """Make the call, and assert all that this module's first lines promise."""
        at = At(folder)
        raised = None
        with temporary_files_in(at.temporary), no_longer_than(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                answer = self.call(at)
            except Exception as error:  # any other is the failure that is looked for, and shown as such
                raised = error
        assert raised is not None, f"accepted: {answer!r:.200}"
        if type(raised) is not self.error:
            raise AssertionError(f"{type(raised).__name__} instead of {self.error.__name__}: {raised}") from raised
        assert re.search(self.cause, raised.cause), f"the cause is: {raised.cause}"
        assert re.search(self.remedy, raised.remedy), f"the remedy is: {raised.remedy}"
        assert isinstance(raised, WrongCallError) or "\n" not in str(raised), f"several lines: {raised}"
        assert at.left() == []
        with temporary_files_in(at.temporary), no_longer_than(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.good(at)


def rows(good: Call, *lines: tuple[str, Call, type[Exception], str, str]) -> list[Row]:
    """Return rows after which the same call must work."""
    return [Row(*line, good) for line in lines]


@contextlib.contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Raise HangError in what hangs."""

    def stop(*_: object) -> None:
        raise HangError(f"It takes longer than {seconds} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let this process make its temporary files in a folder, and its child processes, too."""
    before, environment = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        if environment is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = environment


@contextlib.contextmanager
def full_disk(most: int = 1000) -> Iterator[None]:
    """Let no file grow beyond some bytes: the kernel refuses it as on a full disk, for root as well.

    What is imported meanwhile, here or in a child, isn't compiled into a file: up to 3.11, Python keeps one that is cut
    off, and fails by it later. (A child in isolated mode, as of `machine.child`, would do so still.)
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with (
            mock.patch.object(sys, "dont_write_bytecode", True),
            mock.patch.dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
        ):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def command(main: Callable[[list[str]], int], *arguments: object) -> str:
    """Run a command in this process; return what it prints, or raise what its one line on stderr says.

    A line in the form of a `CourseError` becomes that error again, with its cause and its remedy.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(one) for one in arguments])
        except SystemExit as end:
            status = end.code
    if status == 0:
        return out.getvalue()
    if status == 2:
        usage, _, cause = err.getvalue().strip().rpartition("\n")
        raise WrongCallError(cause, usage)
    said = re.fullmatch(r"(.+) Remedy: (.+) See TROUBLESHOOTING\.md#(\w+)\.\n", err.getvalue())
    assert said, f"status {status}, and on stderr: {err.getvalue()!r}"
    kinds = {name.lower(): kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert issubclass(kinds[said[3]], CourseError)
    raise kinds[said[3]](said[1], said[2])


# --- models ----------------------------------------------------------------------------------------------------------


def one_node(name: str = "x", **changes: Any) -> onnx.ModelProto:
    """Return a model of one Relu, from `name`, float32 of shape [2, 8], to `name`_out."""
    node = helper.make_node("Relu", [name], [f"{name}_out"], f"{name}_relu")
    return of_nodes([node], {name: (FLOAT, [2, 8])}, [f"{name}_out"], **changes)


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    """Return the small model with one change."""
    model = residual_model()
    change(model)
    return model


def with_node(**fields: str) -> onnx.ModelProto:
    """Return the small model whose first node has other fields."""
    return changed(lambda model: [setattr(model.graph.node[0], name, value) for name, value in fields.items()])


def with_weight(**fields: Any) -> onnx.ModelProto:
    """Return the small model whose first weight has other fields."""

    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        for name, value in fields.items():
            weight.ClearField(name)
            getattr(weight, name).extend(value) if isinstance(value, list) else setattr(weight, name, value)

    return changed(change)


def nan_weight() -> onnx.ModelProto:
    """Return the small model with NaN in a weight."""
    values = np.full((16, 3, 3, 3), np.nan, np.float32)
    return changed(lambda model: model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w0")))


def external(location: str, **entries: object) -> onnx.ModelProto:
    """Return the small model that says where else the first weight is."""

    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            weight.external_data.add(key=key, value=str(value))

    return changed(change)


def nested(levels: int) -> bytes:
    """Return a model with bodies of nodes inside each other, by hand: onnx itself can't write so many."""

    def message(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    graph = one_node().graph.SerializeToString()
    for _ in range(levels):
        attribute = message(1, b"then_branch") + message(6, graph) + b"\xa0\x01\x05"  # its type is GRAPH
        node = message(1, b"condition") + message(2, b"y") + message(4, b"If") + message(5, attribute)
        graph = message(1, node) + message(2, b"g")
    return b"\x08\x08" + message(7, graph) + message(8, b"\x10\x11")  # IR version 8, opset 17


def linked_as_in_a_cache(at: At) -> Path:
    """Return a model that is a link, as is the file with its weights beside it, into another folder."""
    blobs, snapshot = at.given / "blobs", at.given / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    onnx.save(residual_model(), blobs / "model", save_as_external_data=True, location="weights.bin", size_threshold=0)
    shutil.move(blobs / "weights.bin", blobs / "weights")
    (snapshot / "weights.bin").symlink_to(blobs / "weights")
    (snapshot / "model.onnx").symlink_to(blobs / "model")
    return snapshot / "model.onnx"
