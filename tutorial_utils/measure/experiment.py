"""What the course measures on a GPU: each experiment measures, reads back and draws, and ships with a recording.

A lesson takes an experiment's result with `Experiment.live_or_recorded`; ``python -m tutorial_utils record NAME`` makes
the recording. `find` knows all experiments by name, those of the lessons, too: their rooms list them.
"""

import importlib
import json
import pkgutil
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from filelock import FileLock

from tutorial_utils.base import paths
from tutorial_utils.base.errors import BackendUnavailableError, InputError, ModelFileError, RecordingError
from tutorial_utils.base.lesson_names import import_room
from tutorial_utils.machine import capabilities
from tutorial_utils.machine.capabilities import Capabilities
from tutorial_utils.measure import recordings, rows
from tutorial_utils.measure.recordings import Origin
from tutorial_utils.measure.rows import MeasureRow
from tutorial_utils.model import networks, onnx_file

if TYPE_CHECKING:
    from tutorial_utils.plotting import Picture

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """The result of an experiment, as its `read` returns it, made just now or read from its recording.

    The origin says which, and shows itself as the last value of a cell. Method and machine are those of a `Recording`.
    """

    result: Result
    origin: Origin
    method: str
    machine: dict[str, Any]

    @property
    def gpu(self) -> str:
        """Name of the GPU, "" where there was none."""
        return self.machine.get("gpu") or ""


