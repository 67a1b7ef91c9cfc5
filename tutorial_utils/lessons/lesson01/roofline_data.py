"""What the experiment of the roofline holds, and how the time of a call is split by it."""

from dataclasses import dataclass

PRECISIONS = ("fp16", "tf32")


@dataclass(frozen=True)
class Layer:
    """A layer of an engine: its kind, one of `engine_layers.KINDS`, its time, and the work that it can't avoid."""

    name: str
    kind: str
    ms: float
    multiply_adds: int
    bytes: int
    tactic: str = ""

    @property
    def flops(self) -> float:
        """Floating point operations per second: two for each multiply-add."""
        return 2000 * self.multiply_adds / self.ms

    @property
    def intensity(self) -> float:
        """Floating point operations for each byte that must be moved."""
        return 2 * self.multiply_adds / self.bytes


@dataclass(frozen=True)
class Call:
    """A call of ResNet-50 in a precision at a shape.

    Attributes:
        plain, graph: Milliseconds on the GPU: median and the ends of its 95 % interval. graph is None where `no_graph`
            says why.
        kernels: How many kernels it launches.
        kernels_ms: Their own times together.
        layers: In the order of execution.
        build_s: Of the engine.
        state: Clocks and power after the timing.
    """

    precision: str
    shape: tuple[int, ...]
    plain: tuple[float, float, float]
    graph: tuple[float, float, float] | None
    no_graph: str
    kernels: int
    kernels_ms: float
    layers: tuple[Layer, ...]
    build_s: float
    state: dict[str, float]

    @property
    def label(self) -> str:
        """Precision and shape."""
        return f"{self.precision.upper()}, {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Chip:
    """What the GPU can do at most; an empty field wasn't measured.

    Attributes:
        bytes_per_s: By the size of the copied tensor.
        flops: Of a large product, by precision, after seconds under load: the power limit lowers the clocks.
        launch_us: As `chip.launch_times` says.
    """

    bytes_per_s: dict[int, float]
    flops: dict[str, float]
    launch_us: dict[str, float]

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the largest copy, which no cache holds."""
        return self.bytes_per_s[max(self.bytes_per_s)]


@dataclass(frozen=True)
class Roofline:
    """What was measured, and why the other rows weren't, by row."""

    chip: Chip
    calls: tuple[Call, ...]
    reasons: dict[str, str]


def split(call: Call, limits: Chip) -> dict[str, float]:
    """Split the time of a call, in milliseconds, into what its layers can't avoid and the rest.

    Of each layer, the larger of arithmetic and bytes counts, since a kernel does both at the same time. Layers whose
    tensors stay in the L2 cache move their bytes faster than device memory can: then nothing is left for
    "rest". "launches" is what a CUDA graph saves.
    """
    arithmetic = moving = 0.0
    for layer in call.layers:
        computed, moved = (
            2000 * layer.multiply_adds / limits.flops[call.precision],
            1000 * layer.bytes / limits.bandwidth,
        )
        if computed >= moved:
            arithmetic += computed
        else:
            moving += moved
    plain = call.plain[0]
    graph = min(plain, (call.graph or call.plain)[0])
    rest = max(graph - arithmetic - moving, 0.0)
    return {"arithmetic": arithmetic, "bytes": moving, "rest": rest, "launches": plain - graph}
