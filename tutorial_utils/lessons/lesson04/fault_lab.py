"""The fault laboratory of lesson 04: seven faults of deployed models, served from a seed, without their names.

`case(number, seed)` gives what an engineer has in hand: two files, two feeds, two outputs. The seed decides which
number has which fault, and where in the network it is. `judge` says whether an answer is right, and if not, what speaks
against it.
"""

import copy
import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tutorial_utils.base import paths
from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import scaling, tensor_errors
from tutorial_utils.lessons.checking import Result
from tutorial_utils.lessons.lesson04 import fault_lab_model
from tutorial_utils.lessons.lesson04.fault_lab_model import IMAGE_SIZE, INPUTS
from tutorial_utils.measure import experiment
from tutorial_utils.measure.recordings import Origin
from tutorial_utils.model import data, networks, onnx_file, quantization
from tutorial_utils.model.number_formats import FP16

CAUSES = {
    "overflow": "a tensor grows beyond the largest number of its data type",
    "division": "finite numbers are divided, and the result is NaN",
    "layout": "the values of an input are the right ones in the wrong places: the order of axes or of channels",
    "normalization": "an input shows the right picture with values in another range than the model was trained with",
    "memory": "an input is right as an array, but its memory is in another order than its shape says",
    "tolerance": "nothing is wrong: the tolerance asks for more digits than the data type has",
    "engine": "file and inputs are right, and what was built from the file computes something else",
    "scale": "a scale of the quantized file cuts values off",
}
FAULTS = tuple(cause for cause in CAUSES if cause != "scale")  # that one is there to be excluded
SEED = 4469  # one of those that go from easy to hard

_IMAGES = 4
_BLANK = 2  # the image of a batch that shows nothing but grey

_AGAINST = {
    "overflow": "No tensor of the candidate becomes infinite. Compare its largest values with the reference's.",
    "division": "In no tensor does the candidate have a NaN whose inputs are finite.",
    "layout": "Where the two feeds differ at all as arrays, their values differ, not only their places.",
    "normalization": "Taken over all values of an input, mean and spread of the two feeds are the same.",
    "memory": "Every array that the candidate was fed is C-contiguous: its memory is in the order of its shape.",
    "tolerance": "The difference is larger than rounding in the candidate's data type can explain.",
    "engine": "What came out is what the file gives in ONNX Runtime for the bytes in memory: no engine is to blame.",
    "scale": "Scales that cut values off show in ONNX Runtime, too. Run the file without graph optimizations.",
}


@dataclass(frozen=True, eq=False)
class Case:
    """What an engineer has in hand when somebody says that a model is wrong: a trusted program, and another one."""

    complaint: str  # what that somebody says
    reference_model: Path  # the ONNX file that is trusted
    candidate_model: Path  # the ONNX file that is used instead; it may be the same
    reference_feeds: dict[str, np.ndarray]  # what the trusted program hands over, by name of the input
    candidate_feeds: dict[str, np.ndarray]  # what the other program hands over: the arrays themselves, memory included
    reference_output: np.ndarray
    candidate_output: np.ndarray | None  # None where only measurements of it were kept
    # Cause, and the first tensor that is wrong, or None where no tensor of the file is. Don't look.
    answer: tuple[str, str | None] = field(repr=False)
    measured: dict[str, Any] | None = None  # those measurements by precision: lesson 01's `Answers`
    origin: Origin | None = None  # where they come from

    def __str__(self) -> str:
        fed = ", ".join(f"{name} {list(array.shape)}" for name, array in self.candidate_feeds.items())
        lines = [self.complaint, f"both are fed: {fed}", f"the output: {list(self.reference_output.shape)}"]
        if self.candidate_output is not None:
            finite = np.isfinite(self.candidate_output)
            largest = np.abs(self.candidate_output - self.reference_output)[finite].max(initial=0)
            lines[-1] += f", {finite.sum()} of {finite.size} values are finite, and differ by up to {largest:.0e}"
        return "\n".join(lines)

    @property
    def tensors(self) -> list[str]:
        """Names of the inputs and of all tensors that the reference's nodes write, in order."""
        graph = onnx_file.load(self.reference_model).graph
        return [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output)]


def order(seed: int = SEED) -> tuple[str, ...]:
    """Return the faults in the order of their numbers. Don't look before you have answered."""
    return tuple(np.random.default_rng(seed).permutation(FAULTS).tolist())


def case(number: int, seed: int = SEED) -> Case:
    """Return one case of the laboratory, by its number. Another seed changes the numbers of the faults, and the places.

    Raises:
        InputError: There is no case of this number.
    """
    if number not in range(1, len(FAULTS) + 1):
        raise InputError(f"There is no case {number}.", f"Choose a number from 1 to {len(FAULTS)}.")
    return serve(order(seed)[number - 1], seed)


def serve(fault: str, seed: int) -> Case:
    """Return a case of a fault that is known by its name, one of `FAULTS`."""
    return _SERVING[fault](np.random.default_rng([seed, FAULTS.index(fault)]), paths.cache_dir("fault_lab", f"{seed}"))


