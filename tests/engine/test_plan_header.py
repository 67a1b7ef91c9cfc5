import struct

import pytest
from small_models import options

from tutorial_utils import engine
from tutorial_utils.base.errors import PlanError
from tutorial_utils.engine import plan_header

RTX = "tensorrt_rtx", "1.7.1.116"


@pytest.fixture(scope="module")
def built(fp32_model):
    pytest.importorskip("tensorrt_rtx")
    return engine.build(fp32_model, options())


def header(magic=b"ftrt", version=(10, 6, 0, 26), size=100):
    """The beginning of a plan, and as many bytes behind it as its size says."""
    return (struct.pack("<4s12xQ4B", magic, size, *version) + bytes(100))[:size]


def test_header_of_a_plan(built):
    found = plan_header.read(built.plan)
    assert found == plan_header.PlanHeader(built.report.version, len(built.plan), "tensorrt_rtx")


def test_header_of_data_centre_tensorrt():
    assert plan_header.read(header()) == plan_header.PlanHeader("10.6.0.26", 100, "tensorrt")


def test_header_shows_a_plan_that_was_cut_short(built):
    assert plan_header.read(built.plan[:1000]).plan_bytes > 1000


@pytest.mark.parametrize("content", [b"", b"vtrt", b"ptrt" + bytes(60)], ids=["empty", "too short", "other magic"])
def test_no_plan(content):
    with pytest.raises(PlanError):
        plan_header.read(content)


@pytest.mark.parametrize(
    ("plan", "here", "says"),
    [
        (b"", RTX, "There are 0 bytes, and a plan begins with a header of 28 bytes"),
        (b"\x08\x08 an ONNX file, say, is no plan", RTX, r"The bytes begin with b'\x08\x08 a'"),
        (header(), RTX, "TensorRT 10.6.0.26 built the plan, and this is TensorRT-RTX 1.7.1.116"),
        (header(b"vtrt", (1, 6, 1, 120)), RTX, "TensorRT-RTX 1.6.1.120 built the plan, and this is TensorRT-RTX 1.7.1"),
        (
            header(version=(8, 6, 1, 6)),
            ("tensorrt", "10.6.0.post1"),
            "TensorRT 8.6.1.6 built the plan, and this",
        ),
        (header()[:40], ("tensorrt", "10.6.0"), "The plan was cut short: 40 of 100 bytes are there"),
        (header() + b"more", ("tensorrt", "10.6.0"), "The plan has 100 bytes, and 104 are there"),
    ],
    ids=["empty", "no plan", "other flavour", "other RTX", "older", "cut short", "longer"],
)
def test_why_a_plan_is_refused(plan, here, says):
    assert plan_header.refusal(plan, *here).startswith(says)


@pytest.mark.parametrize("version", ["10.6.0", "10.6.0.26", "10.6.0.post1"])
def test_nothing_is_wrong_with_a_whole_plan_of_this_version(version):
    assert plan_header.refusal(header(), "tensorrt", version) == ""
