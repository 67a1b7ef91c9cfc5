"""The patient of lesson 04: a text detection network as people deploy it, and a photograph of a page to run it on.

The network is PP-OCRv4's mobile detector (https://github.com/PaddlePaddle/PaddleOCR, Apache-2.0), which PaddleOCR's
authors trained and the package rapidocr-onnxruntime ships as ONNX. The photograph comes with scikit-image.
"""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
from blake3 import blake3

from tutorial_utils.base import paths, sealed_files
from tutorial_utils.base.errors import BackendUnavailableError, DataError, ModelFileError
from tutorial_utils.base.requirements import TEXT_DETECTION
from tutorial_utils.model import export, onnx_file

# Raise this by one whenever `prepare` writes another file than before: the cache finds the file by it.
RECIPE = 1
# Of the RGB channels in 0..1, as in PaddleOCR's configuration of this network.
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def shipped_path() -> Path:
    """Return the ONNX file in the installed package, which is not imported: its imports don't concern the file.

    Raises:
        ModelFileError: The package is not installed, or has no such file.
    """
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    folder = Path(found.submodule_search_locations[0]) if found else Path()
    path = folder / "models" / "ch_PP-OCRv4_det_infer.onnx"
    if not path.is_file():
        raise ModelFileError(
            "The text detection network is not installed: no ch_PP-OCRv4_det_infer.onnx in rapidocr_onnxruntime.",
            f"Run `python -m pip install --no-deps {TEXT_DETECTION}`; --no-deps keeps your ONNX Runtime as it is.",
        )
    return path


def prepare() -> Path:
    """Bring the shipped file into the form that conversions to FP16 and INT8 need, computing the same.

    Its opset is raised to 17, its weights become initializers, and its batch norms are folded into the convolutions
    before them, as TensorRT does anyway: one has a variance of 98 million, which FP16 can't hold. Batch, height and
    width stay dynamic, inputs and outputs keep their names.

    Returns:
        The path of the model in the cache, where it is made once. It has the input "x", float32
        ``[batch, 3, height, width]``, and the output "sigmoid_0.tmp_0", float32 ``[batch, 1, height, width]``, the
        probability that a pixel belongs to text.
    """
    source = shipped_path()
    code = blake3(bytes([RECIPE]) + source.read_bytes()).hexdigest(length=8)
    path = paths.cache_dir("onnx") / f"text-detection-{code}.onnx"
    with sealed_files.filling([path], path.with_suffix(".lock")) as missing:
        if missing:
            onnx_file.save(_prepared(source), path)
    return path


def _prepared(source: Path) -> onnx.ModelProto:
    from polygraphy.backend.onnx import fold_constants
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        model = fold_constants(onnx_file.load(source), do_shape_inference=False, num_passes=1)
        model = onnx.version_converter.convert_version(model, export.OPSET)
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.input[1] = ""  # the region of interest: absent is said so, not by a weight without elements
    _fold_batch_norms(model.graph)
    used = {name for node in model.graph.node for name in node.input}
    for weight in [weight for weight in model.graph.initializer if weight.name not in used]:
        model.graph.initializer.remove(weight)
    return model


def _fold_batch_norms(graph: onnx.GraphProto) -> None:
    """Multiply the factor of each batch norm into the weights before it, and turn what it adds into an Add."""
    weights = {weight.name: weight for weight in graph.initializer}
    writers = {name: node for node in graph.node for name in node.output}

    def read(name: str) -> np.ndarray:
        return onnx.numpy_helper.to_array(weights[name]).astype(np.float64)

    def write(name: str, values: np.ndarray) -> None:
        weights[name].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))

    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        scale, shift, mean, variance = map(read, norm.input[1:])
        epsilon = next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
        factor = scale / np.sqrt(variance + epsilon)
        offset = shift - mean * factor
        before = writers[norm.input[0]]
        if before.op_type == "Add":  # the bias of a transposed convolution, [1, channels, 1, 1]
            offset += read(before.input[1]).ravel() * factor
            layer = writers[before.input[0]]
            graph.node.remove(before)
        else:
            layer = before
        axis = 1 if layer.op_type == "ConvTranspose" else 0  # of the output channels
        values = read(layer.input[1])
        write(layer.input[1], values * np.expand_dims(factor, [i for i in range(values.ndim) if i != axis]))
        write(norm.input[2], offset)
        layer.input.append(norm.input[2])  # none of these layers has a bias of its own
        layer.output[0] = norm.output[0]
        graph.node.remove(norm)


def page() -> np.ndarray:
    """Return the photograph of a printed page, uint8 RGB, shape ``[191, 384, 3]``.

    Raises:
        BackendUnavailableError: scikit-image is not installed.
        DataError: Its photograph is missing or damaged.
    """
    from PIL import Image

    found = importlib.util.find_spec("skimage")  # reading one file doesn't need the import, which takes a second
    if found is None:
        raise BackendUnavailableError(
            "scikit-image, which brings the photograph, is not installed.", "Run `python -m pip install scikit-image`."
        )
    path = Path(found.submodule_search_locations[0]) / "data" / "page.png"
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except OSError as error:
        raise DataError(
            "The photograph page.png of scikit-image is missing or damaged.",
            "Run `python -m pip install --force-reinstall --no-deps scikit-image`.",
        ) from error


def preprocess(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize and normalize an image as the network was trained.

    Args:
        image: uint8 RGB, shape ``[H, W, 3]``.
        height: Of the network's input, in pixels, a multiple of 32: the backbone halves it five times.
        width: The same.

    Returns:
        float32, shape ``[1, 3, height, width]``.
    """
    from PIL import Image

    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    normalized = (resized.astype(np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[None])


def boxes(probability: np.ndarray, threshold: float = 0.3) -> list[tuple[int, int, int, int]]:
    """Return a rectangle around each connected region of text pixels.

    Args:
        probability: The network's output for one image, float, ``[1, 1, height, width]`` or ``[height, width]``. NaN
            counts as no text.
        threshold: From which probability on a pixel is text; 0.3 is PaddleOCR's.

    Returns:
        Rectangles ``(x0, y0, x1, y1)`` in pixels, the ends not included, from top to bottom.
    """
    from scipy import ndimage

    regions, _ = ndimage.label(np.reshape(probability, probability.shape[-2:]) > threshold)
    found = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in ndimage.find_objects(regions)]
    return sorted(found, key=lambda box: (box[1], box[0]))
