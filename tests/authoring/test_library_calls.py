"""Calls of a library are found by where a value came from, and nothing else is."""

import pytest

from tutorial_utils.authoring.library_calls import library_calls

BUILDER = "import tensorrt_rtx as trt\nbuilder = trt.Builder(trt.Logger())"
SESSION = "import onnxruntime as ort\nsession = ort.InferenceSession('m.onnx')"
LANE = """
class Lane:
    def __init__(self, engine):
        self.context = engine.create_execution_context()
    def start(self):
        return self.context.execute_async_v3(0)
"""
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
        (["import importlib\nrt = importlib.import_module('onnxruntime')\nrt.get_available_providers()"], [1]),
        # through the notebook's own functions and classes
        ([BUILDER, CHECKED, "net = checked(builder.create_network(0), 'net')", "net.get_layer(0)"], [2, 0, 1, 1]),
        ([SESSION, "def run(one):\n    return one.run(None, {})", "run(session)"], [1, 1, 0]),
        (["import tensorrt as trt", "def f(net: trt.INetworkDefinition | None):\n    net.get_layer(0)"], [0, 1]),
        (["import tensorrt as trt", "def f(nets: 'list[trt.INetwork]'):\n    nets[0].get_layer(0)"], [0, 1]),
        ([BUILDER, LANE, "lane = Lane(builder.build())\nlane.start()", "lane.context.set_shape()"], [2, 2, 1, 1]),
        (["import tensorrt as trt", "class Log(trt.ILogger):\n    pass", "log = Log()", "log.log()"], [0, 0, 1, 1]),
        (["import onnx\ndef f(n):\n    return f(n - 1)", "f(1)"], [0, 0]),  # ends
        ([SESSION, "def opened():\n    yield session", "with opened() as one:\n    one.run()"], [1, 0, 1]),
        # through containers, loops and comprehensions
        ([SESSION, "both = {'a': session}", "for name, one in both.items():\n    one.run()"], [1, 0, 1]),
        ([SESSION, "all = []\nall.append(session)", "[one.run() for one in all]"], [1, 0, 1]),
        ([SESSION, "all = {}\nall['a'] = session", "all['a'].run()\nall.get('a').run()"], [1, 0, 2]),
        ([SESSION, "a, b = session, 3", "a.run()", "b.bit_length()"], [1, 0, 1, 0]),
        ([SESSION, "for number, one in enumerate([session]):\n    one.run()\n    number.bit_length()"], [1, 1]),
        ([SESSION, "f'{session.run()}' if 1 < session.run() else 2"], [1, 2]),
        ([SESSION, "with session as one, open('f') as file:\n    one.run()\n    file.read()"], [1, 1]),
        ([SESSION, "x = None\nif x:\n    x = session\nelse:\n    x = None", "x.run()"], [1, 0, 1]),
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
        "session = 3\nsession.bit_length()",
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
