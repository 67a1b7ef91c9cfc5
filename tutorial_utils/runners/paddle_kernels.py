"""Whether the installed Paddle holds kernels of its own for this machine's GPU.

On another GPU it starts all the same. In Paddle 2.6.2 an operator that runs there ends the process, or is launched
without a kernel and leaves its output as it was, without an error. So it has to be known before anything runs.
"""

from tutorial_utils.base import paddle_kernels
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.model.quiet_paddle import paddle


def compiled_for() -> tuple[int, ...]:
    """Return the GPU architectures that Paddle was compiled for, such as 86; none where that isn't known."""
    told = getattr(paddle.version, "cuda_archs", tuple)()
    return paddle_kernels.compiled_for(told, paddle.version.full_version, paddle.version.cuda())


def missing() -> str | None:
    """Return a sentence if this machine's GPU is one that Paddle has no kernels for; None otherwise, or if unknown."""
    gpu, _ = find_gpu()
    lacks = paddle_kernels.missing(compiled_for(), gpu.compute_capability) if gpu else None
    return f"Paddle {paddle.__version__} {lacks} ({gpu.name})" if lacks else None


def require_gpu() -> None:
    """Refuse to go on without a GPU that Paddle can use.

    Raises:
        BackendUnavailableError: There is none, or Paddle was built without CUDA.
    """
    if not paddle.device.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0:
        raise BackendUnavailableError(
            "Paddle can't use a GPU here: it was built without CUDA, or there is none.",
            "Install paddlepaddle-gpu (see environment.yml).",
        )


def require() -> None:
    """Refuse to run Paddle's own operators on a GPU that it has no kernels for.

    Raises:
        BackendUnavailableError: It has none, or there is no GPU that Paddle can use.
    """
    require_gpu()
    if sentence := missing():
        raise BackendUnavailableError(
            f"{sentence}: running one gives wrong outputs, or ends the process.",
            "Run Paddle on the CPU, or the whole program in TensorRT (paddle_tensorrt_build.open_runner).",
        )
