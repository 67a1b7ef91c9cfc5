"""Legacy Paddle programs (``.pdmodel``, ``__model__``) to ONNX, by the paddle2onnx that was written for them.

paddle2onnx 2 lets Paddle 3 translate such a program first, and of 7 real models from the ordinary registry converts 2.
paddle2onnx 1.3.1 converts all 7, and 57 of 59 small ones that Paddle 2.6.2 and 3.3.1 saved; none needs the other road
(benchmarks/legacy_models.md). Two versions of a package can't be installed side by side, so 1.3.1 goes into a folder of
its own, where a child process finds it. It doesn't need Paddle: 4 MB are downloaded and 11 MB kept.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import onnx
from filelock import FileLock
from onnx import helper, numpy_helper

from tutorial_utils.base import child_process, paths, progress, requirements
from tutorial_utils.base.errors import BackendUnavailableError, ExportError, UnsupportedOperatorError
from tutorial_utils.model import onnx_file, paddle_program
from tutorial_utils.model.exporting import legacy_quantized

PADDLE2ONNX = "paddle2onnx==1.3.1"
CONVERTED = "converted.onnx"  # what `export` hands to `paddle2onnx_worker`, which simplifies it
# Without dependencies: they are Paddle's and onnx's Python side, which the conversion doesn't call.
_PIP_OPTIONS = ("install", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=1")
# Lines of paddle2onnx's log that tell what it does, not why it stopped.
_ROUTINE = re.compile(r"Start to pars|file path:|Use opset_version|minimal opset version|convert failed|load program")
# paddle2onnx's backends, by whether a program is quantized. "rknn" alone keeps every pair of Q and DQ, with zero points
# of 0; "onnxruntime" drops those of linear layers and stores biases as INT32, and "tensorrt" drops all.
BACKENDS = {False: "onnxruntime", True: "rknn"}
_ONE_IMAGE = "only supports inference with input batch_size == 1"


def to_onnx(model_path: Path, params_path: Path, onnx_path: Path, opset: int) -> None:
    """Convert a legacy program, as paddle2onnx writes it: not simplified yet, and not compared with Paddle.

    A quantized program (``onnx_format=True``) becomes one with QuantizeLinear and DequantizeLinear nodes. A detector
    whose NMS takes one image only gets a batch of 1, with a warning.

    Args:
        model_path: The program.
        params_path: Its weights in one file. A program without weights has none.
        onnx_path: Where to write the model.
        opset: ONNX opset.

    Raises:
        ModelFileError: The program is damaged.
        BackendUnavailableError: paddle2onnx 1.3.1 can't be installed.
        UnsupportedOperatorError: It can't convert an operator of the model.
        ExportError: The conversion failed in another way.
    """
    weights = params_path if params_path.exists() else ""
    quantized = b"quantize_linear" in model_path.read_bytes()
    arguments = map(str, (converter(), model_path, weights, onnx_path, opset, BACKENDS[quantized]))
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=child_process.environment())
    log = done.stdout + done.stderr
    if done.returncode != 0 or onnx_path.stat().st_size == 0:
        paddle_program.operators(model_path)  # it says so where the program is damaged
        raise _failure(model_path.name, log, done.returncode)
    model = onnx.load(onnx_path)
    if quantized:
        legacy_quantized.place_pairs(model)
    for attribute in (each for node in model.graph.node if node.op_type == "RoiAlign" for each in node.attribute):
        if attribute.name == "sampling_ratio":
            attribute.i = max(attribute.i, 0)  # as many samples as a region needs are -1 in Paddle, and 0 in ONNX
    if any(node.op_type == "NonMaxSuppression" for node in model.graph.node):
        _limit_candidates(model.graph)
    if _ONE_IMAGE in log:
        _fix_batch(model, model_path.name)
    onnx.save(model, onnx_path)


def converter() -> Path:
    """Return the folder with paddle2onnx 1.3.1, and install it there if it is missing: whole, or not at all.

    Raises:
        BackendUnavailableError: pip can't install it; its own reason is quoted.
        CacheError: The package's cache can't be written to.
    """
    python = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"  # a home directory may serve several machines
    folder = paths.cache_dir("environments") / f"{PADDLE2ONNX.replace('==', '-')}-{python}"
    with paths.filling_cache(), FileLock(f"{folder}.lock"):
        if folder.exists() and not _is_whole(folder):
            warnings.warn(f"The folder {folder.name} of the cache is damaged and is installed again.", stacklevel=2)
            shutil.rmtree(folder)
        if not folder.exists():
            command = [sys.executable, "-m", "pip", *_PIP_OPTIONS, PADDLE2ONNX]
            with (
                paths.replacing(folder) as temporary,
                progress.bar(description=f"Installing {PADDLE2ONNX} for legacy models, once", total=1),
            ):
                user = {**os.environ, "PIP_USER": "0"}  # pip refuses a target where a reader has set --user for good
                done = subprocess.run([*command, "--target", temporary], capture_output=True, text=True, env=user)
                if done.returncode != 0:
                    raise _not_installed(done.stdout + done.stderr, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether all files of the folder are there, and as long as pip says in its list of them."""
    try:
        (record,) = folder.glob("*.dist-info/RECORD")
        sizes = {name: size for name, _, size in csv.reader(record.read_text().splitlines()) if size}
        return all((folder / name).stat().st_size == int(sizes[name]) for name in sizes if not name.startswith(".."))
    except (OSError, ValueError):
        return False


