"""What the NVIDIA driver says of its first GPU, asked in milliseconds: no CUDA context, no library but the driver's."""

import ctypes
import os
from dataclasses import dataclass

_CUDA_ERROR_NO_DEVICE = 100
_CU_ATTRIBUTE_MAJOR, _CU_ATTRIBUTE_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Capability:
    """One thing that the course does, and whether this machine can do it."""

    name: str  # what it is, for a reader
    available: bool  # whether it works here
    reason: str  # one sentence: what was found, or why it doesn't work
    remedy: str  # one sentence or command: what to do about it. Empty when it works
    harmless: bool = False  # it doesn't work, and nothing is broken: this machine is as it should be


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU that the driver shows."""

    name: str  # for example "NVIDIA H100 80GB HBM3"
    compute_capability: str  # for example "9.0"
    driver_version: str  # the newest CUDA version that the driver supports, for example "13.0"
    memory_bytes: int  # total device memory


def find_gpu() -> tuple[Gpu | None, Capability]:
    """Ask the NVIDIA driver for its first GPU: return it or None, and the row of the table that says what was found."""
    name = "NVIDIA GPU"
    without = "Nothing is broken: without a GPU the lessons build engines, and show recordings of their speed."
    count = ctypes.c_int(0)
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    except OSError:
        return None, Capability(name, False, "No NVIDIA driver found (libcuda.so.1).", without, harmless=True)
    except AttributeError as error:
        reason = f"libcuda.so.1 is not a whole NVIDIA driver: {error}."
        return None, Capability(name, False, reason, "Reinstall the NVIDIA driver.")
    if status == _CUDA_ERROR_NO_DEVICE or (status == 0 and count.value == 0):
        reason = "The NVIDIA driver is installed but shows no GPU."
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            reason += f" CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}."
        return None, Capability(name, False, reason, without, harmless=True)
    if status != 0:
        reason = f"The NVIDIA driver is installed but doesn't start (CUDA error {status})."
        return None, Capability(name, False, reason, "Run `nvidia-smi`; after a driver update, restart the machine.")

    device, version, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, text = ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    cuda.cuDeviceGetName(text, len(text), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CU_ATTRIBUTE_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CU_ATTRIBUTE_MINOR, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    gpu = Gpu(
        name=text.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        driver_version=f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory_bytes=memory.value,
    )
    reason = (
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.0f} GiB; "
        f"the driver supports CUDA {gpu.driver_version}."
    )
    return gpu, Capability(name, True, reason, "")
