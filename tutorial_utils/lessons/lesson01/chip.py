"""What this GPU can do at most, measured: bytes it moves, products it multiplies, kernels it starts.

The data sheet's numbers hold for clocks that a GPU under load doesn't keep: its power is limited.
"""

import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from tutorial_utils.measure import gpu_state, on_stream, timing

COPIED_BYTES = (2**22, 2**24, 2**26, 2**28, 2**31)  # the smallest fit into the L2 cache
PRODUCT_SIZE = 8192
LAUNCHES = 500  # fewer than the 1024 launches that wait for a GPU before the host has to
_COPIES = 20
# An empty kernel, and one that keeps the GPU busy: in the driver's assembly language, so that no compiler is needed.
PTX = """
.version 7.0
.target sm_70
.address_size 64
.visible .entry empty() { ret; }
.visible .entry spin(.param .u64 nanoseconds)
{
    .reg .u64 %limit, %begin, %now;
    .reg .pred %early;
    ld.param.u64 %limit, [nanoseconds];
    mov.u64 %begin, %globaltimer;
again:
    mov.u64 %now, %globaltimer;
    sub.u64 %now, %now, %begin;
    setp.lt.u64 %early, %now, %limit;
    @%early bra again;
    ret;
}
"""


def copy_rates(torch: ModuleType, sizes: Sequence[int] = COPIED_BYTES) -> dict[int, float]:
    """Copy within the GPU's memory; return bytes read and written per second, by the bytes of the copied tensor."""
    stream, rates = torch.cuda.Stream(), {}
    for size in sizes:
        source = torch.zeros(size, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        graph = torch.cuda.CUDAGraph()  # launched one by one, small copies would wait for the host
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(_COPIES):
                target.copy_(source)
        with torch.cuda.stream(stream):
            ms = _median_ms(torch, stream, graph.replay)
        rates[size] = 2 * size * _COPIES / ms * 1000
    return rates


def product_rates(torch: ModuleType, size: int = PRODUCT_SIZE, load_seconds: float = 1.5) -> dict[str, dict[str, Any]]:
    """Multiply two square matrices of random numbers; return FLOP per second, and the GPU's state under that load.

    A product counts as 2 x size^3 floating point operations: a multiplication and an addition for each pair.
    """
    stream, found = torch.cuda.Stream(), {}
    for name, dtype, precision in (
        ("fp32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("fp16", torch.float16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        with torch.cuda.stream(stream):
            a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
            out = torch.empty_like(a)

            def multiply(a: Any = a, b: Any = b, out: Any = out) -> None:
                torch.matmul(a, b, out=out)

            first = _median_ms(torch, stream, multiply)
            for _ in range(min(1000, int(1000 * load_seconds / first))):
                multiply()
            state = gpu_state.read()  # while these run; after them, clocks and power are as they are under load
            ms = _median_ms(torch, stream, multiply)
        found[name] = {"flops": 2 * size**3 / ms * 1000, "first_flops": 2 * size**3 / first * 1000, "state": state}
    return found


def _median_ms(torch: ModuleType, stream: Any, call: Callable[[], Any]) -> float:
    measured = timing.measure_on_device(
        lambda calls: on_stream.event_times(torch, stream, call, calls), seconds=0.5, max_calls=200
    )
    return measured.median_ms


def launch_times(launches: int = LAUNCHES, rounds: int = 11) -> dict[str, float]:
    """Launch an empty kernel many times; return microseconds for each launch, medians of the rounds.

    Returns:
        "host": until the call of the launch returns, from Python with PyCUDA. "one by one": on the GPU, as they come
        from the host. "queued": on the GPU, where all of them wait already. "graph": on the GPU, as one CUDA graph.

    Raises:
        BackendUnavailableError: There is no GPU, or cuda-python isn't installed.
    """
    from tutorial_utils.runners.tensorrt import primary_context

    with primary_context():
        return _launch_times(launches, rounds)  # what it makes is gone before the context is


def _launch_times(launches: int, rounds: int) -> dict[str, float]:
    from tutorial_utils.runners.cuda_graph import CudaGraph
    from tutorial_utils.runners.tensorrt import cuda

    module = cuda.module_from_buffer(PTX.encode() + b"\0")
    empty = module.get_function("empty").prepare("")
    spin = module.get_function("spin").prepare("Q")
    stream, events = cuda.Stream(), [cuda.Event(), cuda.Event()]

    def launch() -> None:
        for _ in range(launches):
            empty.prepared_async_call((1, 1), (1, 1, 1), stream)

    def on_gpu(work: Callable[[], None], busy_ns: int = 0) -> float:
        if busy_ns:
            spin.prepared_async_call((1, 1), (1, 1, 1), stream, busy_ns)
        events[0].record(stream)
        work()
        events[1].record(stream)
        stream.synchronize()
        return 1000 * events[0].time_till(events[1]) / launches

    def on_host() -> float:
        begin = time.perf_counter()
        launch()
        seconds = time.perf_counter() - begin
        stream.synchronize()
        return 1e6 * seconds / launches

    launch()
    stream.synchronize()
    graph = CudaGraph(launch, stream.handle)
    found: dict[str, list[float]] = {"host": [], "one by one": [], "queued": [], "graph": []}
    for _ in range(rounds):
        found["host"].append(on_host())
        found["one by one"].append(on_gpu(launch))
        found["queued"].append(on_gpu(launch, busy_ns=20_000_000))  # 20 ms: much longer than launching takes
        found["graph"].append(on_gpu(graph.launch))
    graph.close()
    return {name: round(float(np.median(times)), 3) for name, times in found.items()}
