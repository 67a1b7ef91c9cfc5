"""The cache of exported networks: what is exported anew, and what is read. Neither trains nor needs Paddle."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutorial_utils import model
from tutorial_utils.base import paths
from tutorial_utils.base.errors import CacheError
from tutorial_utils.model import export, half_precision, networks, quantization


@pytest.fixture
def exported(monkeypatch, tmp_path) -> list[str]:
    """Precisions in the order in which they were exported; the files hold their names."""
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    saved = SimpleNamespace(model_path=tmp_path / "model.json", params_path=tmp_path / "model.pdiparams")
    saved.model_path.write_text("a program")
    saved.params_path.write_text("its weights")
    datasets = {"quick": "digits", "transformer": "digit_sentences"}
    trained = SimpleNamespace(load_or_train=lambda *_: SimpleNamespace(saved=saved), DATASETS=datasets)
    monkeypatch.setattr(model, "trained", trained, raising=False)
    done = []

    def write(target: Path) -> None:
        done.append(target.stem.rpartition("-")[2])
        target.write_text(target.name)

    monkeypatch.setattr(export, "to_onnx", lambda model, params, target: write(target))
    monkeypatch.setattr(half_precision, "to_fp16", lambda source, target: write(target))
    monkeypatch.setattr(half_precision, "to_bf16", lambda source, target: write(target))
    monkeypatch.setattr(quantization, "to_fp8", lambda source, int8, target: write(target))
    monkeypatch.setattr(quantization, "to_int8", lambda source, target, images: write(target))
    return done


def test_files_are_made_once(exported):
    first = networks.quick()
    assert networks.quick() == first
    assert exported == [*networks.RUN_EVERYWHERE]


def test_networks_are_told_apart_by_file_name(exported):
    names = ["transformer-fp16.onnx", "quick-fp32.onnx", "transformer-int8.onnx"]
    files = networks.files(names)
    assert [path.name for path in files.values()] == [*files] == names
    assert exported.count("fp32") == 2
    assert networks.transformer(["fp16"])["fp16"] == files["transformer-fp16.onnx"]


def test_what_a_precision_is_made_from_is_made_too(exported):
    networks.quick()
    assert [*networks.quick(["fp8", "bf16"])] == ["fp8", "bf16"]
    assert exported == [*networks.RUN_EVERYWHERE, "bf16", "fp8"]


@pytest.mark.parametrize(
    "package", ["paddlepaddle", "paddlepaddle-gpu", "paddle2onnx", "onnx", "onnxruntime", "onnxruntime-gpu",
                "polygraphy", "onnx-graphsurgeon"]
)  # fmt: skip
def test_another_version_of_a_library_exports_anew(package, exported, monkeypatch):
    first = networks.quick()
    installed = networks.installed_version
    monkeypatch.setattr(networks, "installed_version", lambda name: "999.0" if name == package else installed(name))
    second = networks.quick()
    assert exported == [*networks.RUN_EVERYWHERE] * 2
    assert not {*first.values()} & {*second.values()}


def test_versions_are_those_of_the_installed_packages():
    assert networks.installed_version("onnx") == pytest.importorskip("onnx").__version__
    assert networks.installed_version("no-such-package") is None


def test_another_recipe_exports_anew(exported, monkeypatch):
    networks.quick()
    monkeypatch.setattr(networks, "EXPORT_RECIPE", networks.EXPORT_RECIPE + 1)
    networks.quick()
    assert exported == [*networks.RUN_EVERYWHERE] * 2


def test_another_network_exports_anew(exported, tmp_path):
    networks.quick()
    (tmp_path / "model.pdiparams").write_text("other weights")
    networks.quick()
    assert exported == [*networks.RUN_EVERYWHERE] * 2


# --- damage ----------------------------------------------------------------------------------------------------------


def altered(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_damaged_file_is_made_again_with_a_warning(exported, precision):
    first = networks.quick()
    before = {path: path.read_bytes() for path in first.values()}
    altered(first[precision])
    with pytest.warns(UserWarning, match=f"quick-{precision}.onnx is damaged and is made again"):
        assert networks.quick() == first
    assert {path: path.read_bytes() for path in first.values()} == before
    assert exported == [*networks.RUN_EVERYWHERE, precision]
    networks.quick()
    assert len(exported) == 4


@pytest.mark.parametrize("name", ["model.json", "model.pdiparams"])
def test_damaged_random_weights_are_drawn_again(exported, monkeypatch, name):
    classifier = pytest.importorskip("tutorial_utils.model.classifier")
    saved = []

    def save(_, prefix, shape):
        saved.append(shape)
        prefix.with_suffix(".json").write_text("a program")
        prefix.with_suffix(".pdiparams").write_text("its weights")

    monkeypatch.setattr(classifier, "save", save)
    monkeypatch.setattr(classifier, "build", lambda name: None)
    files = networks.resnet50()
    (path,) = (paths.cache_root() / "models").rglob(name)
    altered(path)
    with pytest.warns(UserWarning, match=f"{name} is damaged and is made again"):
        assert networks.resnet50() == files
    assert saved == [(None, 3, 224, 224)] * 2


def test_a_full_disk_is_said_in_one_sentence(exported, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")

    monkeypatch.setattr(export, "to_onnx", full)
    with pytest.raises(CacheError, match=r"The cache folder .* can't be written to: No space left .* \(model.onnx\)"):
        networks.quick()
