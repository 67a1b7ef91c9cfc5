"""The transformer on the whole road: trained, saved, exported, in each precision, run by every runner, and built."""

import numpy as np
import onnx
import pytest
from small_models import answers

from tutorial_utils import engine
from tutorial_utils.engine import BuildOptions, Profile
from tutorial_utils.measure.deployment import predict
from tutorial_utils.model import classifier, data, export, precisions, trained, transformer
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner
from tutorial_utils.runners.paddle import PaddleRunner

EPOCHS = 1  # of the 8 of its recipe, with half of the sentences: enough to see it learn
BATCH = 60


@pytest.fixture(scope="module")
def network():
    whole = data.load("digit_sentences", "train")
    half = data.Dataset(whole.name, whole.inputs[::2], whole.labels[::2], whole.class_names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name, split: half)
        return trained.load_or_train("transformer", epochs=EPOCHS)


@pytest.fixture(scope="module")
def test_set():
    return data.load("digit_sentences", "test")


@pytest.fixture(scope="module")
def logits(network, test_set):
    """What the dynamic graph answers to the test set."""
    return answers(network.model, test_set.inputs)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    files = {name: folder / precisions.PRECISIONS[name].file_name("transformer") for name in precisions.DEPLOYED}
    export.to_onnx(network.saved.model_path, network.saved.params_path, files["fp32"])
    precisions.write(files, data.calibration_images(data.load("digit_sentences", "train"), 100))
    return files


def options() -> BuildOptions:
    shapes = (1, 1), (8, data.LONGEST_SENTENCE), (BATCH, data.LONGEST_SENTENCE)
    return BuildOptions(profiles=[Profile.of(ids=shapes)])


def test_it_learns(network, test_set, logits):
    assert (logits.argmax(1) == test_set.labels).mean() > 0.3  # guessing: 0.1


def test_padding_changes_nothing(network, test_set, logits):
    for ids, wanted in zip(test_set.inputs[:20], logits[:20], strict=True):
        (alone,) = answers(network.model, ids[np.newaxis, ids != data.PADDING])
        assert np.allclose(alone, wanted, atol=1e-5)


def test_static_model_answers_as_the_dynamic_graph(network, test_set, logits):
    for onednn in (True, False):
        with PaddleRunner(network.saved.model_path, network.saved.params_path, onednn=onednn) as runner:
            assert np.allclose(predict(runner, test_set.inputs, BATCH), logits, atol=1e-4)


def test_export_answers_as_the_dynamic_graph(files, test_set, logits):
    with OnnxRuntimeRunner(files["fp32"]) as runner:
        assert np.allclose(predict(runner, test_set.inputs, BATCH), logits, atol=1e-4)


def test_export_keeps_both_dynamic_dimensions_and_epsilon(files):
    model = onnx.load(files["fp32"])
    (ids,) = model.graph.input
    batch, length = ids.type.tensor_type.shape.dim
    assert (ids.name, ids.type.tensor_type.elem_type) == ("ids", onnx.TensorProto.INT64)
    assert batch.dim_param
    assert length.dim_param
    assert batch.dim_param != length.dim_param
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    epsilons = [onnx.helper.get_node_attr_value(node, "epsilon") for node in norms]
    assert np.allclose(epsilons, [1e-5] * 5)


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 0.01), ("int8", 0.2)])
def test_precision_answers_nearly_as_fp32(precision, bound, files, test_set, logits):
    with OnnxRuntimeRunner(files[precision]) as runner:
        found = predict(runner, test_set.inputs, BATCH)
    assert np.linalg.norm(found - logits) < bound * np.linalg.norm(logits)


@pytest.mark.parametrize("precision", precisions.DEPLOYED)
def test_an_engine_is_built(precision, files):
    assert engine.build(files[precision], options(), use_cache=False).report.kernels


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_tensorrt_answers_nearly_as_paddle(precision, files, test_set, logits):
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    with TensorRTRunner(engine.build(files[precision], options())) as runner:
        found = predict(runner, test_set.inputs, BATCH)
        short = runner.infer({"ids": test_set.inputs[:3, :10]})
    bound = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.1}[precision]  # TensorRT computes FP32 with TF32
    assert np.linalg.norm(found - logits) < bound * np.linalg.norm(logits)
    assert np.isfinite(next(iter(short.values()))).all()


def test_it_can_be_of_another_size(tmp_path):
    network = transformer.TransformerEncoder(num_classes=3, width=16, heads=2, layers=1)
    saved = classifier.save(network, tmp_path / "small", **transformer.INPUT)
    with PaddleRunner(saved.model_path, saved.params_path) as runner:
        (found,) = runner.infer({"ids": np.array([[data.CLS, 5, 9, data.PADDING]])}).values()
    assert found.shape == (1, 3)
