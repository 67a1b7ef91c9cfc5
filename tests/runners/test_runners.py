import importlib
import sys
import warnings
from types import ModuleType

import numpy as np
import onnx
import pytest
from node_models import FLOAT, INT64, STRING, of_nodes, save_nodes, sequence_of_two
from onnx import helper
from small_models import images

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, InputError, ModelFileError, UnsupportedOperatorError
from tutorial_utils.model import export
from tutorial_utils.runners import Runner, TensorSpec
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner


@pytest.fixture(scope="module")
def exported(paddle_model, tmp_path_factory):
    return export.to_onnx(*paddle_model, tmp_path_factory.mktemp("runners") / "net.onnx")


@pytest.fixture(scope="module")
def paddle_runner(paddle_model):
    from tutorial_utils.runners.paddle import PaddleRunner

    with PaddleRunner(*paddle_model) as runner:
        yield runner


@pytest.fixture(scope="module")
def onnx_runner(exported):
    with OnnxRuntimeRunner(exported) as runner:
        yield runner


@pytest.fixture(params=["paddle", "onnx runtime"])
def runner(request):
    """Each runner that works on every machine, on the same model."""
    return request.getfixturevalue({"paddle": "paddle_runner", "onnx runtime": "onnx_runner"}[request.param])


# --- one calling convention ------------------------------------------------------------------------------------------


def test_runner_knows_its_inputs_and_outputs(runner):
    assert isinstance(runner, Runner)
    may_be_empty = isinstance(runner, OnnxRuntimeRunner)
    assert runner.inputs == {"x": TensorSpec("x", np.dtype("float32"), (-1, 3, 32, 32), empty=may_be_empty)}
    assert [spec.dtype for spec in runner.outputs.values()] == [np.float32]
    assert runner.backend in ("Paddle CPU", "ONNX Runtime CPU")


@pytest.mark.parametrize("batch", [1, 7])
def test_runners_agree(batch, paddle_runner, onnx_runner):
    feeds = {"x": images(batch)}
    one, other = paddle_runner.infer(feeds), onnx_runner.infer(feeds)
    assert one.keys() == other.keys() == paddle_runner.outputs.keys() == onnx_runner.outputs.keys()
    for name in one:
        assert one[name].shape == (batch, 10)
        np.testing.assert_allclose(one[name], other[name], atol=1e-4)


def test_memory_layout_of_an_input_does_not_matter(runner):
    batch = images(4)
    channels_last = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    every_other = np.repeat(batch, 2, axis=0)[::2]
    (expected,) = runner.infer({"x": batch}).values()
    for view in (channels_last, every_other):
        assert not view.flags.c_contiguous
        (actual,) = runner.infer({"x": view}).values()
        np.testing.assert_array_equal(actual, expected)


def test_outputs_are_arrays_of_their_own(runner):
    (first,) = runner.infer({"x": images(4, seed=1)}).values()
    kept = first.copy()
    runner.infer({"x": images(4, seed=2)})
    np.testing.assert_array_equal(first, kept)


BAD_FEEDS = {  # the others are in bad_input
    "other name": ({"images": images(1)}, "inputs given are images, but the model takes x"),
    "rank": ({"x": images(1)[0]}, r"shape \(3, 32, 32\), but the model takes \(any, 3, 32, 32\)"),
    "empty batch": ({"x": images(0)}, r"shape \(0, 3, 32, 32\), but the model takes|can't run the model on x \[0, 3"),
}


@pytest.mark.parametrize("case", BAD_FEEDS)
def test_bad_feeds(case, runner):
    feeds, message = BAD_FEEDS[case]
    with pytest.raises(InputError, match=message) as caught:
        runner.infer(feeds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [1, 8, 16])
def test_shape_inside_a_profile(batch):
    spec = TensorSpec("x", np.dtype("float32"), (-1, 3, 32, 32), (1, 3, 32, 32), (16, 3, 32, 32))
    spec.check(images(batch))


@pytest.mark.parametrize(
    ("batch", "allowed"),
    [(1, r"\(2, 3, 32, 32\) to \(16, 3, 32, 32\)"), (17, r"\(2, 3, 32, 32\) to \(16, 3, 32, 32\)")],
)
def test_shape_outside_a_profile(batch, allowed):
    spec = TensorSpec("x", np.dtype("float32"), (-1, 3, 32, 32), (2, 3, 32, 32), (16, 3, 32, 32))
    with pytest.raises(
        InputError, match=rf"shape \({batch}, 3, 32, 32\), but the model takes {allowed}.*wider profile"
    ):
        spec.check(images(batch))


