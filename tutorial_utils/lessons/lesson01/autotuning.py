"""Lesson 01, auto-tuning: one convolution, three textbook algorithms, several shapes, on this CPU and on a GPU.

The algorithms are written once and run with numpy or PyTorch arrays. On a GPU, cuDNN's convolutions are timed beside
them, in both memory layouts and with its own auto-tuning off and on.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
import scipy.stats
from threadpoolctl import threadpool_limits

from tutorial_utils import plotting
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.measure import timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor

GPU_METHOD = (
    "PyTorch, FP32 with TF32 allowed, cuDNN's auto-tuning on; the candidates take turns in 10 rounds of 5 calls after "
    "5 calls to warm up; median; CUDA events around each call, data already on the GPU"
)
_ROUNDS, _CALLS, _WARM_UP_CALLS = 10, 5, 5


@dataclass(frozen=True)
class Shape:
    """A convolution of stride 1 whose output is as large as its input: "same" padding, odd kernel."""

    batch: int
    channels_in: int
    channels_out: int
    size: int  # height and width of the image
    kernel: int  # and of the kernel

    def __str__(self) -> str:
        return (
            f"{self.kernel}x{self.kernel}, {self.channels_in} to {self.channels_out} channels, "
            f"{self.batch} x {self.size}x{self.size}"
        )

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the definition of a convolution, padding included."""
        return self.batch * self.channels_in * self.channels_out * self.size**2 * self.kernel**2

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a random image ``[N, C_in, H, W]`` and random weights ``[C_out, C_in, K, K]``, float32."""
        random = np.random.default_rng(0)
        image = random.standard_normal((self.batch, self.channels_in, self.size, self.size), np.float32)
        weights = random.standard_normal((self.channels_out, self.channels_in, self.kernel, self.kernel), np.float32)
        return image, weights / np.float32(self.kernel * self.channels_in**0.5)


# A projection, a first layer, a layer deep in a network, and a kernel as wide as those of large-kernel networks.
CPU_SHAPES = (Shape(1, 64, 64, 14, 1), Shape(1, 3, 32, 64, 3), Shape(1, 16, 16, 48, 7), Shape(1, 2, 2, 32, 31))
# The same on a GPU, and layers of ResNet-50 at a batch that fills it.
GPU_SHAPES = (
    *CPU_SHAPES,
    Shape(64, 256, 64, 56, 1),
    Shape(64, 3, 64, 112, 7),
    Shape(64, 64, 64, 56, 3),
    Shape(64, 512, 512, 7, 3),
    Shape(2, 8, 8, 128, 31),
)


def shifted_products(library: ModuleType, padded: "Array", weights: "Array") -> "Array":
    """Convolve as a sum of matrix products, one for each position of the kernel, over the shifted image.

    Args:
        library: numpy or torch.
        padded: Image with "same" padding, ``[N, C_in, H + K - 1, W + K - 1]``.
        weights: ``[C_out, C_in, K, K]``.

    Returns:
        ``[N, C_out, H, W]``.
    """
    batch, channels_in, height, width, kernel = _sizes(padded, weights)
    total = 0
    for row in range(kernel):
        for column in range(kernel):
            shifted = padded[:, :, row : row + height, column : column + width]
            total = total + weights[:, :, row, column] @ shifted.reshape(batch, channels_in, height * width)
    return total.reshape(batch, len(weights), height, width)


def im2col(library: ModuleType, padded: "Array", weights: "Array") -> "Array":
    """Convolve as one large matrix product, after copying each pixel's neighbourhood into a column ("im2col").

    Arguments and result are those of `shifted_products`. The copy takes K x K times the image's memory.
    """
    batch, channels_in, height, width, kernel = _sizes(padded, weights)
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)]
    columns = library.stack(shifted, 2).reshape(batch, channels_in * kernel * kernel, height * width)
    return (weights.reshape(len(weights), -1) @ columns).reshape(batch, len(weights), height, width)


def fourier(library: ModuleType, padded: "Array", weights: "Array") -> "Array":
    """Convolve as a product of spectra: its cost hardly depends on the size of the kernel.

    Arguments and result are those of `shifted_products`.
    """
    _, _, height, width, _ = _sizes(padded, weights)
    fft = scipy.fft if library is np else library.fft  # numpy before 2.0 computes in double precision
    size = tuple(padded.shape[2:])
    spectrum, filters = fft.rfft2(padded, size), fft.rfft2(weights, size).conj()
    # For each frequency, a small matrix product over the channels: [C_out, C_in] @ [C_in, N].
    product = library.moveaxis(filters, (2, 3), (0, 1)) @ library.moveaxis(spectrum, (0, 1, 2, 3), (3, 2, 0, 1))
    result = fft.irfft2(library.moveaxis(product, (0, 1, 2, 3), (2, 3, 1, 0)), size)
    return result[:, :, :height, :width]


def _sizes(padded: "Array", weights: "Array") -> tuple[int, int, int, int, int]:
    batch, channels_in, height, width = padded.shape
    kernel = weights.shape[-1]
    return batch, channels_in, height - kernel + 1, width - kernel + 1, kernel


ALGORITHMS = {"shifted products": shifted_products, "im2col": im2col, "FFT": fourier}


def cpu_calls(shape: Shape) -> dict[str, Callable[[], np.ndarray]]:
    """Return the three algorithms as calls without arguments, on random data of this shape."""
    image, weights = shape.arrays()
    margin = shape.kernel // 2
    padded = np.pad(image, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    return {name: functools.partial(algorithm, np, padded, weights) for name, algorithm in ALGORITHMS.items()}


def measure_cpu(shapes: Sequence[Shape] = CPU_SHAPES, seconds: float = 0.1) -> dict[str, dict[str, Measurement]]:
    """Time the algorithms in turn with numpy on one core: more would measure the thread pool of its matrix product.

    Returns measurements by shape and algorithm, each of about so many seconds.
    """
    with threadpool_limits(1):
        return {
            str(shape): timing.measure_in_turn(cpu_calls(shape), batch=shape.batch, seconds=seconds) for shape in shapes
        }


def medians(results: dict[str, dict[str, Measurement]]) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each measurement: the form that recordings and figures use."""
    return {shape: {name: one.median_ms for name, one in by_name.items()} for shape, by_name in results.items()}


