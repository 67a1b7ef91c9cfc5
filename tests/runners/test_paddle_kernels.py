"""For which GPUs Paddle holds kernels, and that what would run without them is refused."""

import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import Capability, Gpu

paddle = pytest.importorskip("paddle")
from tutorial_utils.runners import paddle_kernels  # noqa: E402 - it needs Paddle

FOUND = Capability("NVIDIA GPU", True, "", "")


def set_up(monkeypatch, capability, architectures):
    gpu = Gpu("A GPU", capability, "13.0", 2**30)
    monkeypatch.setattr(paddle_kernels, "find_gpu", lambda: (gpu, FOUND))
    monkeypatch.setattr(paddle.version, "cuda_archs", lambda: architectures, raising=False)


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ("9.0", [61, 70, 75, 80, 86], False),
        ("8.9", [61, 70, 75, 80, 86], True),  # kernels for 8.6 run on 8.9
        ("8.0", [86], False),  # but not those for a later one of the same generation
        ("9.0", ["80", "90"], True),
        ("12.0", [75, 80, 90], False),
        ("9.0", [], True),  # unknown: nothing is refused
    ],
)
def test_kernels_of_a_generation_run_on_its_later_gpus(capability, architectures, runs, monkeypatch):
    set_up(monkeypatch, capability, architectures)
    assert (paddle_kernels.missing() is None) is runs


def test_paddle_that_does_not_tell(monkeypatch):
    """The wheel of the article's stack: what cuobjdump showed."""
    set_up(monkeypatch, "9.0", [])
    monkeypatch.setattr(paddle.version, "full_version", "2.6.2")
    monkeypatch.setattr(paddle.version, "cuda", lambda: "11.8")
    assert paddle_kernels.compiled_for() == (61, 70, 75, 80, 86)
    assert (
        "kernels for compute capability 6.1, 7.0, 7.5, 8.0, 8.6, and none for 9.0 (A GPU)" in paddle_kernels.missing()
    )


def test_without_a_gpu_nothing_is_missing(monkeypatch):
    monkeypatch.setattr(paddle_kernels, "find_gpu", lambda: (None, FOUND))
    assert paddle_kernels.missing() is None


def test_a_gpu_without_kernels_is_refused_before_paddle_runs(monkeypatch, paddle_model):
    from tutorial_utils.runners.paddle import PaddleRunner

    set_up(monkeypatch, "9.0", [61, 86])
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    with pytest.raises(BackendUnavailableError, match=r"none for 9\.0 \(A GPU\): running one gives wrong outputs"):
        PaddleRunner(*paddle_model, device="gpu")
