"""The command line of the package: `python -m tutorial_utils COMMAND`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tutorial_utils.errors import CourseError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 for success, 1 for failure, 2 for a wrong call.

    Args:
        arguments: The words after the program's name; None takes those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m tutorial_utils", description="Commands of the TensorRT course.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="say what this machine can run and, where it can't, why not")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.set_defaults(run=_doctor)

    record = commands.add_parser("record", help="measure on this machine's GPU and keep the result as a recording")
    record.add_argument("--models", type=Path, help="folder with ONNX models, for a machine without Paddle")
    record.add_argument("--name", default="deployment", help="name of the recording (default: %(default)s)")
    record.set_defaults(run=_record)

    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1


def _doctor(options: argparse.Namespace) -> int:
    from tutorial_utils.capabilities import probe

    found = probe()
    missing = found.missing_for_default()
    if options.json:
        print(found.to_json())
    elif missing:
        print(found, f"Not ready. Mend this first: {missing[0].name}. {missing[0].remedy}", sep="\n\n")
    else:
        print(found, "Ready: the lessons run here. What says no above is shown from recordings.", sep="\n\n")
    return 1 if missing else 0


def _record(options: argparse.Namespace) -> int:
    from tutorial_utils.record import record_deployment

    path = record_deployment(options.models, options.name)
    print(f"Written: {path}. Look at it, then commit it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