def test_an_empty_batch_fits_only_where_the_backend_takes_it():
    with pytest.raises(InputError, match=r"shape \(0, 3, 32, 32\), but the model takes \(any, 3, 32, 32\)"):
        TensorSpec("x", np.dtype("float32"), (-1, 3, 32, 32)).check(images(0))
    TensorSpec("x", np.dtype("float32"), (-1, 3, 32, 32), empty=True).check(images(0))
    TensorSpec("x", np.dtype("float32"), (0, 3, 32, 32)).check(images(0))
    TensorSpec("x", np.dtype("float32"), (-1, 3, 32, 32), (0, 3, 32, 32), (8, 3, 32, 32)).check(images(0))


# --- Paddle ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [{"onednn": True}, {"optimize": False}, {"threads": 1}])
def test_paddle_choices_change_no_result(choices, paddle_model, paddle_runner):
    from tutorial_utils.runners.paddle import PaddleRunner

    feeds = {"x": images(4)}
    (expected,) = paddle_runner.infer(feeds).values()
    with PaddleRunner(*paddle_model, **choices) as other:
        (actual,) = other.infer(feeds).values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def save_with(paddle, function, folder, dtype="float32"):
    """Save a convolution of which a function takes the result."""

    class Net(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = paddle.nn.Conv2D(3, 4, 3)

        def forward(self, x):
            return function(self.conv(x.astype("float32")))

    net = Net()
    net.eval()
    paddle.jit.save(net, str(folder / "net"), [paddle.static.InputSpec([None, 3, 8, 8], dtype, "x")])
    return folder / "net.json", folder / "net.pdiparams"


BREAKING = {
    "leaky_relu": lambda functional, x: functional.leaky_relu(x, 0.2),
    "nearest_interp": lambda functional, x: functional.interpolate(x, scale_factor=2),
    "bilinear_interp": lambda functional, x: functional.interpolate(x, size=[12, 12], mode="bilinear"),
    "layer_norm": lambda functional, x: functional.layer_norm(x, [6, 6]),
    "conv2d_transpose, round": lambda functional, x: functional.conv2d_transpose(
        x, functional.softmax(x)[0, :, :1, :1].unsqueeze(1)
    ).round(),
    "matmul": lambda functional, x: x.matmul(x),  # computes other values
    "batch_norm_": lambda functional, x: functional.batch_norm(  # ends the process
        functional.relu(x), x.mean([0, 2, 3]), x.mean([0, 2, 3])
    ),
    "pool2d": lambda functional, x: functional.avg_pool2d(x, 3, 2, ceil_mode=True, exclusive=False),
}


@pytest.mark.parametrize("operator", BREAKING)
def test_paddle_runs_without_onednn_what_that_would_break(operator, tmp_path):
    """`tests/model/test_zoo.py` runs such models, in a process that may end."""
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.runners.paddle import PaddleRunner

    files = save_with(paddle, lambda x: BREAKING[operator](paddle.nn.functional, x), tmp_path)
    with pytest.warns(
        UserWarning, match=rf"net\.json without oneDNN, which may fail with .*{operator}.*; onednn=False"
    ) as caught:
        PaddleRunner(*files).close()
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"without oneDNN"):  # Paddle's own default is to use it
        PaddleRunner.from_config(paddle.inference.Config(*map(str, files)), "Paddle CPU").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PaddleRunner(*files, onednn=False).close()


def test_an_ordinary_cnn_runs_with_onednn(paddle_model):
    from tutorial_utils.runners.paddle import breaks_onednn

    assert breaks_onednn(paddle_model[0]) == []


