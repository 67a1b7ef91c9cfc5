"""The classifier: it learns, it can be saved and read again, and no file makes it run foreign code."""

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import paddle
import pytest

from tutorial_utils.base.errors import DataError, InputError, ModelFileError
from tutorial_utils.model import classifier, data
from tutorial_utils.model.classifier import SavedModel


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
    """Let load_or_train see few images, and count how often it asks for them."""
    asked = []

    def load(name, split):
        asked.append((name, split))
        return data.Dataset(name, digits.images[:64], digits.labels[:64], digits.class_names)

    monkeypatch.setattr(data, "load", load)
    return asked


def test_quicknet_has_the_stated_size():
    assert sum(weight.size for weight in classifier.QuickNet().parameters() if weight.trainable) == 78_042


def test_quicknet_learns(digits):
    model = classifier.build()
    history = classifier.train(model, digits, epochs=4, batch_size=32, learning_rate=1e-2)
    assert len(history) == 4
    assert history[-1] < 0.4 < 1.2 < history[0]
    assert not model.training
    test = data.load("digits", "test")
    logits = classifier.predict(model, test.images)
    assert logits.shape == (600, 10)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == test.labels).mean() > 0.85
    variances = [value.numpy() for name, value in model.state_dict().items() if name.endswith("_variance")]
    # Batch norm divides by them: a channel that is all but constant would have its rounding errors blown up.
    assert min(variance.min() for variance in variances) > 1e-4


def test_training_is_reproducible(small_digits):
    dataset = data.load("digits", "train")
    first, again, other = (classifier.train(classifier.build(), dataset, 2, 16, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_seed_changes_the_weights():
    first, second = classifier.build(seed=0), classifier.build(seed=1)
    assert not np.array_equal(first.head.weight.numpy(), second.head.weight.numpy())


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 64), (1, 0)])
def test_train_refuses_counts_below_one(digits, epochs, batch_size):
    with pytest.raises(InputError, match="at least 1"):
        classifier.train(classifier.build(), digits, epochs, batch_size)


def test_one_step_of_training_is_enough_for_the_schedule(digits):
    assert len(classifier.train(classifier.build(), digits, epochs=1, batch_size=1000)) == 1


@pytest.mark.parametrize("arguments", [{"name": "vgg"}, {"name": "quick", "pretrained": True}])
def test_build_refuses(arguments):
    with pytest.raises(InputError, match=r"'vgg'|pretrained"):
        classifier.build(**arguments)


def test_predict_leaves_the_mode_and_does_not_depend_on_the_batch(digits):
    model = classifier.build()
    model.train()
    whole = classifier.predict(model, digits.images[:10])
    assert model.training
    np.testing.assert_allclose(whole, classifier.predict(model, digits.images[:10], batch_size=3), atol=1e-5)


@pytest.mark.parametrize(
    "images", [np.zeros((3, 32, 32), np.float32), np.zeros((0, 3, 32, 32), np.float32), np.zeros((1, 3, 32, 32))]
)
def test_predict_refuses(images):
    with pytest.raises(InputError, match="shape"):
        classifier.predict(classifier.build(), images)


def test_saved_model_gives_the_same_logits(digits, tmp_path):
    model = classifier.build()
    model.train()
    saved = classifier.save(model, tmp_path / "out" / "quick.v1")
    assert saved == SavedModel.at(tmp_path / "out" / "quick.v1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["quick.v1.json", "quick.v1.pdiparams"]
    assert model.training
    loaded = paddle.jit.load(str(tmp_path / "out" / "quick.v1"))
    logits = loaded(paddle.to_tensor(digits.images[:5])).numpy()
    np.testing.assert_allclose(logits, classifier.predict(model, digits.images[:5]), atol=1e-5)
    assert '"x"' in saved.model_path.read_text()


def test_a_failed_save_leaves_the_older_model(tmp_path, monkeypatch):
    saved = classifier.save(classifier.build(), tmp_path / "model")
    other = classifier.build(seed=1)
    before = saved.model_path.read_bytes(), saved.params_path.read_bytes()

    def fail(model, path, input_spec):
        assert not model.training
        with open(f"{path}.json", "w") as file:
            file.write("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(paddle.jit, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        classifier.save(other, tmp_path / "model")
    assert other.training
    assert (saved.model_path.read_bytes(), saved.params_path.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_missing_or_empty_model_files(tmp_path):
    with pytest.raises(ModelFileError, match=r"model\.json is missing"):
        SavedModel.at(tmp_path / "model")
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "model.pdiparams").touch()
    with pytest.raises(ModelFileError, match=r"model\.pdiparams is empty"):
        SavedModel.at(tmp_path / "model")


@pytest.mark.parametrize("protocol", [2, 4])
def test_weights_written_by_paddle_are_read(tmp_path, protocol):
    model, other = classifier.build(seed=0), classifier.build(seed=1)
    paddle.save(model.state_dict(), str(tmp_path / "quick.pdparams"), protocol=protocol)
    classifier.load_weights(other, tmp_path / "quick.pdparams")
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), other.state_dict()[name].numpy()), name


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.load, paddle.load])
def test_a_pickle_that_calls_a_function_is_refused(tmp_path, function):
    trap = tmp_path / "made-by-the-pickle"
    (tmp_path / "bad.pdparams").write_bytes(pickle.dumps({"head.weight": Malicious(function, str(trap))}))
    with pytest.raises(DataError, match="it refers to"):
        classifier.load_weights(classifier.build(), tmp_path / "bad.pdparams")
    assert not trap.exists()


