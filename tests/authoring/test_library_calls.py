"""Calls of a library are found by where a value came from, and nothing else is."""

import pytest

from tutorial_utils.authoring.library_calls import library_calls

BUILDER = "import tensorrt_rtx as trt\nbuilder = trt.Builder(trt.Logger())"
SESSION = "import onnxruntime as ort\nsession = ort.InferenceSession('m.onnx')"
CHECKED = """
def checked(value, what):
    if value is None:
        raise RuntimeError(what)
    return value
"""


@pytest.mark.parametrize(
    ("cells", "counts"),
    [
        (["import onnx\nonnx.load('m')"], [1]),
        ([BUILDER, "network = builder.create_network(0)", "network.get_input(0).name"], [2, 1, 1]),
        ([SESSION, "session.run(None, {})[0]"], [1, 1]),
        (["from polygraphy.backend.trt import EngineFromNetwork as E", "E()"], [0, 1]),
        (["import pycuda.driver as cuda", "stream = cuda.Stream()", "stream.synchronize()"], [0, 1, 1]),
        (["import paddle", "net = paddle.nn.Linear(2, 2)", "net(1)\nnet.eval()"], [0, 1, 2]),
        (["trt = flavour.load()", "log = trt.Logger()"], [0, 1]),
        (
            [BUILDER, "from tutorial_utils import builder\nbuilder.build()"],
            [2, 0],
        ),  # the name is another's from here on
        (["import tensorrt as trt\ndef f(net: trt.INetworkDefinition):\n    net.get_layer(0)"], [1]),
        (["class Log(trt.ILogger):\n    def __init__(self):\n        trt.ILogger.__init__(self)"], [1]),
        (["net: trt.INetworkDefinition = made()", "net.get_layer(0)\nother.get_layer(0)"], [0, 1]),
        (
            [
                "class A:\n    def f(self):\n        self.context: trt.IExecutionContext = made()",
                "class B(A):\n    def f(self):\n        self.context.infer_shapes()\n        self.other.infer_shapes()",
            ],
            [0, 1],
        ),  # a class whose methods stand in several cells
        # through what hands on its argument, loops and with
        ([BUILDER, CHECKED, "net = checked(builder.create_network(0), 'net')", "net.get_layer(0)"], [2, 0, 1, 1]),
        ([SESSION, "for one in [session]:\n    one.get_inputs()"], [1, 0]),
        ([SESSION, "for one in session.get_inputs():\n    one.clear()"], [1, 2]),
        ([SESSION, "with session as one, open('f') as file:\n    one.run()\n    file.read()"], [1, 1]),
        ([SESSION, "f'{session.run()}' if 1 < session.run() else 2"], [1, 2]),
        (["%%time\nimport onnx\nonnx.load('m')", "!ls", "%%bash\nls | (", "%matplotlib inline"], [1, 0, 0, 0]),
    ],
)
def test_calls_are_found(cells, counts):
    assert library_calls(cells) == counts


@pytest.mark.parametrize(
    "cell",
    [
        "print(onnx.__version__)",
        "onnx.__version__.split('.')",
        "onnx.TensorProto.FLOAT",
        "session.run",
        "len(session.names)",
        "session.name.startswith('a')",
        "both = {'a': session}\nfor key in both:\n    key.casefold()\nboth.keys()",
        "names = [node.name for node in session.nodes]\nnames.count('a')",
        "from tutorial_utils import engine\nengine.build('m.onnx').save()",
        "# onnx.load('m')",
        "text = 'onnx.load(1)'\nprint(text)",
        "import onnxconverter_common\nonnxconverter_common.convert()",
        "class Log(trt.ILogger):\n    def log(self):\n        self.seen = []\n        self.seen.append(1)",
    ],
)
def test_what_is_no_call_of_a_library_is_not_counted(cell):
    assert library_calls(["import onnx\n" + SESSION, cell]) == [1, 0]


def test_arrays_that_a_library_returns_are_not_the_library():
    assert library_calls([SESSION, "logits = session.run(None, {})[0]", "logits.argmax(1)"]) == [1, 1, 0]
