"""The models of the fault laboratory: each has its fault, whatever the seed, and nothing else is wrong with it."""

import numpy as np
import onnx
import pictures
import pytest

from tutorial_utils.debug import diagnosis, polygraphy_cli, tensor_errors
from tutorial_utils.lessons.lesson04 import figures, planted, repaired
from tutorial_utils.measure import quality
from tutorial_utils.model import half_precision, onnx_file, quantization

HALF = np.finfo(np.float16).max
LARGEST_K = 3840  # that TensorRT's TopK takes
each_seed = pytest.mark.parametrize("seed", range(6))


def served(faulty: planted.Faulty, folder):
    """Write the model and return its path, every tensor in FP32, and every tensor of its FP16 file."""
    path = onnx_file.save(faulty.model, folder / "model.onnx")
    half = half_precision.to_fp16(path, folder / "half.onnx")
    return path, tensor_errors.all_outputs(path, faulty.feeds), tensor_errors.all_outputs(half, faulty.feeds)


def overflowing(exact):
    return [name for name, values in exact.items() if HALF < np.abs(values[np.isfinite(values)]).max() < 1e8]


@each_seed
@pytest.mark.parametrize("minus", [-np.inf, -1e9])
def test_logits_of_an_attention_overflow_and_nothing_else(seed, minus, tmp_path):
    faulty = planted.attention(seed, minus=minus)
    _, exact, half = served(faulty, tmp_path)
    assert overflowing(exact) == ["logits"] == [faulty.culprit]
    assert np.isnan(half["scores"]).mean() > 0.5
    assert np.abs(exact["logits"]).max() * planted.WIDTH**-0.5 < HALF  # what the lesson says of dividing the queries
    assert len(np.unique(exact["scores"].argmax(1))) > 5  # the answers say something


@each_seed
@pytest.mark.parametrize("minus", [-np.inf, -1e9])
def test_attention_with_small_logits_is_sound_in_fp16(seed, minus, tmp_path):
    faulty = planted.attention(seed, large=False, minus=minus)
    _, exact, half = served(faulty, tmp_path)
    assert faulty.culprit is None
    assert quality.relative_error(half["scores"], exact["scores"]) < 0.005


@each_seed
def test_only_the_square_of_a_layernorm_overflows(seed, tmp_path):
    faulty = planted.layernorm(seed)
    _, exact, half = served(faulty, tmp_path)
    assert overflowing(exact) == ["square"] == [faulty.culprit]
    assert not half["scores"].any()  # over an infinite deviation, all is 0
    assert len(np.unique(exact["scores"].argmax(1))) > 2


@each_seed
@pytest.mark.parametrize(("network", "most"), [("attention", 2), ("layernorm", 2), ("block", 4)])
def test_as_few_nodes_in_fp32_as_the_exercise_allows_are_enough_and_debug_finds_them(network, most, seed, tmp_path):
    faulty = getattr(planted, network)(seed)
    path = onnx_file.save(faulty.model, tmp_path / "model.onnx")
    np.savez(tmp_path / "feeds.npz", **faulty.feeds)
    found = diagnosis.diagnose(path, "fp16", tmp_path / "feeds.npz", 0, tmp_path / "mended.onnx")
    assert found.verdict == "mended"
    assert faulty.culprit in [fault.tensor for fault in found.faults]
    measured = repaired.measure(tmp_path / "mended.onnx", path, faulty.feeds)
    assert measured.finite
    assert measured.kept >= 0.98
    assert measured.error < 0.005
    assert sorted(measured.in_fp32) == sorted(found.kept)
    assert len(measured.in_fp32) == most


@each_seed
def test_every_score_underflows(seed, tmp_path):
    _, exact, half = served(planted.underflow(seed), tmp_path)
    assert 1e-10 < exact["joint"].max() < 1e-8
    assert not half["joint"].any()
    assert not half["scores"].any()
    assert np.abs(exact["scores"]).max() > 0.5


@each_seed
@pytest.mark.parametrize("fault", ["mean", "axis", "fold", None])
@pytest.mark.parametrize("in_fp16", [False, True])
def test_second_export_is_wrong_from_its_culprit_on(fault, in_fp16, seed, tmp_path):
    old, new, feeds, culprit = planted.exports(seed, fault)
    exact = tensor_errors.all_outputs(onnx_file.save(old, tmp_path / "old.onnx"), feeds)
    path = onnx_file.save(new, tmp_path / "new.onnx")
    found = tensor_errors.all_outputs(half_precision.to_fp16(path, path) if in_fp16 else path, feeds)
    table = tensor_errors.compare({name: one for name, one in exact.items() if name in found}, found)
    assert tensor_errors.first_bad(table, 0.01) == culprit
    assert tensor_errors.first_bad(table, 0.03) == culprit  # no tolerance between the two would tell otherwise
    before = table.loc[: culprit or "scores"]
    assert (before["rel_l2"].iloc[:-1] < 0.002).all()
    assert ("conv0" in exact, "conv0" in found) == (True, False)


