"""Lesson 00's first picture: ResNet-50 on one GPU in ONNX Runtime, Paddle-TRT and TensorRT, from `resnet50_matrix`."""

from tutorial_utils import plotting
from tutorial_utils.measure.experiment import Measured
from tutorial_utils.measure.resnet50_matrix.cells import PRECISIONS, SHAPES, Cell, Matrix, Row

SHAPE = SHAPES[0]  # the article's: 64 images of CIFAR-10's size
BASELINE = Cell("onnxruntime_cuda", "fp32", SHAPE)
_NAMES = {
    "onnxruntime_cuda": "ONNX Runtime CUDA",
    "onnxruntime_nhwc": "ONNX Runtime CUDA NHWC",
    "paddle_tensorrt": "Paddle-TRT",
    "tensorrt_typed": "TensorRT",
}
_SHOWN = (
    *(("onnxruntime_cuda", precision) for precision in ("fp32", "tf32", "fp16")),
    ("onnxruntime_nhwc", "fp16"),
    *(("paddle_tensorrt", precision) for precision in ("tf32", "fp16", "int8_calibrated")),
    *(("tensorrt_typed", precision) for precision in ("fp32", "tf32", "fp16", "int8_qdq")),
)
_COLOURS = {
    "onnxruntime_cuda": plotting.GREY,
    "onnxruntime_nhwc": plotting.GREY,
    "paddle_tensorrt": plotting.ORANGE,
    "tensorrt_typed": plotting.BLUE,
}


def _measured(matrix: Matrix) -> list[tuple[str, str, Row]]:
    """Return library, name and row of what is shown and was measured."""
    found = ((library, precision, matrix.cells.get(Cell(library, precision, SHAPE))) for library, precision in _SHOWN)
    return [
        (library, f"{_NAMES[library]} {PRECISIONS[precision]}", row)
        for library, precision, row in found
        if isinstance(row, Row)
    ]


def rows(matrix: Matrix) -> dict[str, Row]:
    """Return the rows of the picture that were measured, by name: "TensorRT FP16"."""
    return {name: row for _, name, row in _measured(matrix)}


def draw(measured: Measured[Matrix]) -> plotting.Picture:
    """Draw the time of a call from array to array, and the part of it that the GPU computes."""
    shown = _measured(measured.result)
    baseline = measured.result.cells[BASELINE]
    figure, axes = plotting.new_figure(1.3 + 0.36 * len(shown))
    lines = []
    for position, (library, name, row) in enumerate(shown):
        host, on_gpu = row.host, row.device
        colour = _COLOURS[library]
        axes.barh(position, host.median, 0.68, color=colour, alpha=0.35, linewidth=0)
        axes.barh(position, on_gpu.median, 0.68, color=colour, linewidth=0)
        if row.graph:
            axes.plot(row.graph.median, position, "D", color="white", markeredgecolor="black", markersize=6)
        axes.plot([host.low, host.high], [position] * 2, "|-", color="black", markersize=7, linewidth=1)
        factor = baseline.host.median / host.median
        note = f"{host.median:.2f} ms" + (f", {factor:.1f} times as fast" if row is not baseline else "")
        plotting.note(axes, note, (host.high, position), (6, 0))
        lines.append(
            f"{name:32} {host.median:6.3f} ms ({host.low:.3f} to {host.high:.3f}), on the GPU {on_gpu.median:.3f} ms, "
            + (f"as a CUDA graph {row.graph.median:.3f} ms, " if row.graph else "")
            + f"error {row.relative_error:.0e}"
        )
    plotting.name_rows(axes, [name for _, name, _ in shown])
    axes.set_xlim(0, 1.3 * max(row.host.high for _, _, row in shown))
    images, *image = SHAPE
    axes.set_xlabel(
        f"milliseconds for {images} images of {'x'.join(map(str, image))}, from array to array, with 95 % interval;\n"
        "dark: on the GPU, without copies; diamond: there, replayed as a CUDA graph"
    )
    _, fastest, best = min(shown, key=lambda one: one[2].host.median)
    alt = (
        f"ResNet-50 on {measured.gpu} in {len(shown)} ways. ONNX Runtime CUDA FP32 takes {baseline.host.median:.2f} "
        f"ms; the fastest is {fastest} with {best.host.median:.2f} ms."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))