@pytest.mark.parametrize(
    "stored", [b"", b"junk", pickle.dumps([1]), pickle.dumps({}), pickle.dumps({"stem.0.weight": np.zeros(3)})]
)
def test_other_weights_files_are_refused(tmp_path, stored):
    (tmp_path / "w.pdparams").write_bytes(stored)
    with pytest.raises(DataError, match=r"can't be read|another network"):
        classifier.load_weights(classifier.build(), tmp_path / "w.pdparams")


def test_pretrained_resnet50(cache, monkeypatch):
    imagenet = paddle.vision.models.resnet50()  # with the classifier of 1,000 classes, as in the published file
    folder = cache / "pretrained"
    folder.mkdir(parents=True)
    paddle.save(imagenet.state_dict(), str(folder / "resnet50.pdparams"))
    md5 = hashlib.md5((folder / "resnet50.pdparams").read_bytes()).hexdigest()
    nowhere = "http://127.0.0.1:9/resnet50.pdparams"
    monkeypatch.setattr(classifier, "RESNET50_IMAGENET", data.Source(nowhere, md5))
    model = classifier.build("resnet50", pretrained=True)
    assert np.array_equal(model.backbone.conv1.weight.numpy(), imagenet.conv1.weight.numpy())
    assert classifier.predict(model, np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 10)

    monkeypatch.setattr(classifier, "RESNET50_IMAGENET", data.Source(nowhere, "0" * 32))
    with pytest.raises(DataError, match="can't be downloaded") as caught:
        classifier.build("resnet50", pretrained=True)
    assert "pretrained=False" in caught.value.remedy
    assert str(folder) in caught.value.remedy


def test_load_or_train_trains_once(small_digits, cache):
    first = classifier.load_or_train(epochs=1)
    second = classifier.load_or_train(epochs=1)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert small_digits == [("digits", "train")]
    assert (second.history, second.seconds, second.saved) == (first.history, first.seconds, first.saved)
    assert not second.model.training
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(classifier.predict(first.model, images), classifier.predict(second.model, images))
    assert not classifier.load_or_train(epochs=1, force=True).from_cache
    assert not classifier.load_or_train(epochs=2).from_cache
    assert [path for path in (cache / "models").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["weights.pdparams", "model.json", "model.pdiparams", "training.json"])
def test_a_damaged_cache_is_trained_again(small_digits, name):
    folder = classifier.load_or_train(epochs=1).saved.model_path.parent
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="trained again") as caught:
        again = classifier.load_or_train(epochs=1)
    assert len([warning for warning in caught if "trained again" in str(warning.message)]) == 1
    assert not again.from_cache
    assert classifier.load_or_train(epochs=1).from_cache


def test_a_cached_file_that_is_gone_is_made_again(small_digits):
    classifier.load_or_train(epochs=1).saved.params_path.unlink()
    with pytest.warns(UserWarning, match="trained again"):
        classifier.load_or_train(epochs=1)


def test_an_interrupted_training_leaves_nothing(small_digits, cache, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(paddle, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        classifier.load_or_train(epochs=1)
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_load_or_train_refuses_an_unknown_network():
    with pytest.raises(InputError, match="'vgg'"):
        classifier.load_or_train("vgg")


def test_a_headless_run_prints_nothing():
    # In a fresh process: Paddle's own remarks come at import and at the first save only.
    script = """
import numpy as np
from tutorial_utils.model import classifier, data
images = np.zeros((4, 3, 32, 32), np.float32)
data.load = lambda name, split: data.Dataset(name, images, np.arange(4), tuple("0123456789"))
classifier.load_or_train(epochs=1)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
