"""The parts of an engine after fusion: layers, and the tensors between them. `report` reads them."""

from dataclasses import dataclass

# Layers that neither compute nor move data of the network: they order the streams of an engine, compute shapes on the
# host, or jump and set counters for an If and a Loop.
_CONTROL_LAYERS = {"signal", "wait", "shape_call", "ShapeHostToDevice", "jmp", "cjmp", "memset"}


@dataclass(frozen=True)
class EngineTensor:
    """A tensor between two engine layers. A dimension of -1 depends on the input shape.

    Attributes:
        format: How it lies in memory, such as "NHWC, channels padded to 4": see `memory_format`.
        strides: Elements from one to the next along each axis, -1 where that depends on the input shape. Empty for
            scalars, and where TensorRT doesn't say: 8.6 and 10 don't, nor do reports that were kept before strides
            were read. Their format is then TensorRT's word, which may be "Transposed".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    format: str
    strides: tuple[int, ...] = ()


@dataclass(frozen=True)
class EngineLayer:
    """A layer of the optimized engine, in the order of execution, and the ONNX nodes that were fused into it.

    Attributes:
        tactic: Name of the kernel that was chosen; empty where TensorRT gives none.
        weights: Data type of the layer's weights, or of the largest of its constants; empty where it has none.
    """

    name: str
    type: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    onnx_nodes: tuple[str, ...]
    tactic: str = ""
    weights: str = ""

    @property
    def is_kernel(self) -> bool:
        """Whether the layer computes or moves data on the GPU, instead of only ordering streams."""
        return self.type not in _CONTROL_LAYERS

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The data types of the layer's inputs and outputs, sorted, each once."""
        return tuple(sorted({tensor.dtype for tensor in self.inputs + self.outputs}))
