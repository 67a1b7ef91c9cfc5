"""Bad words on the command line: `doctor`, `record`, `inspect`, `debug` and `course`."""

from bad_input.table import WrongCallError, command, rows

from tutorial_utils import __main__ as package
from tutorial_utils.authoring import course
from tutorial_utils.base.errors import (
    BackendUnavailableError,
    InputError,
    LessonError,
    ModelFileError,
    ProfileError,
    TargetError,
)


def words(*before: object):
    """Return a call of the package's command with some words."""
    return lambda at: command(package.main, *before)


def inspect(*after: object, model=None):
    return lambda at: command(
        package.main,
        "inspect",
        at.tiny if model is None else model(at),
        *(one(at) if callable(one) else one for one in after),
    )


def debug(*after: object, model=None):
    return lambda at: command(
        package.main,
        "debug",
        at.tiny if model is None else model(at),
        *(one(at) if callable(one) else one for one in after),
    )


def run_course(*notebooks):
    return lambda at: command(course.main, *(one(at) if callable(one) else one for one in notebooks))


def notebook(content: bytes | str):
    return lambda at: at.write("a.ipynb", content)


USAGE = "usage: python -m tutorial_utils"
WRONG = rows(
    words("record", "--list"),
    ("no command", words(), WrongCallError, "required: COMMAND", USAGE),
    ("unknown command", words("nope"), WrongCallError, "invalid choice: 'nope'", USAGE),
    ("doctor: unknown option", words("doctor", "--nope"), WrongCallError, "unrecognized arguments: --nope", USAGE),
    ("doctor: two forms", words("doctor", "--json", "--fix"),
     WrongCallError, "--fix: not allowed with argument --json", USAGE),
    ("doctor: a word too many", words("doctor", "now"), WrongCallError, "unrecognized arguments: now", USAGE),
    ("record: nothing", words("record"), WrongCallError, "one of the arguments NAME --all --list", USAGE),
    ("record: two ways", words("record", "--all", "--list"), WrongCallError, "not allowed with argument", USAGE),
    ("record: two targets", words("record", "deployment", "--replace", "--add", "a.json"),
     WrongCallError, "not allowed with argument", USAGE),
    ("record: unknown experiment", words("record", "nope"), InputError, "no experiment 'nope'", "deployment"),
    ("record: rows of what has none", words("record", "deployment", "--rows", "x"),
     InputError, "isn't measured row by row", "Leave --rows"),
    ("record: rows of two", words("record", "deployment", "resnet50_matrix", "--rows", "x"),
     InputError, "for one experiment at a time", "Name one"),
    ("record: no such row", words("record", "resnet50_matrix", "--rows", "nope"),
     InputError, "matches 'nope'", "stand for others"),
    ("record: no GPU", words("record", "resnet50_matrix"), BackendUnavailableError, "no NVIDIA GPU|driver", "."),
    ("inspect: no model", words("inspect"), WrongCallError, "required: MODEL.onnx", USAGE),
    ("inspect: two forms", words("inspect", "a.onnx", "--json", "--html", "a.html"),
     WrongCallError, "--html: not allowed with", USAGE),
    ("debug: no model", words("debug"), WrongCallError, "required: MODEL.onnx", USAGE),
    ("debug: unknown precision", words("debug", "a.onnx", "--precision", "fp4"),
     WrongCallError, "invalid choice: 'fp4'", USAGE),
    ("debug: seed in words", words("debug", "a.onnx", "--seed", "one"),
     WrongCallError, "invalid int value: 'one'", USAGE),
)  # fmt: skip

