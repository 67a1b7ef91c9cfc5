"""The classifier: it learns, it can be saved and read again, and no file makes it run foreign code."""

import os
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_models import answers

from tutorial_utils.base.errors import DataError, InputError, ModelFileError
from tutorial_utils.model import classifier, data
from tutorial_utils.model.classifier import SavedModel


@pytest.fixture(scope="module")
def digits():
    """A part of the training images: enough to see a network learn."""
    train = data.load("digits", "train")
    return data.Dataset(train.name, train.images[:320], train.labels[:320], train.class_names)


def test_quicknet_has_the_stated_size():
    assert sum(weight.size for weight in classifier.QuickNet().parameters() if weight.trainable) == 78_042


def test_quicknet_learns(digits):
    model = classifier.build()
    classifier.train(model, digits, epochs=4, batch_size=32, learning_rate=1e-2)
    assert not model.training
    test = data.load("digits", "test")
    logits = answers(model, test.images)
    assert logits.shape == (600, 10)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == test.labels).mean() > 0.85
    variances = [value.numpy() for name, value in model.state_dict().items() if name.endswith("_variance")]
    # Batch norm divides by them: a channel that is all but constant would have its rounding errors blown up.
    assert min(variance.min() for variance in variances) > 1e-4


def test_training_is_reproducible(digits):
    dataset = data.Dataset(digits.name, digits.images[:64], digits.labels[:64], digits.class_names)
    models = [classifier.build(), classifier.build()]
    for model in models:
        classifier.train(model, dataset, 2, 16)
    first, again = (answers(model, digits.images) for model in models)
    assert np.array_equal(first, again)


def test_seed_changes_the_weights():
    first, second = classifier.build(seed=0), classifier.build(seed=1)
    assert not np.array_equal(first.head.weight.numpy(), second.head.weight.numpy())


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 64), (1, 0)])
def test_train_refuses_counts_below_one(digits, epochs, batch_size):
    with pytest.raises(InputError, match="at least 1"):
        classifier.train(classifier.build(), digits, epochs, batch_size)


def test_one_step_of_training_is_enough_for_the_schedule(digits):
    steps = []
    classifier.train(classifier.build(), digits, epochs=1, batch_size=1000, after_step=lambda: steps.append(1))
    assert len(steps) == 1


def test_build_refuses_an_unknown_network():
    with pytest.raises(InputError, match="'vgg'"):
        classifier.build("vgg")


def test_a_step_can_be_followed_by_more_and_the_optimizer_has_its_options(digits):
    steps, models = [], [classifier.build(), classifier.build()]
    classifier.train(models[0], digits, 1, 64, after_step=lambda: steps.append(1))
    assert len(steps) == 5
    classifier.train(models[1], digits, 1, 64, weight_decay=0.9)
    assert not np.array_equal(*(model.head.weight.numpy() for model in models))


def test_saved_model_gives_the_same_logits(digits, tmp_path):
    model = classifier.build()
    saved = classifier.save(model, tmp_path / "out" / "quick.v1")
    assert saved == SavedModel.at(tmp_path / "out" / "quick.v1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["quick.v1.json", "quick.v1.pdiparams"]
    loaded = paddle.jit.load(str(tmp_path / "out" / "quick.v1"))
    logits = loaded(paddle.to_tensor(digits.images[:5])).numpy()
    np.testing.assert_allclose(logits, answers(model, digits.images[:5]), atol=1e-5)
    assert '"x"' in saved.model_path.read_text()


def test_save_leaves_every_layer_in_its_mode(tmp_path):
    """Whoever saves between two epochs goes on training, and a layer that was frozen stays so."""
    model = classifier.build()
    model.stem.eval()
    before = [layer.training for layer in model.sublayers(include_self=True)]
    assert {True, False} == set(before)
    classifier.save(model, tmp_path / "model")
    assert [layer.training for layer in model.sublayers(include_self=True)] == before


@pytest.mark.parametrize("name", ["quick", "transformer"])
def test_weights_have_the_same_names_in_each_network(name):
    """Whatever the process made before: cells of lessons print these names, and exports contain them."""
    names = [[weight.name for weight in classifier.build(name).parameters()] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0])


def test_two_networks_with_the_same_names_are_saved_apart(tmp_path):
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    models = [classifier.build(seed=seed) for seed in (0, 1)]
    saved = [classifier.save(model, tmp_path / f"{number}") for number, model in enumerate(models)]
    for model, one in zip(models, saved, strict=True):
        model.eval()
        read = paddle.jit.load(str(one.model_path.with_suffix("")))
        assert np.allclose(answers(read, images), answers(model, images))
    assert not np.allclose(*(answers(model, images) for model in models))


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
    assert (saved.model_path.read_bytes(), saved.params_path.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2
    assert other.training


def test_weights_come_back(tmp_path):
    model, other = classifier.build(seed=0), classifier.build(seed=1)
    classifier.save_weights(model, tmp_path / "quick.npz")
    classifier.load_weights(other, tmp_path / "quick.npz")
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), other.state_dict()[name].numpy()), name


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrapped", [True, False], ids=["in an array", "in place of the file"])
def test_weights_that_would_run_code_are_refused(tmp_path, wrapped):
    trap = tmp_path / "made-by-the-file"
    if wrapped:
        np.savez(tmp_path / "bad.npz", **{"head.weight": np.array([Malicious(trap)], object)})
    else:
        (tmp_path / "bad.npz").write_bytes(pickle.dumps({"head.weight": Malicious(trap)}))
    with pytest.raises(ValueError, match="pickle"):
        classifier.load_weights(classifier.build(), tmp_path / "bad.npz")
    assert not trap.exists()


@pytest.mark.parametrize("stored", [{}, {"stem.0.weight": np.zeros(3)}])
def test_weights_of_another_network_are_refused(tmp_path, stored):
    np.savez(tmp_path / "w.npz", **stored)
    with pytest.raises(DataError, match="another network"):
        classifier.load_weights(classifier.build(), tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["model.pdiparams", "model.json"])
def test_a_model_that_a_full_disk_cut_short_is_not_kept(tmp_path, monkeypatch, name):
    """Paddle raises nothing there: it writes what fits."""
    save = paddle.jit.save

    def on_a_full_disk(model, prefix, **options):
        save(model, prefix, **options)
        path = Path(prefix).with_name(name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - 7])

    saved = classifier.save(classifier.build("quick"), tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(paddle.jit, "save", on_a_full_disk)
    with pytest.raises(ModelFileError, match=r"saved only a part of the model.*MiB are free there.*Free some space"):
        classifier.save(classifier.build("quick"), tmp_path / "model")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert saved.model_path in before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match=r"can't be saved in .*file: "):
        classifier.save(classifier.build("quick"), tmp_path / "file" / "model")


def test_paddles_older_form_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.jit, "save", lambda model, prefix, **_: Path(f"{prefix}.pdmodel").touch())
    with pytest.raises(ModelFileError, match=r"wrote a \.pdmodel instead of a \.json.*FLAGS_enable_pir_api"):
        classifier.save(classifier.build("quick"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
