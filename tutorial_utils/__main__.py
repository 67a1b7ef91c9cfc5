"""The command line of the package: `python -m tutorial_utils COMMAND`."""

import argparse
import functools
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tutorial_utils.base.errors import CourseError, InputError
from tutorial_utils.base.terminal import printable

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python can't read the other modules, so it is told here
    sys.exit(f"The course needs Python 3.10, 3.11 or 3.12; this is {sys.version.split()[0]}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 for success, 1 for failure, 2 for a wrong call, 130 for Ctrl+C.

    Args:
        arguments: The words after the program's name; None takes those of this process.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is _doctor and options.yes and not options.fix:
        parser.error("--yes is for --fix: `doctor --fix --yes`")
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except CourseError as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has enough, as in `... | head`; what is left must not fail at exit again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(printable(f"{error.filename or 'A file'}: {error.strerror or error}."), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tutorial_utils", description="Commands of the TensorRT course.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="say what this machine can run and, where it can't, why not")
    how = doctor.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON instead of a table")
    how.add_argument("--fix", action="store_true", help="offer to mend what can be mended safely")
    doctor.add_argument("--yes", action="store_true", help="with --fix: accept every change without asking")
    doctor.set_defaults(run=_doctor)

    record = commands.add_parser("record", help="measure an experiment on this machine's GPU and keep its recording")
    which = record.add_argument_group("which").add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[], metavar="NAME", help="names of experiments")
    which.add_argument("--all", action="store_true", help="every experiment but those of rows, which take longer")
    which.add_argument("--list", action="store_true", help="print their names and the recordings that the course ships")
    record.add_argument("--models", type=Path, help="folder with the ONNX models, for a machine without Paddle")
    where = record.add_mutually_exclusive_group()
    where.add_argument(
        "--replace", action="store_true", help="write over the course's recordings (default: the GPU's name is added)"
    )
    where.add_argument("--add", type=Path, metavar="FILE.json", help="of an experiment of rows: what to add them to")
    record.add_argument(
        "--rows", metavar="PATTERN[,...]", help="of an experiment of rows: which to measure; * and ? stand for others"
    )
    record.add_argument("--again", action="store_true", help="of an experiment of rows: also those that are there")
    record.set_defaults(run=_record)

    inspect = commands.add_parser("inspect", help="show what TensorRT makes of an ONNX model, without a GPU")
    inspect.add_argument("model", type=Path, metavar="MODEL.onnx", help="the model; its engine is not kept")
    inspect.add_argument(
        "--target", action="append", default=[],
        help="compute capability to build for, such as 8.9; may be given again (default: TensorRT's own choice)",
    )  # fmt: skip
    inspect.add_argument(
        "--shape", action="append", default=[], metavar="NAME:1x3x224x224",
        help="shape of an input; may be given again for others (default: sizes that the model leaves open are guessed)",
    )  # fmt: skip
    inspect.add_argument(
        "--values", action="append", default=[], metavar="NAME:1,3,64,64",
        help="values of an input that TensorRT reads as a shape, such as the sizes of a Resize; may be given again",
    )  # fmt: skip
    form = inspect.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of text")
    form.add_argument("--html", type=Path, metavar="FILE", help="write a page with figures, in one file")
    inspect.set_defaults(run=_inspect)

    debug = commands.add_parser(
        "debug", help="find what goes wrong in an ONNX model in FP16, BF16 or INT8, and mend it",
        description="Exit status: 0 if the model is healthy or was mended, 1 if it was not, or couldn't be looked at.",
    )  # fmt: skip
    debug.add_argument("model", type=Path, metavar="MODEL.onnx", help="the FP32 model")
    debug.add_argument(
        "--inputs", type=Path, metavar="FILE.npz", help="one array for each input, by name (default: random inputs)"
    )
    debug.add_argument("--precision", choices=("fp16", "bf16", "int8"), default="fp16", help="default: fp16")
    debug.add_argument("--seed", type=int, help="of the random inputs (default: another one each time)")
    debug.add_argument(
        "--output", type=Path, metavar="FILE.onnx",
        help="where to write the low-precision file, mended if it had to be (default: MODEL-PRECISION-mended.onnx "
        "beside the model, if there was something to mend)",
    )  # fmt: skip
    form = debug.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of text")
    form.add_argument("--html", type=Path, metavar="FILE", help="also write a page with a figure, in one file")
    debug.set_defaults(run=_debug)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from tutorial_utils.machine import doctor

    return doctor.run(as_json=options.json, fix=options.fix, accept_all=options.yes)


def _record(options: argparse.Namespace) -> int:
    from tutorial_utils.measure import experiment, recordings

    if options.list:
        print(printable(experiment.listing()))
        return 0
    chosen = [experiment.find(name) for name in options.names or experiment.names()]
    if options.all:
        chosen = [one for one in chosen if not one.rows]  # minutes to most of an hour each, and several stacks
    if len(chosen) > 1 and (options.rows or options.add or options.again):
        raise InputError("--rows, --add and --again are for one experiment at a time.", "Name one.")
    if len(chosen) > 1:  # each in a process of its own: the libraries of one, or its crash, are no matter to the others
        command = [sys.executable, "-m", "tutorial_utils", "record"]
        shared = ["--models", str(options.models)] if options.models else []
        shared += ["--replace"] if options.replace else []
        statuses = [subprocess.run([*command, one.name, *shared]).returncode for one in chosen]
        return int(any(statuses))
    name = chosen[0].name if options.replace else None
    if chosen[0].rows or options.rows or options.add or options.again:
        path = options.add or (name and recordings.FOLDER / f"{name}.json")
        patterns = (options.rows or "*").split(",")
        report = functools.partial(print, flush=True)
        path, added = chosen[0].record_rows(patterns, options.models, path, again=options.again, report=report)
        print(f"{added} rows added to {path}." + " Look at it, then commit it." * (added > 0))
        return 0
    path = chosen[0].record(options.models, name)
    print(f"Written: {path}. Look at it, then commit it.")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from tutorial_utils.base import progress
    from tutorial_utils.inspection import input_shapes, page

    if options.html:
        page.check_writable(options.html, options.model)
    shapes = dict(map(input_shapes.parse, options.shape))
    values = dict(input_shapes.parse(text, ",") for text in options.values)
    with progress.still_working("TensorRT builds the engine"):
        found = page.inspect(options.model, options.target, shapes, values, progress=sys.stderr.isatty())
    if options.html:
        print(printable(f"Written: {page.write_page(found, options.html)}"))
    else:
        print(printable(page.as_json(found) if options.json else page.as_text(found)))
    return 0


def _debug(options: argparse.Namespace) -> int:
    from tutorial_utils.base import progress
    from tutorial_utils.debug import diagnosis, diagnosis_page
    from tutorial_utils.inspection import page

    model, seed = options.model, options.seed
    target = options.output or model.with_name(f"{model.stem}-{options.precision}-mended.onnx")
    for path in filter(None, (target, options.html)):
        page.check_writable(path, *filter(None, (model, options.inputs)))
    if options.html:
        page.check_writable(options.html, target)
    with progress.still_working("The model is run, converted and compared"):
        found = diagnosis.in_another_process(
            model, options.precision, options.inputs, secrets.randbelow(10**6) if seed is None else seed, target,
            write_healthy=options.output is not None,
        )  # fmt: skip
    print(printable(diagnosis_page.as_json(found) if options.json else diagnosis_page.as_text(found)))
    if options.html:
        print(printable(f"Written: {diagnosis_page.write_page(found, options.html)}"))
    return int(found.verdict == "not mended")


if __name__ == "__main__":
    sys.exit(main())