def judge(served: Case, cause: str, tensor: str | None = None) -> Result:
    """Say whether an answer is right. The verdict shows itself as the last value of a cell.

    Args:
        served: The case.
        cause: One of `CAUSES`.
        tensor: The first tensor that is wrong; None if no tensor of the file is.
    """
    message = objection(served, cause, tensor)
    verdict = ("wrong", message) if message else ("right", f"{cause}: {CAUSES[cause]}.")
    return Result("of the laboratory", *verdict)


def objection(served: Case, cause: str, tensor: str | None = None) -> str | None:
    """Return what speaks against an answer, or None if it is right. See `judge`."""
    right_cause, right_tensor = served.answer
    if cause not in CAUSES:
        return f"A cause has one of these names: {', '.join(CAUSES)}."
    if cause != right_cause:
        return _AGAINST[cause]
    if tensor == right_tensor:
        return None
    if right_tensor is None:
        return "The cause is right. It lies in no tensor of the file: name None."
    if tensor is None:
        return "The cause is right. In which tensor does one see it first?"
    if tensor not in served.tensors:
        return "The cause is right, but the network has no tensor of that name."
    if tensor in _reached_from(right_tensor, onnx_file.load(served.reference_model)):
        return "The cause is right. The tensor is wrong because one before it is."
    if cause == "division" and tensor == _divisor(right_tensor, onnx_file.load(served.reference_model)):
        return "The cause is right, and this tensor explains it. It is finite still: which is the first with a NaN?"
    return "The cause is right, but this tensor is as it should be."


def _divisor(tensor: str, model: onnx.ModelProto) -> str:
    """Return the tensor by which the node divides that writes this one."""
    (written_by,) = [node for node in model.graph.node if tensor in node.output]
    return written_by.input[1]


def _reached_from(tensor: str, model: onnx.ModelProto) -> set[str]:
    """Return the tensors that are computed from this one."""
    reached = {tensor}
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached - {tensor}


# --- the faults ------------------------------------------------------------------------------------------------------


def _overflow(random: np.random.Generator, folder: Path) -> Case:
    model = fault_lab_model.network(random)
    feeds = _normalized(_photographs(random))
    tensor = random.choice(scaling.movable(model)).item()
    largest = np.abs(_every_tensor(model, feeds, folder)[tensor]).max()
    exponent = np.ceil(np.log2(1.25 * FP16.largest / largest))
    return _fp16_case(scaling.move_scale(model, tensor, 2.0**exponent), feeds, ("overflow", tensor), folder)


def _division(random: np.random.Generator, folder: Path) -> Case:
    """The mean of an attention is 0 for an image without anything in it, and its epsilon is 0 in FP16."""
    model = fault_lab_model.network(random)
    feeds = _normalized(_photographs(random))
    block = random.choice([*INPUTS, fault_lab_model.JOINT]).item()
    interest = _every_tensor(model, feeds, folder)[f"{block}.interest"]
    (bias,) = [weight for weight in model.graph.initializer if weight.name == f"{block}.interest.bias"]
    threshold = 1.05 * (interest[_BLANK].max() - onnx.numpy_helper.to_array(bias))
    bias.CopyFrom(onnx.numpy_helper.from_array(-threshold, bias.name))
    return _fp16_case(model, feeds, ("division", f"{block}.attention"), folder)


def _tolerance(random: np.random.Generator, folder: Path) -> Case:
    return _fp16_case(fault_lab_model.network(random), _normalized(_photographs(random)), ("tolerance", None), folder)


def _layout(random: np.random.Generator, folder: Path) -> Case:
    def faulty(pixels: np.ndarray) -> np.ndarray:
        if random.integers(2):
            return _scaled(pixels[..., ::-1]).transpose(0, 3, 1, 2).copy()  # BGR
        return _scaled(pixels).reshape(len(pixels), 3, IMAGE_SIZE, IMAGE_SIZE)  # NHWC, taken for NCHW

    return _feed_case("layout", faulty, random, folder)