@dataclass(frozen=True)
class Experiment(Generic[Result]):
    """Something that the course measures on a GPU.

    Attributes:
        name: Name of the recording, and for the command `record`.
        title: What is measured, in one line.
        method: How: warm-up, calls, clock, copies.
        read: Makes the typed result of the plain values, those of the recordings that ship included.
        measure: Measures on this machine. Takes the paths of `models` by stem, returns plain values for JSON.
        rows: Instead of ``measure``, by name what measures each row, in the same way: see `rows`, whose form the data
            have then. What takes longer than a lesson, or needs libraries that don't live together.
        draw: Draws what is most worth seeing of it, where one picture shows that.
        models: Names of the files that are measured with.
        make_models: Makes these files, given their names; returns paths by name.
        needs_tensorrt: Whether a machine must be able to run TensorRT engines.
        libraries: Returns versions of libraries that belong into the stamp, beside those that every stamp has.
    """

    name: str
    title: str
    method: str
    read: Callable[[Any], Result]
    measure: Callable[[Mapping[str, Path]], Any] | None = None
    rows: Mapping[str, MeasureRow] = field(default_factory=dict)
    draw: "Callable[[Measured[Result]], Picture] | None" = None
    models: tuple[str, ...] = ()
    make_models: Callable[[Sequence[str]], Mapping[str, Path]] = networks.files
    needs_tensorrt: bool = True
    libraries: Callable[[], dict[str, str]] = dict

    def live_or_recorded(self, machine: Capabilities) -> Measured[Result]:
        """Measure where this machine runs TensorRT engines; read the recording where it doesn't: see `recorded`.

        An experiment of rows is always read: measuring all of them takes longer than a lesson.
        """
        if self.measure is None:
            return self.recorded(
                f"Its {len(self.rows)} rows are measured by `python -m tutorial_utils record {self.name}`."
            )
        if not machine.tensorrt_run.available:
            return self.recorded(machine.tensorrt_run.reason)
        data = self._measure(self.make_models(self.models))
        return Measured(self.read(data), recordings.live(self.title), self.method, machine.machine())

    def recorded(self, reason: str) -> Measured[Result]:
        """Read the recording that the course ships, and say the reason why it isn't measured here.

        Raises:
            RecordingError: The recording is missing or damaged.
        """
        recording = recordings.load(self.name)
        try:
            result = self.read(recording.data)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise recordings.damaged(recordings.FOLDER / f"{self.name}.json") from error
        origin = recordings.recorded(self.title, recording, reason)
        return Measured(result, origin, recording.method, recording.machine)

    def record(self, models: Path | None = None, name: str | None = None) -> Path:
        """Measure on this machine and keep the result as a recording; return its path.

        Args:
            models: A folder that holds `models`, for a machine without Paddle. None makes them here.
            name: Name of the recording; the experiment's and the GPU's unless given.

        Raises:
            BackendUnavailableError: This machine lacks what the experiment needs.
            ModelFileError: A model is missing or damaged.
            RecordingError: The package isn't in a clone, so there is no place for recordings.
        """
        folder = recordings.folder_to_write()
        stamp = self._stamp()
        data = self._measure(self.make_models(self.models) if models is None else self._models_in(models))
        recording = recordings.new(self.title, self.method, stamp, data)
        return recordings.save(recording, folder / f"{name or self._name_here(stamp)}.json")

    def record_rows(
        self,
        patterns: Sequence[str] = ("*",),
        models: Path | None = None,
        path: Path | None = None,
        *,
        again: bool = False,
        report: Callable[[str], None] = print,
    ) -> tuple[Path, int]:
        """Measure rows on this machine, and add each to a recording as soon as it is measured.

        The recording gets the method of today, which has to be true of the rows that are there, too.

        Args:
            patterns: Which rows, by their names, with ``*`` and ``?``.
            models: As for `record`.
            path: The recording to add to, made if it is missing; unless given, one of the experiment's and the GPU's
                name.
            again: Also measure rows that are there, and replace them.
            report: Called with what became of each row: a line, and a traceback where its code may be wrong.

        Returns:
            The path, and how many rows have been added, those with a reason instead of values included.

        Raises:
            InputError: The experiment has no rows, or none of these names.
            RecordingError: The recording that is there is damaged, of another GPU or of another experiment.
            BackendUnavailableError, ModelFileError: As for `record`.
            AttributeError, LookupError, NameError, TypeError, CalledProcessError: The code of a row may be wrong; the
                others were measured.
        """
        if not self.rows:
            raise InputError(f"{self.name} isn't measured row by row.", "Leave --rows, --add and --again out.")
        chosen = rows.choose(self.rows, patterns, self.name)
        stamp = self._stamp()
        if stamp["gpu"] is None:
            raise BackendUnavailableError("There is no NVIDIA GPU here to measure on.", "Record where there is one.")
        path = path or recordings.folder_to_write() / f"{self._name_here(stamp)}.json"
        there = rows.load(path, self.title)
        if there:
            rows.require_same_gpu(there, stamp)
        skipped = set() if again or there is None else there.data["rows"].keys()
        missing = [name for name in chosen if name not in skipped]
        if len(missing) < len(chosen):
            report(f"{len(chosen) - len(missing)} of {len(chosen)} rows are there already: --again measures them anew.")
        if not missing:
            return path, 0
        found = self.make_models(self.models) if models is None else self._models_in(models)
        by_stem = {Path(name).stem: model for name, model in found.items()}
        added, unavailable, fault = 0, None, None
        for name in missing:
            started = time.monotonic()
            try:
                row = rows.measured_elsewhere(self.rows[name], by_stem)
            except BackendUnavailableError as error:
                report(f"{name}: not measured here. {error.cause}")
                unavailable = error
                continue
            except rows.PERHAPS_OURS as error:
                said = f"{name}: not recorded, since its code may be wrong. {type(error).__name__}: {error}"
                report("\n".join([said, *vars(error).get("__notes__", [])]))
                fault = error
                continue
            report(f"{name}: {row.get('reason') or 'measured'} ({time.monotonic() - started:.0f} s)")
            empty = recordings.new(self.title, self.method, stamp, {"stacks": [], "rows": {}})
            with FileLock(paths.cache_dir("locks") / f"{path.stem}.lock"):
                now = rows.load(path, self.title) or empty  # read anew: another process may have added rows meanwhile
                merged = rows.merged(now, name, row, stamp, empty.date)
                recordings.save(replace(merged, method=self.method), path)  # it tells of the row's fields
            added += 1
        if fault:
            raise fault
        if unavailable and not added:
            raise unavailable
        return path, added

    def _stamp(self) -> dict[str, Any]:
        machine = capabilities.require_tensorrt_run() if self.needs_tensorrt else capabilities.probe()
        stamp = machine.machine()
        return {**stamp, "libraries": {**stamp["libraries"], **self.libraries()}}

    def _name_here(self, stamp: Mapping[str, Any]) -> str:
        """Return the name of a recording of this machine's own, which stands beside the one that ships."""
        gpu = re.sub(r"\W+", "_", (stamp["gpu"] or "no_gpu").lower())
        return f"{self.name}_{gpu}"

    def _measure(self, models: Mapping[str, Path]) -> Any:
        """Return plain values as they will be read from a file, so that live and recorded results are read alike."""
        return json.loads(json.dumps(self.measure({Path(name).stem: path for name, path in models.items()})))

    def _models_in(self, folder: Path) -> dict[str, Path]:
        found = {name: Path(folder) / name for name in self.models}
        missing = [name for name, path in found.items() if not path.is_file()]
        if missing:
            raise ModelFileError(
                f"The folder {folder} lacks {', '.join(missing)}.",
                "Leave --models out on a machine with Paddle: the files are made there, and can be carried here.",
            )
        for path in found.values():
            if path.suffix == ".onnx":
                onnx_file.load(path)
        return found


def names() -> dict[str, str]:
    """Return the names of all experiments, each with the module that holds it."""
    lessons = importlib.import_module("tutorial_utils.lessons")
    found = {
        "deployment": "tutorial_utils.measure.deployment",
        "resnet50_matrix": "tutorial_utils.measure.resnet50_matrix.matrix",
    }
    for module in pkgutil.iter_modules(lessons.__path__):
        room = import_room(module.name.removeprefix("lesson"))
        found |= {name: f"{room.__name__}.{topic}" for name, topic in getattr(room, "EXPERIMENTS", {}).items()}
    return found


def find(name: str) -> Experiment[Any]:
    """Return an experiment by its name.

    Raises:
        InputError: There is none of this name.
        BackendUnavailableError: A library that its module needs is not installed.
    """
    known = names()
    if name not in known:
        raise InputError(f"There is no experiment {name!r}.", f"Choose one of {', '.join(known)}.")
    return importlib.import_module(known[name]).EXPERIMENT


def listing() -> str:
    """Return a text with all experiments: name, title, and the stamp of the recording that the course ships."""
    lines = []
    for name in names():
        try:
            recording = recordings.load(name)
            lines.append(f"{name}: {recording.title}\n    {recording.stamp}")
        except RecordingError as error:
            lines.append(f"{name}: {error.cause}")
    return "\n".join(lines)
