"""Trained networks: trained once, read from the cache after that, and trained again where the cache is damaged."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from small_models import answers

from tutorial_utils.base.errors import InputError
from tutorial_utils.model import classifier, data, trained


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_UTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUTORIAL_UTILS_PROGRESS", "0")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def digits():
    """A part of the training images: enough to see a network learn."""
    train = data.load("digits", "train")
    return data.Dataset(train.name, train.images[:320], train.labels[:320], train.class_names)


@pytest.fixture
def small_digits(digits, monkeypatch):
    """Let load_or_train see few images, and list what it asks for: each time that it trains."""
    asked = []

    def load(name, split):
        asked.append((name, split))
        return data.Dataset(name, digits.images[:64], digits.labels[:64], digits.class_names)

    monkeypatch.setattr(data, "load", load)
    return asked


def test_load_or_train_trains_once(small_digits, cache):
    first = trained.load_or_train(epochs=1)
    second = trained.load_or_train(epochs=1)
    assert small_digits == [("digits", "train")]
    assert second.saved == first.saved
    assert not second.model.training
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(answers(first.model, images), answers(second.model, images))
    trained.load_or_train(epochs=2)
    assert len(small_digits) == 2
    assert [path for path in (cache / "models").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["weights.npz", "model.json", "model.pdiparams", "training.json"])
def test_a_damaged_cache_is_trained_again(small_digits, name):
    folder = trained.load_or_train(epochs=1).saved.model_path.parent
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="trained again") as caught:
        trained.load_or_train(epochs=1)
    assert len([warning for warning in caught if "trained again" in str(warning.message)]) == 1
    trained.load_or_train(epochs=1)
    assert len(small_digits) == 2


def a_file_in_its_place(folder):
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "training.json").write_text("[]"),
        lambda folder: (folder / "model.pdiparams").unlink(),
        lambda folder: (shutil.rmtree(folder), folder.mkdir()),
        a_file_in_its_place,
    ],
    ids=["a record of another form", "a file is gone", "an empty folder", "a file"],
)
def test_a_folder_of_another_form_is_trained_again(small_digits, damage):
    damage(trained.load_or_train(epochs=1).saved.model_path.parent)
    with pytest.warns(UserWarning, match="damaged and is trained again"):
        trained.load_or_train(epochs=1)
    trained.load_or_train(epochs=1)
    assert len(small_digits) == 2


def test_an_interrupted_training_leaves_nothing(small_digits, cache, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier, "save_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained.load_or_train(epochs=1)
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_another_recipe_trains_anew(small_digits, monkeypatch):
    trained.load_or_train(epochs=1)
    monkeypatch.setattr(trained, "TRAINING_RECIPE", trained.TRAINING_RECIPE + 1)
    trained.load_or_train(epochs=1)
    assert len(small_digits) == 2


def test_the_transformers_weights_are_those_shipped_and_know_its_task(monkeypatch):
    monkeypatch.setattr(classifier, "train", lambda *_args, **_kwargs: pytest.fail("It was trained."))
    for _ in ("new", "from the cache"):
        network = trained.load_or_train("transformer").model
        with np.load(trained._SHIPPED["transformer"]) as shipped:
            assert all(np.array_equal(tensor.numpy(), shipped[name]) for name, tensor in network.state_dict().items())
    test_set = data.load("digit_sentences", "test")
    assert (answers(network, test_set.inputs).argmax(1) == test_set.labels).mean() >= 0.94


def test_load_or_train_refuses_an_unknown_network():
    with pytest.raises(InputError, match="'vgg'"):
        trained.load_or_train("vgg")


def test_a_headless_run_prints_nothing():
    # In a fresh process: Paddle's own remarks come at import and at the first save only.
    script = """
import numpy as np
from tutorial_utils.model import data, trained
images = np.zeros((4, 3, 32, 32), np.float32)
data.load = lambda name, split: data.Dataset(name, images, np.arange(4), tuple("0123456789"))
trained.load_or_train(epochs=1)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
