"""The GPUs that a build of Paddle holds kernels of its own for: from what it says of itself, or from its wheel."""

from collections.abc import Iterable

# By versions of Paddle and CUDA, where Paddle doesn't tell (`paddle.version.cuda_archs` came with Paddle 3): read with
# cuobjdump from the wheel, which holds no PTX that a newer GPU could compile.
_READ_FROM_WHEELS = {("2.6.2", "11.8"): (61, 70, 75, 80, 86)}


def compiled_for(told: Iterable[int | str], version: str, cuda: str) -> tuple[int, ...]:
    """Return the GPU architectures of a build, such as 86; none where that isn't known.

    Args:
        told: What the build says of itself.
        version: Of Paddle, in full.
        cuda: The version of CUDA that Paddle says it was compiled with.
    """
    return tuple(sorted(map(int, told))) or _READ_FROM_WHEELS.get((version, cuda), ())


def missing(compiled: tuple[int, ...], compute_capability: str) -> str | None:
    """Return half a sentence if these kernels run on no such GPU; None if they do, or if none are known."""
    major, minor = map(int, compute_capability.split("."))
    if not compiled or any(one // 10 == major and one % 10 <= minor for one in compiled):  # run on later ones of a kind
        return None
    listed = ", ".join(f"{one // 10}.{one % 10}" for one in compiled)
    return f"holds kernels for compute capability {listed}, and none for {compute_capability}"