def fixed_choices(times: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return what each implementation costs if it serves every shape, as a multiple of the best choice per shape.

    It is the geometric mean over the shapes of its time divided by the fastest one's.
    """
    names = list(next(iter(times.values())))
    ratios = [[by_name[name] / min(by_name.values()) for name in names] for by_name in times.values()]
    return dict(zip(names, scipy.stats.gmean(ratios).tolist(), strict=True))


def measure_gpu() -> dict[str, dict[str, float]]:
    """Time the algorithms and cuDNN's convolutions in turn with PyTorch; return `medians`.

    Raises:
        BackendUnavailableError: There is no PyTorch with a GPU.
    """
    torch = _torch()
    torch.set_float32_matmul_precision("high")  # TF32; cuDNN's convolutions use it by default
    return {str(shape): _median_gpu_times(torch, _gpu_calls(torch, shape)) for shape in GPU_SHAPES}


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError("PyTorch is not installed.", "Install it where the recording is made.") from error
    if not torch.cuda.is_available():
        raise BackendUnavailableError("PyTorch finds no GPU.", "Run this on a machine with an NVIDIA GPU.")
    return torch


def _gpu_calls(torch: ModuleType, shape: Shape) -> dict[str, Callable[[], "torch.Tensor"]]:
    image, weights = (torch.from_numpy(array).cuda() for array in shape.arrays())
    margin = shape.kernel // 2
    padded = torch.nn.functional.pad(image, (margin,) * 4)
    calls = {name: functools.partial(algorithm, torch, padded, weights) for name, algorithm in ALGORITHMS.items()}

    # cuDNN tunes itself at the first call of each shape. Without its tuning it can't be timed beside: PyTorch keeps one
    # choice for each shape, whichever came first.
    torch.backends.cudnn.benchmark = True
    for name, memory_format in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        tensors = (tensor.to(memory_format=memory_format) for tensor in (image, weights))
        calls[f"cuDNN {name}"] = functools.partial(torch.nn.functional.conv2d, *tensors, padding=margin)
    return calls


def _median_gpu_times(torch: ModuleType, calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    reference = calls["cuDNN NCHW"]()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        error = (call() - reference).abs().max() / reference.abs().max()
        assert error < 1e-2, f"{name} is wrong by {error:.1e}"  # TF32 and another order of sums make about 1e-3
        for _ in range(_WARM_UP_CALLS):
            call()
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(_CALLS)]
            for start, end in events:
                start.record()
                call()
                end.record()
            torch.cuda.synchronize()
            times[name] += [start.elapsed_time(end) for start, end in events]
    return {name: round(float(np.median(milliseconds)), 4) for name, milliseconds in times.items()}


_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (GREY, "P"))


def draw_winners(times: dict[str, dict[str, float]], where: str) -> Picture:
    """Draw the time of each implementation on a machine as a multiple of the fastest one, shape by shape."""
    names = list(next(iter(times.values())))
    figure, axes = plotting.new_figure(1.3 + 0.42 * len(times))
    for name, (colour, marker) in zip(names, _STYLES, strict=False):
        ratios = [by_name[name] / min(by_name.values()) for by_name in times.values()]
        axes.plot(ratios, range(len(times)), marker, color=colour, markersize=8, alpha=0.85, label=name)
    plotting.name_rows(axes, list(times))
    plotting.plain_numbers(axes.xaxis)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xlabel(f"time as a multiple of the fastest implementation of the row ({where})")
    figure.legend(loc="outside upper left", ncols=5, frameon=False)
    width = max(map(len, times))
    lines, best = [], []
    for shape, by_name in times.items():
        best.append(min(by_name, key=by_name.get))
        listed = ", ".join(f"{name} {milliseconds:.3g} ms" for name, milliseconds in by_name.items())
        lines.append(f"{shape:{width}}  fastest: {best[-1]}  ({listed})")
    alt = f"Times of {len(names)} implementations of a convolution at {len(times)} shapes, {where}. " + " ".join(
        f"At {shape} the fastest is {name}." for shape, name in zip(times, best, strict=True)
    )
    return Picture(figure, alt, "\n".join(lines))


def _versions() -> dict[str, str]:
    torch = _torch()
    return {"torch": torch.__version__, "cudnn": str(torch.backends.cudnn.version())}


EXPERIMENT = Experiment(
    name="lesson01_autotuning",
    title="One convolution in several implementations over several shapes",
    method=GPU_METHOD,
    measure=lambda models: {"gpu_ms": measure_gpu()},
    read=lambda data: data["gpu_ms"],
    draw=lambda measured: draw_winners(measured.result, measured.gpu),
    needs_tensorrt=False,
    libraries=_versions,
)
