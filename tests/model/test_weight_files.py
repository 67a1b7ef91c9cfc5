"""What a model may name: files of weights beside it or below. All else is refused before a byte of it is read."""

import contextlib
import os
import threading
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from small_models import residual_model

from tutorial_utils import engine
from tutorial_utils.base import sealed_files
from tutorial_utils.base.errors import ModelFileError
from tutorial_utils.model import onnx_file, weight_files


@pytest.fixture
def model(tmp_path):
    """A model with its weights in a file beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(residual_model(), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path


def relocated(path: Path, location: str) -> None:
    """Let all weights of a model lie somewhere else."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    onnx.save(model, path)


def a_link(folder: Path, to: str) -> str:
    (folder / "link.data").symlink_to(to)
    return "link.data"


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.data")
    return "pipe.data"


def a_folder(folder: Path) -> str:
    (folder / "folder.data").mkdir()
    return "folder.data"


PLACES = {
    "above": lambda folder: "../weights.data",
    "above by the folder itself": lambda folder: "../model/weights.data",
    "absolute": lambda folder: str(folder / "weights.data"),
    "a device": lambda folder: "/dev/zero",
    "a device above": lambda folder: f"{'../' * 20}dev/zero",
    "a link to a device": lambda folder: a_link(folder, "/dev/zero"),
    "a link to a file elsewhere": lambda folder: a_link(folder, "/etc/passwd"),
    "a pipe": a_pipe,
    "a folder": a_folder,
    "nothing": lambda folder: "missing.data",
}


@pytest.mark.parametrize("reader", [weight_files.named_by, onnx_file.load])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_weights_of_another_place_are_refused(model, place, reader):
    relocated(model, place(model.parent))
    with pytest.raises(ModelFileError, match=r"has weights in .* (outside of its own folder|no such file|no ordinary)"):
        reader(model)


def test_what_a_constant_a_body_or_a_function_names_counts_too():
    def tensor(name):
        one = TensorProto(name=name, data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        one.external_data.add(key="location", value=name)
        return one

    value = helper.make_tensor_value_info("y", 1, [1])
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=tensor("in a body"))], "body", [], [value], [tensor("of a body")]
    )
    main = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)], "g", [], [])
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function(
        "own", "F", [], ["y"], [helper.make_node("Constant", [], ["y"], value=tensor("in a function"))], opset
    )
    found = weight_files.tensors(helper.make_model(main, functions=[function], opset_imports=opset))
    assert {one.name for one in found if one.external_data} == {"in a body", "of a body", "in a function"}


def test_a_link_inside_the_folder_and_the_links_of_a_hub_are_followed(model, tmp_path):
    (model.parent / "weights.data").rename(model.parent / "other.data")
    (model.parent / "weights.data").symlink_to("other.data")
    assert weight_files.named_by(model) == [model.parent / "weights.data"]
    hub = tmp_path / "snapshot"
    hub.mkdir()
    for name in ("model.onnx", "weights.data"):
        (hub / name).symlink_to(model.parent / name)
    assert weight_files.named_by(hub / "model.onnx") == [hub / "weights.data"]


def test_the_word_location_is_found_between_two_reads(model, monkeypatch):
    content = model.read_bytes()
    monkeypatch.setattr(sealed_files, "_CHUNK", content.index(b"location") + 3)
    assert weight_files.named_by(model)


def test_a_file_that_shrinks_while_it_is_hashed_ends_no_process(tmp_path):
    """A memory map would: the kernel answers with SIGBUS."""
    path = tmp_path / "model.onnx"
    ended = threading.Event()

    def shrink_and_grow():
        while not ended.is_set():
            os.truncate(path, 0)
            os.truncate(path, 1 << 24)

    path.write_bytes(b"")
    writer = threading.Thread(target=shrink_and_grow)
    writer.start()
    try:
        for _ in range(20):
            with contextlib.suppress(ModelFileError):  # it is empty, or became shorter
                engine.cache.model_hash(path)
    finally:
        ended.set()
        writer.join()
