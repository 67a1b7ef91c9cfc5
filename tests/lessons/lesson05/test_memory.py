"""The picture of an engine's lifetimes names what is alive where memory is fullest."""

from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.lessons.lesson05 import memory


def kernel(name, reads, writes, *nodes):
    sides = [tuple(EngineTensor(one, (-1, 2**18), "fp32", "NHWC") for one in side) for side in (reads, writes)]
    return EngineLayer(name, "kgen", *sides, nodes)


def test_lifetimes():
    layers = (
        kernel("before", "x", "z", "Cast.0"),
        kernel("k0", "z", "a"),
        kernel("k1", "a", "b", "Conv.0", "Relu.0"),
        EngineLayer("wait", "wait", (), (), ()),
        kernel("k2", "ab", "c", "Conv.1", "Add.0"),
        kernel("k3", "c", "y", "Gemm.0"),
    )
    picture = memory.lifetimes(BuildReport("TensorRT-RTX", "1", layers=layers), batch=1)
    assert picture.text.splitlines() == [
        "alive at the fullest: 1.00 MiB, written by a kgen kernel of no ONNX node",
        "alive at the fullest: 1.00 MiB, written by Conv.0 + Relu.0",
        "alive at the fullest: 1.00 MiB, written by Conv.1 + Add.0",
        "Cast.0: 1.00 MiB alive",
        "a kgen kernel of no ONNX node: 2.00 MiB alive",
        "Conv.0 + Relu.0: 2.00 MiB alive",
        "Conv.1 + Add.0: 3.00 MiB alive",
        "Gemm.0: 1.00 MiB alive",
    ]
    assert "Lifetimes of 4 tensors over 5 kernels" in picture.alt
    assert "Most is alive at 1 of the kernels, first at Conv.1 + Add.0: 3.00 MiB" in picture.alt
    assert picture._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")
