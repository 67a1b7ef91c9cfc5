"""Export of legacy programs. Those of Paddle 2.6.2 and of real packages are in benchmarks/legacy_models.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import legacy_models
import numpy as np
import onnx
import pytest
from small_models import save_paddle

from tutorial_utils import engine
from tutorial_utils.base import child_process, onnx_session, paths
from tutorial_utils.base.errors import BackendUnavailableError, ExportError, ModelFileError, UnsupportedOperatorError
from tutorial_utils.engine import BuildOptions, Profile
from tutorial_utils.model import export
from tutorial_utils.model.exporting import legacy_export

NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}


@pytest.fixture(scope="module")
def converter():
    try:
        return legacy_export.converter()
    except BackendUnavailableError as error:
        pytest.skip(f"no package index within reach: {error.cause}")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Give program and weights of a legacy model by its name."""
    pytest.importorskip("paddle")
    folder = tmp_path_factory.mktemp("legacy")
    child_process.run(legacy_models.save, folder)
    return lambda name: (folder / name / "inference.pdmodel", folder / name / "inference.pdiparams")


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_legacy_program_is_exported_and_equals_paddle(converter, saved, tmp_path):
    """Its files have the names of Paddle 1; those of other tests are called as Paddle 2 calls them."""
    files = [tmp_path / "__model__", tmp_path / "__params__"]
    for path, copy in zip(saved("ordinary"), files, strict=True):
        copy.write_bytes(path.read_bytes())
    model = onnx.load(export.to_onnx(*files, tmp_path / "net.onnx"))  # compares with Paddle
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert sorted(os.listdir(tmp_path)) == ["__model__", "__params__", "net.onnx"]


def test_a_branch_that_paddle_2_wrote_stays_one(converter, tmp_path):
    """The file is ``conv(x) if x.mean() > 0 else conv(x) * 2``. Paddle 3.3 can't write a branch in this form."""
    files = [Path(__file__).parent / "data" / f"branch_paddle_2.6.2.{ending}" for ending in ("pdmodel", "pdiparams")]
    path = export.to_onnx(*files, tmp_path / "net.onnx")
    session = onnx_session.new_session(path)
    x = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    above, below = (session.run(None, {"x": shift + x})[0] for shift in np.float32([1, -2]))
    assert not np.allclose(above, below)
    assert "If" in operators(path)


