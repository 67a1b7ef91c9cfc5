"""Small models, made once for all tests. Only `paddle_model` needs Paddle."""

import os
import sys
from pathlib import Path

import pytest
from small_models import images, residual_model, save_paddle

from tutorial_utils.base.paths import CACHE_VARIABLE
from tutorial_utils.model import onnx_file, precisions


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Keep the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """The residual model in each precision, by its name."""
    folder = tmp_path_factory.mktemp("models")
    paths = {precision: folder / f"{precision}.onnx" for precision in precisions.PRECISIONS}
    onnx_file.save(residual_model(), paths["fp32"])
    precisions.write(paths, images(32))
    return paths


@pytest.fixture(scope="session")
def fp32_model(models) -> Path:
    return models["fp32"]


@pytest.fixture
def target(tmp_path):
    """A path for a model that is not to appear: afterwards, its folder must be empty."""
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder / "model.onnx"
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="session")
def damaged_models(tmp_path_factory, fp32_model) -> dict[str, Path]:
    """Files that are no ONNX model, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("damaged")
    whole = fp32_model.read_bytes()
    contents = {"empty": b"", "truncated": whole[: len(whole) // 2], "garbage": b"not a model " * 50}
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return {name: folder / f"{name}.onnx" for name in (*contents, "missing")}


@pytest.fixture(scope="session")
def paddle_model(tmp_path_factory) -> tuple[Path, Path]:
    """Program and weights of a small residual net that `paddle.jit.save` wrote, with a dynamic batch."""
    paddle = pytest.importorskip("paddle")

    class Net(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv0 = paddle.nn.Conv2D(3, 16, 3, padding=1)
            self.conv1 = paddle.nn.Conv2D(16, 16, 3, padding=1)
            self.norm = paddle.nn.BatchNorm2D(16)
            self.pool = paddle.nn.AdaptiveAvgPool2D(1)
            self.fc = paddle.nn.Linear(16, 10)

        def forward(self, x):
            first = paddle.nn.functional.relu(self.conv0(x))
            second = paddle.nn.functional.relu(self.norm(self.conv1(first)) + first)
            return self.fc(self.pool(second).flatten(1))

    paddle.seed(0)
    return save_paddle(Net(), [None, 3, 32, 32], tmp_path_factory.mktemp("paddle") / "net")


@pytest.fixture
def fake_program(tmp_path, monkeypatch):
    """Put programs on the PATH that stand in for NVIDIA's: each runs some Python, with `sys` and `Path`."""
    folder = tmp_path / "programs"

    def make(name, body):
        folder.mkdir(exist_ok=True)
        program = folder / name
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n{body}")
        program.chmod(0o755)
        if str(folder) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return program

    return make
