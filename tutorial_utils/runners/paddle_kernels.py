"""For which GPUs the installed Paddle holds kernels of its own.

On another GPU it starts all the same. In Paddle 2.6.2 an operator that runs there ends the process, or is launched
without a kernel and leaves its output as it was, without an error. So it has to be known before anything runs.
"""

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.model.quiet_paddle import paddle

# By versions of Paddle and CUDA, where Paddle doesn't tell (`paddle.version.cuda_archs` came with Paddle 3): read with
# cuobjdump from the wheel, which holds no PTX that a newer GPU could compile.
_READ_FROM_WHEELS = {("2.6.2", "11.8"): (61, 70, 75, 80, 86)}


def compiled_for() -> tuple[int, ...]:
    """Return the GPU architectures that Paddle was compiled for, such as 86; none where that isn't known."""
    told = getattr(paddle.version, "cuda_archs", tuple)()
    return tuple(sorted(map(int, told))) or _READ_FROM_WHEELS.get(
        (paddle.version.full_version, paddle.version.cuda()), ()
    )


def missing() -> str | None:
    """Return a sentence if this machine's GPU is one that Paddle has no kernels for; None otherwise, or if unknown."""
    gpu, _ = find_gpu()
    compiled = compiled_for()
    if gpu is None or not compiled:
        return None
    major, minor = map(int, gpu.compute_capability.split("."))
    if any(one // 10 == major and one % 10 <= minor for one in compiled):  # kernels run on later ones of a generation
        return None
    listed = ", ".join(f"{one // 10}.{one % 10}" for one in compiled)
    return (
        f"Paddle {paddle.__version__} holds kernels for compute capability {listed}, and none for "
        f"{gpu.compute_capability} ({gpu.name})"
    )


def require() -> None:
    """Refuse to run Paddle's own operators on a GPU that it has no kernels for.

    Raises:
        BackendUnavailableError: It has none, or there is no GPU that Paddle can use.
    """
    if not paddle.device.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0:
        raise BackendUnavailableError(
            "Paddle can't use a GPU here: it was built without CUDA, or there is none.",
            "Install paddlepaddle-gpu (see environment.yml).",
        )
    if sentence := missing():
        raise BackendUnavailableError(
            f"{sentence}: running one would end the process.",
            "Run Paddle on the CPU, or the whole program in TensorRT (paddle_tensorrt_build.open_runner).",
        )