def test_multiclass_nms_becomes_non_max_suppression_for_one_image(converter, saved, tmp_path):
    with pytest.warns(UserWarning, match=r"inference\.pdmodel ends in non-maximum suppression.*batch is fixed to 1"):
        path = export.to_onnx(*saved("multiclass_nms"), tmp_path / "net.onnx")
    assert "NonMaxSuppression" in operators(path)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_regions_are_sampled_as_often_as_in_paddle(converter, saved, tmp_path):
    """Paddle's -1 (as often as a region needs) is an error in ONNX Runtime."""
    samples = {"x": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    assert "RoiAlign" in operators(export.to_onnx(*saved("regions"), tmp_path / "net.onnx", samples=samples))


def test_an_output_that_noise_leaves_near_zero_is_compared_on_stronger_inputs(tmp_path):
    """As that of PP-OCR's text detector: ONNX Runtime's sigmoid is exact to 1e-7, which is much of 1e-6."""
    paddle = pytest.importorskip("paddle")

    class Detector(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = paddle.nn.Conv2D(3, 1, 3, bias_attr=paddle.nn.initializer.Constant(-16.0))

        def forward(self, x):
            return paddle.nn.functional.sigmoid(self.conv(x))

    paddle.seed(0)
    export.to_onnx(*save_paddle(Detector(), [None, 3, 64, 64], tmp_path / "net"), tmp_path / "net.onnx")


def test_an_operator_that_has_no_conversion_is_named(converter, saved, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=r"can't convert matrix_nms of inference\.pdmodel"):
        export.to_onnx(*saved("matrix_nms"), tmp_path / "net.onnx")
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def quantized(converter, saved, tmp_path_factory):
    return export.to_onnx(*saved("quantized"), tmp_path_factory.mktemp("quantized") / "net.onnx")


def test_a_quantized_program_has_the_form_that_tensorrt_takes(quantized):
    model = onnx.load(quantized)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any() for node in pairs)
    weights = [constants[node.input[0]] for node in pairs if node.input[0] in constants]
    scales = [constants[node.input[1]] for node in pairs if node.input[0] in constants]
    assert [(weight.dtype, scale.shape) for weight, scale in zip(weights, scales, strict=True)] == [
        (np.int8, (16,)), (np.int8, (16,)), (np.int8, (10,)),
    ]  # fmt: skip
    readers = {name: node.op_type for node in model.graph.node for name in node.input}
    assert {readers[node.output[0]] for node in pairs if node.op_type == "DequantizeLinear"} == {"Conv", "MatMul"}

    profile = Profile.batch("x", (3, 32, 32), opt=2, max=4)
    report = engine.build(quantized, BuildOptions(profiles=[profile]), use_cache=False, progress=False).report
    assert report.kernel_dtypes["int8"] >= 3


def test_a_quantized_program_rounds_as_paddle_does(quantized, saved):
    images = np.random.default_rng(1).standard_normal((8, 3, 32, 32)).astype(np.float32)
    ours = onnx_session.new_session(quantized).run(None, {"x": images})[0]
    theirs = child_process.run(run_paddle, saved("quantized"), images)
    assert np.median(np.abs(ours - theirs)) < 1e-6 * np.abs(theirs).max()  # single values round the other way


def run_paddle(files, images):
    import paddle

    config = paddle.inference.Config(*map(str, files))
    config.disable_mkldnn()
    predictor = paddle.inference.create_predictor(config)
    return predictor.run([paddle.to_tensor(images)])[0].numpy()


def test_weights_in_a_file_each_can_be_joined_as_the_error_says(converter, saved, tmp_path):
    """The tensors of a joined file stand in the order of their names, each as in a file of its own."""
    program, weights = saved("ordinary")
    content, folder = weights.read_bytes(), tmp_path / "model"
    folder.mkdir()
    first = len(content) - 3 * 4 * 9 * 4 - 26  # bias, then the kernel: its numbers, and header and description
    for name, part in {"conv2d_0.b_0": content[:first], "conv2d_0.w_0": content[first:]}.items():
        (folder / name).write_bytes(part)
    (folder / "__model__").write_bytes(program.read_bytes())
    with pytest.raises(ModelFileError, match=r"model holds a file for each tensor") as raised:
        export.to_onnx(folder / "__model__", folder, tmp_path / "net.onnx")
    command = raised.value.remedy.removeprefix("Join them in the order of their names: ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "weights").read_bytes() == content


def test_a_legacy_program_without_weights_is_exported(converter, saved, tmp_path):
    program, weights = saved("weightless")
    assert not weights.exists()
    export.to_onnx(program, weights, tmp_path / "net.onnx")


# --- files and options that can't work -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("which", [0, 1], ids=["program", "weights"])
def test_a_cut_file_is_called_damaged(converter, saved, tmp_path, which, share):
    files = [tmp_path / "cut.pdmodel", tmp_path / "cut.pdiparams"]
    for i, (path, whole) in enumerate(zip(files, saved("ordinary"), strict=True)):
        content = whole.read_bytes()
        path.write_bytes(content[: int(share * len(content))] if i == which else content)
    with pytest.raises(ModelFileError, match="cut"):
        export.to_onnx(*files, tmp_path / "net.onnx")


def test_the_reason_for_a_refused_opset_is_quoted(converter, saved, tmp_path):
    with pytest.raises(ExportError, match=r"1\.3\.1 failed on inference\.pdmodel.*must be between 7 and 21"):
        export.to_onnx(*saved("ordinary"), tmp_path / "net.onnx", opset=25)


# --- the folder with paddle2onnx -------------------------------------------------------------------------------------


def test_the_converter_is_installed_once(converter, monkeypatch):
    for name, value in NO_INDEX.items():
        monkeypatch.setenv(name, value)
    assert legacy_export.converter() == converter


@pytest.mark.parametrize("size", [None, 1000], ids=["gone", "cut short"])
def test_a_damaged_converter_is_installed_again(converter, own_cache, monkeypatch, size):
    shutil.copytree(converter, own_cache / "environments" / converter.name)
    (extension,) = (own_cache / "environments").rglob("paddle2onnx_cpp2py_export*.so")
    if size is None:
        extension.unlink()
    else:
        os.truncate(extension, size)
    stand_in(monkeypatch, own_cache, f'for last; do :; done; cp -r "{converter}" "$last"')
    with pytest.warns(UserWarning, match="is damaged and is installed again"):
        assert legacy_export.converter().parent.parent == own_cache
    assert extension.stat().st_size > 1000
    legacy_export.converter()


def test_without_an_index_pip_is_quoted_and_nothing_is_left(own_cache, monkeypatch):
    for name, value in NO_INDEX.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BackendUnavailableError) as raised:
        legacy_export.converter()
    assert "Connection refused" in raised.value.cause
    assert "No matching distribution found for paddle2onnx==1.3.1" in raised.value.cause
    assert f'--target "{own_cache}' in raised.value.remedy
    assert [path.suffix for path in (own_cache / "environments").iterdir()] in ([], [".lock"])


def test_a_python_without_pip_is_named(own_cache, monkeypatch, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(BackendUnavailableError, match="No module named pip"):
        legacy_export.converter()


def stand_in(monkeypatch, folder, script):
    """Put a shell script in the place of ``python -m pip``."""
    (folder / "python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))


def test_a_killed_pip_leaves_nothing_that_counts(own_cache, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, 'for last; do :; done; mkdir -p "$last/paddle2onnx"; kill -9 $$')
    with pytest.raises(BackendUnavailableError, match="could not install it: it was ended"):
        legacy_export.converter()
    assert not [path for path in (own_cache / "environments").iterdir() if path.is_dir()]


def test_a_full_disk_is_named(own_cache, monkeypatch, tmp_path):
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    stand_in(monkeypatch, tmp_path, f"echo '{said}'; exit 1")
    with pytest.raises(BackendUnavailableError, match="No space left on device"):
        legacy_export.converter()
