"""Datasets: their form, their fixed split, and every way in which a download can go wrong."""

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tutorial_utils.base.errors import CalibrationError, DataError
from tutorial_utils.model import data

IMAGES_PER_MEMBER = 3
NOWHERE = "http://127.0.0.1:9/cifar-10-binary.tar.gz"  # nothing listens on port 9


def cifar10_records(seed: int) -> bytes:
    records = np.random.default_rng(seed).integers(0, 256, (IMAGES_PER_MEMBER, data.CIFAR10_RECORD_BYTES), np.uint8)
    records[:, 0] = [seed, 0, 9]
    return records.tobytes()


def cifar10_archive(change=None) -> bytes:
    """Return a small archive in the form of CIFAR-10; `change` maps a member's name and bytes to new bytes or None."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for seed, name in enumerate((*data.CIFAR10_MEMBERS["train"], *data.CIFAR10_MEMBERS["test"])):
            content = cifar10_records(seed)
            if change:
                content = change(name, content)
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_UTILS_CACHE", str(tmp_path / "cache"))
    datasets = tmp_path / "cache" / "datasets"
    datasets.mkdir(parents=True)
    return datasets


@pytest.fixture
def put_by_hand(folder, monkeypatch):
    """Lay an archive into the cache folder of a machine without network, and state its checksum as the right one."""

    def put(content: bytes):
        monkeypatch.setattr(data, "CIFAR10", data.Source(NOWHERE, hashlib.md5(content).hexdigest()))
        (folder / data.CIFAR10.file_name).write_bytes(content)

    return put


@pytest.fixture
def serve(tmp_path, folder, monkeypatch):
    """Serve an archive from this machine."""
    site = tmp_path / "site"
    site.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=site)
    handler.func.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def publish(content: bytes | None, md5: str):
        if content is not None:
            (site / "cifar-10-binary.tar.gz").write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
        monkeypatch.setattr(data, "CIFAR10", data.Source(url, md5))

    yield publish
    server.shutdown()
    server.server_close()


def test_digits_have_the_form_that_every_step_takes():
    for split, count in (("train", 1197), ("test", 600)):
        digits = data.load("digits", split)
        assert len(digits) == count
        assert digits.images.shape == (count, 3, 32, 32)
        assert digits.images.dtype == np.float32
        assert digits.images.flags.c_contiguous
        assert (digits.images.min(), digits.images.max()) == (-1, 1)
        assert digits.labels.dtype == np.int64
        assert digits.class_names == tuple("0123456789")
        assert np.array_equal(digits.images[:, 0], digits.images[:, 2])


def test_digits_split_is_fixed_stratified_and_without_overlap():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert np.array_equal(test.images, data.load("digits", "test").images)
    shares = np.bincount(train.labels) / len(train) - np.bincount(test.labels) / len(test)
    assert np.abs(shares).max() < 0.005
    # scikit-learn's data set itself holds no picture twice
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_upsampling_keeps_the_picture_where_it_was():
    from sklearn.datasets import load_digits

    digits = data.load("digits", "test")
    shrunk = (digits.images[:, 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)) + 1) * 8
    originals = load_digits().images
    for image, label in zip(shrunk[:20], digits.labels[:20], strict=True):
        nearest = np.abs(originals - image).sum((1, 2)).argmin()
        assert load_digits().target[nearest] == label
        assert np.corrcoef(originals[nearest].ravel(), image.ravel())[0, 1] > 0.97


def pictures_of(ids: np.ndarray) -> np.ndarray:
    """Read sentences back as pictures, [N, 8, 8], in the shades that they were written in."""
    words = np.maximum(ids[:, 1:] - 2, 0)
    pixels = words[..., np.newaxis] // data.SHADES ** np.arange(4) % data.SHADES
    return pixels.reshape(-1, 4, 4, 2, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 8, 8)


def test_digit_sentences_say_what_the_images_show():
    from sklearn.datasets import load_digits

    test = data.load("digit_sentences", "test")
    assert np.array_equal(test.labels, data.load("digits", "test").labels)
    ids = test.inputs
    assert (ids.shape, ids.dtype) == ((600, data.LONGEST_SENTENCE), np.int64)
    assert ids.flags.c_contiguous
    assert (ids[:, 0] == data.CLS).all()
    assert 0 <= ids.min() <= ids.max() < data.VOCABULARY
    ended = ids == data.PADDING
    assert not (ended[:, :-1] & ~ended[:, 1:]).any()  # nothing follows the padding
    assert len(np.unique((~ended).sum(1))) >= 4  # lengths differ
    shades = {picture.tobytes() for picture in (load_digits().images * data.SHADES // 17).astype(np.int64)}
    assert {np.ascontiguousarray(picture).tobytes() for picture in pictures_of(ids)} <= shades


def test_digit_sentences_to_train_with_are_also_moved():
    train = data.load("digit_sentences", "train")
    assert train.inputs.shape == (5 * 1197, data.LONGEST_SENTENCE)
    assert np.array_equal(train.labels, np.tile(data.load("digits", "train").labels, 5))
    still, right, left, down, up = pictures_of(train.inputs).reshape(5, -1, 8, 8)
    assert np.array_equal(right[:, :, 1:], still[:, :, :-1])
    assert np.array_equal(left[:, :, :-1], still[:, :, 1:])
    assert np.array_equal(down[:, 1:], still[:, :-1])
    assert np.array_equal(up[:, :-1], still[:, 1:])
    assert not right[:, :, 0].any()
    assert not up[:, -1].any()


@pytest.mark.parametrize(("name", "split", "given"), [("mnist", "train", "'mnist'"), ("digits", "val", "'val'")])
def test_unknown_name_or_split(name, split, given):
    with pytest.raises(DataError, match=given):
        data.load(name, split)


def test_cifar10_is_read_record_by_record(put_by_hand):
    put_by_hand(cifar10_archive())
    train, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    assert len(train) == 5 * IMAGES_PER_MEMBER
    assert train.labels.tolist() == [0, 0, 9, 1, 0, 9, 2, 0, 9, 3, 0, 9, 4, 0, 9]
    assert test.labels.tolist() == [5, 0, 9]
    assert test.class_names[9] == "truck"
    assert test.images.dtype == np.float32
    assert test.images.flags.c_contiguous
    pixels = np.frombuffer(cifar10_records(5), np.uint8).reshape(IMAGES_PER_MEMBER, -1)[1, 1:].reshape(3, 32, 32)
    np.testing.assert_allclose(test.images[1], pixels / 127.5 - 1, atol=1e-6)


def test_cifar10_is_downloaded_once(serve, folder, monkeypatch):
    content = cifar10_archive()
    serve(content, hashlib.md5(content).hexdigest())
    assert len(data.load("cifar10", "test")) == IMAGES_PER_MEMBER
    assert [path.name for path in folder.iterdir()] == ["cifar-10-binary.tar.gz"]
    monkeypatch.setattr(data, "CIFAR10", data.Source(NOWHERE, data.CIFAR10.md5))
    assert len(data.load("cifar10", "test")) == IMAGES_PER_MEMBER


def test_wrong_checksum_is_refused_and_leaves_nothing(serve, folder):
    serve(cifar10_archive()[:-100], "0" * 32)
    with pytest.raises(DataError, match="wrong checksum"):
        data.load("cifar10", "train")
    assert list(folder.iterdir()) == []


def test_http_error_is_a_data_error(serve, folder):
    serve(None, "0" * 32)
    with pytest.raises(DataError, match=r"can't be downloaded \(HTTPError\)"):
        data.load("cifar10", "train")
    assert list(folder.iterdir()) == []


def test_without_network_the_error_names_the_ways_out(folder, monkeypatch):
    monkeypatch.setattr(data, "CIFAR10", data.Source(NOWHERE, "0" * 32))
    with pytest.raises(DataError, match="can't be downloaded") as caught:
        data.load("cifar10", "train")
    for hint in ("'digits'", "cifar-10-binary.tar.gz", str(folder)):
        assert hint in caught.value.remedy
    assert list(folder.iterdir()) == []


def test_a_wrong_file_put_by_hand_is_named(put_by_hand, folder):
    put_by_hand(cifar10_archive())
    (folder / data.CIFAR10.file_name).write_bytes(b"another file")
    with pytest.raises(DataError, match=r"the cifar-10-binary.tar.gz in .* has the wrong checksum"):
        data.load("cifar10", "train")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no archive", id="no archive"),
        pytest.param(cifar10_archive()[:-2000], id="cut short"),
        pytest.param(cifar10_archive(lambda name, content: None if "_3" in name else content), id="member missing"),
        pytest.param(cifar10_archive(lambda name, content: content[:-1]), id="record cut short"),
        pytest.param(cifar10_archive(lambda name, content: b""), id="no records"),
        pytest.param(cifar10_archive(lambda name, content: b"\x0a" + content[1:]), id="label 10"),
    ],
)
def test_damaged_archive(put_by_hand, content):
    put_by_hand(content)
    with pytest.raises(DataError, match="damaged"):
        data.load("cifar10", "train")


def test_calibration_images_are_balanced_and_reproducible():
    train = data.load("digits", "train")
    images = data.calibration_images(train, count=105, seed=1)
    assert images.shape == (105, 3, 32, 32)
    assert images.dtype == np.float32
    label_of = {image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)}
    labels = [label_of[image.tobytes()] for image in images]
    assert sorted(np.bincount(labels)) == [10] * 5 + [11] * 5
    assert len({image.tobytes() for image in images}) == 105
    assert labels != sorted(labels)
    assert np.array_equal(images, data.calibration_images(train, count=105, seed=1))
    assert not np.array_equal(images, data.calibration_images(train, count=105, seed=2))


def test_calibration_count_is_checked():
    train = data.load("digits", "train")
    with pytest.raises(CalibrationError, match="0 calibration images"):
        data.calibration_images(train, count=0)
    with pytest.raises(CalibrationError, match="need 200 of class") as caught:
        data.calibration_images(train, count=2000)
    most = int("".join(filter(str.isdigit, caught.value.remedy)))
    assert len(data.calibration_images(train, count=most)) == most