ELSEWHERE = "a folder that you can write to"
INSPECT = rows(
    inspect("--json"),
    ("inspect: missing", inspect(model=lambda at: at.given / "no.onnx"),
     ModelFileError, "There is no model", "Check the path"),
    ("inspect: folder", inspect(model=lambda at: at.given), ModelFileError, "is a folder", "Name the .onnx file"),
    ("inspect: pipe", inspect(model=lambda at: at.pipe("a.onnx")),
     ModelFileError, "is a pipe or a device", "Name the .onnx file"),
    ("inspect: empty", inspect(model=lambda at: at.write("a.onnx", b"")),
     ModelFileError, "a.onnx is empty", "Export it again"),
    ("inspect: garbage", inspect(model=lambda at: at.write("a.onnx", b"no model")),
     ModelFileError, "is not an ONNX model", "Export it again"),
    ("inspect: a name that moves the cursor", inspect(model=lambda at: at.given / "\x1b]0;a\x07.onnx"),
     ModelFileError, r"\\u001b\]0;a\\u0007", "Check the path"),
    ("inspect: a name that is no UTF-8", inspect(model=lambda at: at.given / "\udcff.onnx"),
     ModelFileError, r"\\udcff", "Rename it"),
    ("inspect: a shape of no form", inspect("--shape", "x"), InputError, "'x' is not the shape", "NAME:1x3"),
    ("inspect: no such input", inspect("--shape", "z:1"), InputError, "no input z", "inputs are x"),
    ("inspect: values of an image", inspect("--values", "x:1"), ProfileError, "gives 1 of x", "--values"),
    ("inspect: target 9.9", inspect("--target", "9.9"), TargetError, "capability 9.9", "Choose from .*8.6"),
    ("inspect: page into nowhere", inspect("--html", lambda at: at.out / "no" / "a.html"),
     InputError, "can't be written", ELSEWHERE),
    ("inspect: page over the model", inspect("--html", lambda at: at.tiny),
     InputError, "tiny.onnx itself", "Name another file"),
    ("inspect: page into a pipe", inspect("--html", lambda at: at.pipe("a.html")),
     InputError, "can't be written", ELSEWHERE),
)  # fmt: skip

DEBUG = rows(
    inspect(),  # its own good call takes a second in a process of its own: once, in the tests of names
    ("debug: page over the model", debug("--html", lambda at: at.tiny),
     InputError, "tiny.onnx itself", "Name another file"),
    ("debug: output over the model", debug("--output", lambda at: at.tiny),
     InputError, "tiny.onnx itself", "Name another file"),
    ("debug: page over the output", debug("--output", "a.onnx", "--html", "a.onnx"),
     InputError, "a.onnx itself", "Name another file"),
    ("debug: output over the inputs", debug("--inputs", "a.npz", "--output", "a.npz"),
     InputError, "a.npz itself", "Name another file"),
    ("debug: output into nowhere", debug("--output", lambda at: at.out / "no" / "a.onnx"),
     InputError, "can't be written", ELSEWHERE),
    ("debug: output into a folder", debug("--output", lambda at: at.given), InputError, "can't be written", ELSEWHERE),
    ("debug: missing", debug(model=lambda at: at.given / "no.onnx"),
     ModelFileError, "There is no model", "Check the path"),
    ("debug: inputs missing", debug("--inputs", lambda at: at.given / "no.npz"),
     InputError, "no file .*no.npz", "numpy.savez"),
)  # fmt: skip

EMPTY = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
COURSE = rows(
    lambda at: course.notebook_form.read(at.write("good.ipynb", EMPTY)),
    ("course: unknown option", run_course("--nope"), WrongCallError, "unrecognized arguments", "usage"),
    ("course: missing", run_course("--in-place", lambda at: at.given / "no.ipynb"),
     LessonError, "can't be read: No such file", "Check the name"),
    ("course: folder", run_course("--in-place", lambda at: at.given),
     LessonError, "can't be read: Is a directory", "Check the name"),
    ("course: pipe", run_course("--in-place", lambda at: at.pipe("a.ipynb")),
     LessonError, "is a pipe or a device", "Name the .ipynb file"),
    ("course: name too long", run_course("--in-place", "a" * 300 + ".ipynb"),
     LessonError, "can't be read: File name too long", "Check the name"),
    ("course: empty", run_course("--in-place", notebook("")),
     LessonError, "isn't a Jupyter notebook", "Restore it with git"),
    ("course: no UTF-8", run_course("--in-place", notebook(b"\xff\xfe")),
     LessonError, "isn't a Jupyter notebook", "Restore it with git"),
    ("course: nested 100,000 times", run_course("--in-place", notebook("[" * 100_000)),
     LessonError, "isn't a Jupyter notebook", "Restore it with git"),
    ("course: cells of numbers",
     run_course("--in-place", notebook('{"cells": [5], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')),
     LessonError, "isn't a Jupyter notebook", "Restore it with git"),
    ("course: cells in a dictionary",
     run_course("--in-place", notebook('{"cells": {"a": 1}, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')),
     LessonError, "isn't a Jupyter notebook", "Restore it with git"),
    ("course: format 3",
     run_course("--in-place", notebook('{"worksheets": [], "metadata": {}, "nbformat": 3, "nbformat_minor": 0}')),
     LessonError, "isn't a Jupyter notebook of format 4", "save it anew"),
    ("course: an ONNX model", run_course("--in-place", lambda at: at.tiny),
     LessonError, "isn't a Jupyter notebook", "Restore it with git"),
)  # fmt: skip

ROWS = [*WRONG, *INSPECT, *DEBUG, *COURSE]
