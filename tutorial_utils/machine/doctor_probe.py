"""Answer one of the doctor's questions in a process of its own, which a broken driver or library may end.

Usage: ``python doctor_probe.py QUESTION SYS_PATH``, where QUESTION is "kernel", "context" or "libraries" and SYS_PATH
the caller's `sys.path` as JSON. The last line of the output is the prefix, then JSON; an exception ends in "error".
"""

import ctypes
import json
import os
import sys
from typing import Any

REPORT_PREFIX = "tutorial_utils doctor: "


def main(question: str, search_path: str) -> None:
    """Print the answer and end the process without Python's own clean-up, in which some libraries crash."""
    sys.path[:] = json.loads(search_path)
    try:
        answer = {"kernel": kernel, "context": context, "libraries": libraries}[question]()
    except BaseException as error:  # a broken library raises whatever it likes, SystemExit too
        answer = {"error": _in_words(error)}
    print(f"\n{REPORT_PREFIX}{json.dumps(answer)}", flush=True)
    os._exit(0)


def kernel() -> dict[str, Any]:
    """Find the kernel that Jupyter starts for the lessons: its command, and the folder that it is described in."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    return {"argv": spec.argv, "folder": spec.resource_dir}


def context() -> dict[str, Any]:
    """Retain the primary context of the first GPU, as `runners.tensorrt` does."""
    import pycuda.driver as cuda

    cuda.init()
    primary = cuda.Device(0).retain_primary_context()
    primary.push()
    primary.pop()
    return {}


def libraries() -> dict[str, Any]:
    """Open TensorRT's libraries by the names that Paddle uses: what failed, and the version."""
    from tutorial_utils.machine.tensorrt_libraries import OPENED_BY_PADDLE

    errors, version = [], None
    for name in OPENED_BY_PADDLE:
        try:
            library = ctypes.CDLL(f"{name}.so")
            if name == "libnvinfer":
                version = library.getInferLibVersion()
        except (OSError, AttributeError) as error:  # not found, or not TensorRT
            errors.append(_in_words(error))
    return {"errors": errors, "version": version}


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200].rstrip('.')}"


if __name__ == "__main__":
    main(*sys.argv[1:])