def test_fault_of_an_export_is_drawn_from_the_seed():
    drawn = {planted.exports(seed)[3] for seed in range(60)}
    assert drawn == {None, "centred", "weights", "norm1", "norm2", "norm3"}


@each_seed
def test_wrong_calibration_loses_what_a_right_one_keeps(seed, tmp_path):
    model, images, pixels = planted.convolutions(seed)
    path = onnx_file.save(model, tmp_path / "fp32.onnx")
    exact = tensor_errors.all_outputs(path, {"x": images})["scores"]
    signal = {}
    for name, shown in {"wrong": pixels, "right": images}.items():
        int8 = quantization.to_int8(path, tmp_path / f"{name}.onnx", shown)
        signal[name] = quality.sqnr_db(tensor_errors.all_outputs(int8, {"x": images})["scores"], exact)
    assert signal["wrong"] < 12
    assert signal["right"] > 30


def test_debug_reduce_ends_at_the_node_that_tensorrt_refuses(tmp_path):
    """The lesson does the same with seed 1."""
    pytest.importorskip("tensorrt_rtx")
    onnx.save(planted.detector(2), tmp_path / "model.onnx")
    reduce = (
        "polygraphy debug reduce model.onnx -o reduced.onnx --mode bisect --fail-regex 'Error Code' "
        "--check polygraphy convert polygraphy_debug.onnx --compute-capabilities 8.9 -o part.engine"
    )
    result = polygraphy_cli.run(reduce, tmp_path)
    assert result.returncode == 0, result.text
    assert [node.op_type for node in onnx.load(tmp_path / "reduced.onnx").graph.node] == ["TopK"]
    assert f"K exceeds the maximum value allowed ({LARGEST_K})" in result.text


def test_same_seed_plants_the_same():
    one, again = (planted.block(3) for _ in range(2))
    assert one.model == again.model
    assert all(np.array_equal(one.feeds[name], again.feeds[name]) for name in one.feeds)
    assert one.model != planted.block(4).model


# --- what a repair is worth ------------------------------------------------------------------------------------------


def test_measured_is_what_the_file_is(tmp_path):
    faulty = planted.layernorm(0)
    path = onnx_file.save(faulty.model, tmp_path / "model.onnx")
    names = [node.name for node in faulty.model.graph.node]
    itself = repaired.measure(path, path, faulty.feeds)
    assert (itself.finite, itself.kept, itself.error) == (True, 1.0, 0.0)
    assert list(itself.in_fp32) == names
    assert (itself.in_fp16, itself.in_bf16) == (0, 0)
    half = repaired.measure(half_precision.to_fp16(path, tmp_path / "half.onnx"), path, faulty.feeds)
    assert (half.finite, half.error, half.in_fp32, half.in_fp16) == (True, 1.0, (), len(names))
    bf16 = repaired.measure(half_precision.to_bf16(path, tmp_path / "bf16.onnx"), path, faulty.feeds)
    assert (bf16.finite, bf16.in_bf16, bf16.in_fp32) == (True, len(names), ())
    assert bf16.error < 0.05


def test_no_answer_counts_as_kept_that_is_not_finite(tmp_path):
    faulty = planted.attention(0)
    path = onnx_file.save(faulty.model, tmp_path / "model.onnx")
    half = repaired.measure(half_precision.to_fp16(path, tmp_path / "half.onnx"), path, faulty.feeds)
    lost = np.isnan(tensor_errors.all_outputs(tmp_path / "half.onnx", faulty.feeds)["scores"]).any(1).mean()
    assert (half.finite, half.kept, half.error) == (False, pytest.approx(1 - lost), np.inf)
    assert str(half) == f"not finite, {1 - lost:.0%} of the answers kept, 0 nodes in FP32"


# --- the figure ------------------------------------------------------------------------------------------------------


def test_figure_marks_what_overflows_and_leaves_the_mask_out():
    values = {
        "small": np.float32([0.5, -2]),
        "mask": np.float32([0, -np.inf]),
        "large": np.float32([-70000, 1]),
        "both": np.float32([1234, -1e9]),
    }
    picture = figures.on_their_way(values)
    assert [" ".join(line.split()) for line in picture.text.splitlines()] == [
        "small 2", "mask 0 and -inf for padding", "large 70,000 overflows", "both 1,234 and -1e9 for padding",
    ]  # fmt: skip
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes) == [(2, 0), (70000, 2), (1234, 3)]  # 0 has no place on a logarithmic axis
    assert [line.get_marker() for line in axes.lines] == ["o", "X", "o", "None"]  # the last is that of FP16's end