def _not_installed(log: str, folder: Path) -> BackendUnavailableError:
    """Return the error for what pip printed: the broken connection, if there is one, caused what it says after that."""
    broken = re.findall(r"connection broken by '(.+?)': /", log)
    lines = [line.removeprefix("ERROR: ").rstrip(".") for line in log.splitlines() if line.strip()]
    reason = "; ".join([*broken[-1:], *lines[-1:]]) or "it was ended"
    by_hand = requirements.pip_install(PADDLE2ONNX, options=f'--no-deps --only-binary=:all: --target "{folder}"')
    return BackendUnavailableError(
        f"A legacy model needs {PADDLE2ONNX} in a folder of its own, and pip could not install it: {reason}.",
        f"With a network and some space, export again, or run: {by_hand}. Else save the model with Paddle 3 (.json).",
    )


def _failure(name: str, log: str, status: int) -> ExportError | UnsupportedOperatorError:
    if unsupported := re.search(r"not supported yet, including ([\w,]+)", log):
        operators = unsupported[1].strip(",").replace(",", ", ")
        return UnsupportedOperatorError(
            f"paddle2onnx 1.3.1 can't convert {operators} of {name}.",
            "Quantize with onnx_format=True."
            if "fake_" in operators
            else "Save the model without it, and compute that part in Paddle or NumPy.",
        )
    lines = [re.sub(r"\[(ERROR|WARN|Paddle2ONNX)\] *", "", line).strip(" .,") for line in log.splitlines()]
    reasons = [line for line in lines if line and not _ROUTINE.search(line)]
    return ExportError(
        f"paddle2onnx 1.3.1 failed on {name} (exit status {status}): {'; '.join(reasons[-2:]) or 'no message'}.",
        "Give opset=17, and check that both files come from one saving of the model.",
    )


def _limit_candidates(graph: onnx.GraphProto) -> None:
    """Let NMS start from the best ``nms_top_k`` boxes of each class, as Paddle does.

    paddle2onnx makes of that number the most boxes to be left over: in a crowded image, other detections come out.
    """
    constants = onnx_file.constants(graph)
    for index, node in reversed([*enumerate(graph.node)]):
        if node.op_type != "NonMaxSuppression":
            continue
        if numpy_helper.to_array(constants[node.input[2]]).max() < 1:  # no limit in Paddle, and no boxes at all in ONNX
            constants[node.input[2]].CopyFrom(numpy_helper.from_array(np.array([np.iinfo(np.int32).max])))
            continue
        scores, limit, name = node.input[1], node.input[2], f"{node.output[0]}.candidates"
        numbers = {f"{name}.last": -1, f"{name}.end": np.iinfo(np.int64).max, f"{name}.axis": 2}
        last, end, axis = numbers
        tensors = [numpy_helper.from_array(np.array([value]), key) for key, value in numbers.items()]
        tensors.append(numpy_helper.from_array(np.float32(-1), f"{name}.none"))
        graph.initializer.extend(tensors)
        added = [
            helper.make_node("Shape", [scores], [f"{name}.shape"]),
            helper.make_node("Gather", [f"{name}.shape", axis], [f"{name}.all"]),
            helper.make_node("Min", [f"{name}.all", limit], [f"{name}.count"]),
            helper.make_node("TopK", [scores, f"{name}.count"], [f"{name}.best", f"{name}.places"], axis=2),
            helper.make_node("Slice", [f"{name}.best", last, end, axis], [f"{name}.least"]),
            helper.make_node("Less", [scores, f"{name}.least"], [f"{name}.worse"]),
            helper.make_node("Where", [f"{name}.worse", f"{name}.none", scores], [name]),
        ]
        node.input[1] = name
        for new in reversed(added):
            graph.node.insert(index, new)


def _fix_batch(model: onnx.ModelProto, name: str) -> None:
    for value in model.graph.input:
        first = value.type.tensor_type.shape.dim[0]
        if not first.dim_value:
            first.dim_value = 1
    warnings.warn(
        f"{name} ends in non-maximum suppression, which paddle2onnx converts for one image: the batch is fixed to 1.",
        stacklevel=4,  # the caller of export.to_onnx
    )


if __name__ == "__main__":  # the child process: paddle2onnx aborts it where it can't go on
    installed, program, weights, target, version, backend = sys.argv[1:]
    # The extension alone: the package around it imports Paddle, for which it has no use here.
    sys.path.insert(0, f"{installed}/paddle2onnx")
    from paddle2onnx_cpp2py_export import export

    content = export(
        program, weights, int(version),
        False,  # auto_upgrade_opset
        True,  # verbose
        False,  # enable_onnx_checker: `onnx_file.save` checks the model in its final form
        True,  # enable_experimental_op
        False,  # enable_optimize
        {},  # custom_op_info
        backend,
        "", "", False,  # calibration_file, external_file, export_fp16_model
    )  # fmt: skip
    Path(target).write_bytes(content)