@pytest.mark.parametrize("function", ["sin", "floor"])
def test_onednn_leaves_what_another_operator_reads(function, tmp_path, monkeypatch):
    """An operator that works in place wrote over it."""
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.runners import paddle as room

    class Net(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.linear = paddle.nn.Linear(8, 8)

        def forward(self, x):
            y = self.linear(x)
            return getattr(paddle, function)(y), y.cos(), y * 2

    monkeypatch.setattr(room, "breaks_onednn", lambda path: [])
    paddle.jit.save(Net(), str(tmp_path / "net"), [paddle.static.InputSpec([None, 8], "float32", "x")])
    files = tmp_path / "net.json", tmp_path / "net.pdiparams"
    feeds = {"x": np.linspace(-2, 2, 24, dtype=np.float32).reshape(3, 8)}
    with room.PaddleRunner(*files) as runner, room.PaddleRunner(*files, onednn=False) as plain:
        for actual, expected in zip(runner.infer(feeds).values(), plain.infer(feeds).values(), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_without_onednn_where_it_cannot_load_the_model(tmp_path):
    """Six axes after a transposition: oneDNN counts four, as of images."""
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.runners.paddle import PaddleRunner

    def windows(x):
        return x.transpose([0, 2, 3, 1]).reshape([-1, 2, 3, 2, 3, 4]).transpose([0, 1, 3, 2, 4, 5]).reshape([-1, 9, 4])

    files = save_with(paddle, windows, tmp_path)
    with pytest.warns(UserWarning, match=r"without oneDNN, which fails: .*dimension is 4, axis's size is 6"):
        runner = PaddleRunner(*files)
    assert next(iter(runner.infer({"x": np.zeros((1, 3, 8, 8), np.float32)}).values())).shape == (4, 9, 4)


def test_inputs_that_paddle_refuses_while_it_runs(tmp_path):
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.runners.paddle import PaddleRunner

    paddle.jit.save(paddle.nn.Embedding(5, 2), str(tmp_path / "net"), [paddle.static.InputSpec([None], "int64", "ids")])
    with PaddleRunner(tmp_path / "net.json", tmp_path / "net.pdiparams") as runner:
        with pytest.raises(InputError, match=r"while the model runs: .*expected >= 0 and < 5, but got 7") as caught:
            runner.infer({"ids": np.array([7])})
        assert "\n" not in str(caught.value)


def test_branches_are_searched_for_what_breaks_onednn(tmp_path):
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.runners.paddle import breaks_onednn

    class Net(paddle.nn.Layer):
        def forward(self, x):
            if x.mean() > 0:
                x = paddle.nn.functional.leaky_relu(x, 0.2)
            return x

    paddle.jit.save(Net(), str(tmp_path / "net"), [paddle.static.InputSpec([None, 4], "float32", "x")])
    assert "leaky_relu" in breaks_onednn(tmp_path / "net.json")


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
def test_paddle_types_of_inputs_and_outputs_are_known_before_the_first_run(dtype, tmp_path):
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.runners.paddle import PaddleRunner

    with PaddleRunner(*save_with(paddle, lambda x: x.mean([1, 2, 3]) > 0, tmp_path, dtype)) as runner:
        assert runner.inputs == {"x": TensorSpec("x", np.dtype(dtype), (-1, 3, 8, 8))}
        assert [spec.dtype for spec in runner.outputs.values()] == [np.bool_]
        (output,) = runner.infer({"x": np.ones((2, 3, 8, 8), dtype)}).values()
    assert output.dtype == np.bool_


@pytest.mark.parametrize("which", ["program", "weights"])
@pytest.mark.parametrize("content", [None, b"", b"garbage " * 100], ids=["missing", "empty", "garbage"])
def test_paddle_damaged_files(which, content, paddle_model, tmp_path):
    from tutorial_utils.runners.paddle import PaddleRunner

    bad = tmp_path / ("bad.json" if which == "program" else "bad.pdiparams")
    if content is not None:
        bad.write_bytes(content)
    files = (bad, paddle_model[1]) if which == "program" else (paddle_model[0], bad)
    with pytest.raises(ModelFileError, match=r"can't load|missing or empty|is damaged") as caught:
        PaddleRunner(*files)
    assert "\n" not in str(caught.value)


def test_paddle_without_cuda(paddle_model):
    import paddle

    from tutorial_utils.runners.paddle import PaddleRunner

    if paddle.device.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    with pytest.raises(BackendUnavailableError, match=r"built without CUDA.*paddlepaddle-gpu"):
        PaddleRunner(*paddle_model, device="gpu")


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


def test_onnx_runtime_reads_types_from_the_model(models):
    with OnnxRuntimeRunner(models["fp16"], optimize=False, threads=1) as half:
        assert half.inputs["x"].dtype == np.float32
        assert half.infer({"x": images(2)})["y"].dtype == np.float32


def test_onnx_runtime_and_a_file_that_was_cut_short(damaged_models):
    with pytest.raises(ModelFileError, match=r"ONNX Runtime can't load truncated\.onnx") as caught:
        OnnxRuntimeRunner(damaged_models["truncated"])
    assert "\n" not in str(caught.value)
    assert ".." not in str(caught.value)


def odd_sizes(folder):
    """Halves an image and doubles it again: the sum with the image fails where its sides are odd."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["half"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["half", "", "scales"], ["whole"], "resize", mode="nearest"),
        helper.make_node("Add", ["whole", "x"], ["y"], "sum"),
    ]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    return save_nodes(folder / "m.onnx", nodes, {"x": (FLOAT, [1, 1, "h", "w"])}, weights=scales)


def rows_of_a_table(folder):
    node = helper.make_node("Gather", ["table", "ids"], ["y"], "rows")
    return save_nodes(
        folder / "m.onnx", [node], {"ids": (INT64, ["n"])}, weights={"table": np.eye(4, dtype=np.float32)}
    )


def test_onnx_runtime_says_which_node_failed(tmp_path, capfd):
    with OnnxRuntimeRunner(odd_sizes(tmp_path)) as runner:
        assert runner.infer({"x": np.ones((1, 1, 6, 6), np.float32)})["y"].shape == (1, 1, 6, 6)
        with pytest.raises(
            InputError, match=r"on x \[1, 1, 7, 7\]: .*Add node.*broadcast.*6 by 7\. Remedy: Give sizes"
        ) as caught:
            runner.infer({"x": np.ones((1, 1, 7, 7), np.float32)})
    assert "onnxruntime/core" not in str(caught.value), "the place in the source of ONNX Runtime helps nobody"
    with OnnxRuntimeRunner(rows_of_a_table(tmp_path)) as runner:
        assert runner.infer({"ids": np.zeros(0, np.int64)})["y"].shape == (0, 4)
        with pytest.raises(InputError, match=r"Gather node.*idx=9 must be within .*Remedy: Give ids below"):
            runner.infer({"ids": np.array([9])})
    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_and_what_is_no_tensor(tmp_path):
    path = sequence_of_two(tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"y is no tensor, but seq\(tensor\(float\)\).*open_model\(path\)\.run"):
        OnnxRuntimeRunner(path)
    (pair,) = onnx_session.open_model(path).run(None, {"x": np.ones((2, 8), np.float32)})
    assert len(pair) == 2, "what the remedy says works"


def test_onnx_runtime_and_texts(tmp_path):
    node = helper.make_node("Identity", ["x"], ["y"])
    path = save_nodes(tmp_path / "m.onnx", [node], {"x": (STRING, ["n"])}, output_type=STRING)
    with OnnxRuntimeRunner(path) as runner:
        assert runner.infer({"x": np.array(["a", "b"], dtype=object)})["y"].tolist() == ["a", "b"]
        with pytest.raises(InputError, match=r"np\.asarray\(values, dtype=object\)"):
            runner.infer({"x": np.array(["a", "b"])})


def test_onnx_runtime_and_an_input_without_a_shape(tmp_path):
    """ONNX Runtime shows its shape as that of a scalar."""
    node = helper.make_node("Add", ["x", "scalar"], ["y"])
    path = save_nodes(tmp_path / "m.onnx", [node], {"x": (FLOAT, None), "scalar": (FLOAT, [])})
    with OnnxRuntimeRunner(path) as runner:
        feeds = {"x": np.ones((2, 3), np.float32), "scalar": np.array(1, np.float32)}
        assert runner.infer(feeds)["y"].shape == (2, 3)
        with pytest.raises(InputError, match=r"scalar has the shape \(2, 3\), but the model takes \(\)"):
            runner.infer({**feeds, "scalar": feeds["x"]})


@pytest.mark.parametrize(("operator", "domain"), [("MyOwn", "my"), ("Bernoulli", "")])
def test_onnx_runtime_has_no_such_operator(operator, domain, tmp_path):
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    model = of_nodes([node], {"x": (FLOAT, [2])}, opset=22)
    model.opset_import.append(helper.make_opsetid("my", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOperatorError, match=r"can't load m\.onnx: .*Remedy: Replace the operator"):
        OnnxRuntimeRunner(tmp_path / "m.onnx")


# --- TensorRT, where it can't run (where it can: test_tensorrt_runner) -----------------------------------------------


@pytest.fixture
def fresh_import(monkeypatch):
    """Import the TensorRT runner anew, and forget it afterwards: what it found of PyCUDA is not what there is."""
    pytest.importorskip("tensorrt_rtx")
    name = "tutorial_utils.runners.tensorrt"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda: importlib.import_module(name)
    sys.modules.pop(name, None)


def test_tensorrt_without_pycuda(fresh_import, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendUnavailableError, match=r"PyCUDA can't be imported.*doctor"):
        fresh_import()


def test_tensorrt_without_gpu(fresh_import, monkeypatch):
    """PyCUDA is there and finds no GPU."""
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")

    class CudaError(Exception):
        pass

    def init():
        raise CudaError("cuInit failed: no CUDA-capable device is detected")

    driver.Error, driver.init, package.driver = CudaError, init, driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    runner = fresh_import()
    with pytest.raises(BackendUnavailableError, match="no CUDA-capable device"):
        runner.TensorRTRunner(b"plan")