def _normalization(random: np.random.Generator, folder: Path) -> Case:
    def faulty(pixels: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
        channel = (1, 3, 1, 1)
        mean, spread = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        imagenet = (planes / 255 - mean.reshape(channel)) / spread.reshape(channel)
        return (planes, planes / 255, imagenet)[random.integers(3)]

    return _feed_case("normalization", faulty, random, folder)


def _memory(random: np.random.Generator, folder: Path) -> Case:
    def faulty(pixels: np.ndarray) -> np.ndarray:
        view = _scaled(pixels).transpose(0, 3, 1, 2)
        return np.asfortranarray(view) if random.integers(2) else view

    return _feed_case("memory", faulty, random, folder)


def _engine(random: np.random.Generator, folder: Path) -> Case:
    """The one that is real: see lesson 01b, where such a file is made."""
    models, feeds = networks.quick(), {"x": data.load("digits", "test").images}
    measured = experiment.find("lesson01_precision").recorded("it needs a GPU with FP8 on which such engines run")
    return fp8_case(models["fp32"], models["int8"], feeds, measured, folder)


def fp8_case(
    fp32_path: Path, int8_path: Path, feeds: dict[str, np.ndarray], measured: experiment.Measured, folder: Path
) -> Case:
    """Return the case of an FP8 file, written into the folder, whose engine was measured on a GPU.

    The file is made from a model's FP32 and INT8 variants. ``lesson01_precision`` is the experiment that measured.
    """
    return Case(
        "The FP8 engine runs on the GPU without an error, and its answers are no better than guesses.",
        reference_model=fp32_path,
        candidate_model=quantization.to_fp8(fp32_path, int8_path, folder / "fp8.onnx"),
        reference_feeds=feeds,
        candidate_feeds=feeds,
        reference_output=_output(fp32_path, feeds),
        candidate_output=None,
        answer=("engine", None),
        measured=measured.result.quick,
        origin=measured.origin,
    )


def _fp16_case(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], answer: tuple[str, str | None], folder: Path
) -> Case:
    """Return the case of an FP32 file and its conversion to FP16, on the same feeds."""
    reference = onnx_file.save(model, folder / f"{answer[0]}-fp32.onnx")
    candidate = onnx_file.save(_half(model), folder / f"{answer[0]}-fp16.onnx")
    return Case(
        complaint="The FP16 file fails the comparison with the FP32 file, at rtol = atol = 1e-5.",
        reference_model=reference,
        candidate_model=candidate,
        reference_feeds=feeds,
        candidate_feeds=feeds,
        reference_output=_output(reference, feeds),
        candidate_output=_output(candidate, feeds),
        answer=answer,
    )


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to FP16 as a training framework's ``half()`` does: every constant is rounded, and what is too small is 0.

    `half_precision.to_fp16` would save small constants from that.
    """
    from onnxconverter_common import float16

    limits = {"min_positive_val": 0.0, "max_finite_val": FP16.largest}
    return float16.convert_float_to_float16(copy.deepcopy(model), keep_io_types=True, **limits)


def _feed_case(
    fault: str, faulty: Callable[[np.ndarray], np.ndarray], random: np.random.Generator, folder: Path
) -> Case:
    """Return the case of one file in two programs, of which one prepares an input in another way."""
    reference = onnx_file.save(fault_lab_model.network(random), folder / f"{fault}.onnx")
    photographs = _photographs(random)
    feeds = _normalized(photographs)
    name = random.choice(INPUTS).item()
    other_feeds = {**feeds, name: faulty(photographs[name])}
    return Case(
        complaint="A new program gives other scores than the old one, with the same file and the same photographs.",
        reference_model=reference,
        candidate_model=reference,
        reference_feeds=feeds,
        candidate_feeds=other_feeds,
        reference_output=_output(reference, feeds),
        candidate_output=_output(reference, {name: _behind_pointer(array) for name, array in other_feeds.items()}),
        answer=(fault, name),
    )


def _behind_pointer(array: np.ndarray) -> np.ndarray:
    """Return what a library gets to see that is handed an address and a shape, as a copy to the GPU is.

    It reads the bytes in the order of memory. For ONNX Runtime and other libraries that take the array itself, numpy
    would put them in the order of the shape first.
    """
    read = np.frombuffer(ctypes.string_at(array.ctypes.data, array.nbytes), array.dtype)
    return read.reshape(array.shape)


def _photographs(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return sections of two photographs, uint8 ``[4, 64, 64, 3]`` each; one image of each shows only grey."""
    from sklearn.datasets import load_sample_images

    found = {}
    for name, photograph in zip(INPUTS, load_sample_images().images, strict=True):
        height, width, _ = photograph.shape
        corners = random.integers((height - IMAGE_SIZE, width - IMAGE_SIZE), size=(_IMAGES, 2))
        found[name] = np.stack([photograph[y : y + IMAGE_SIZE, x : x + IMAGE_SIZE] for y, x in corners])
        found[name][_BLANK] = 128
    return found


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Return pixels in the range that the model was trained with: -1 to 1."""
    return np.ascontiguousarray(pixels).astype(np.float32) / 127.5 - 1


def _normalized(photographs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(_scaled(pixels).transpose(0, 3, 1, 2)) for name, pixels in photographs.items()}


def _every_tensor(model: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    return tensor_errors.all_outputs(onnx_file.save(model, folder / "unchanged.onnx"), feeds)


def _output(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Return the output of a model, with the roundings of its data type."""
    *_, output = tensor_errors.all_outputs(path, feeds).values()
    return output


_SERVING: dict[str, Callable[[np.random.Generator, Path], Case]] = {
    "overflow": _overflow,
    "division": _division,
    "layout": _layout,
    "normalization": _normalization,
    "memory": _memory,
    "tolerance": _tolerance,
    "engine": _engine,
}
