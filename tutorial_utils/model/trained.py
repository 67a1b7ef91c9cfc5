"""Trained networks: trained once by a recipe, then read from the cache."""

import json
import os
import shutil
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from filelock import FileLock

from tutorial_utils.base import paths
from tutorial_utils.base.errors import DataError, InputError, ModelFileError
from tutorial_utils.model import classifier, data, transformer
from tutorial_utils.model.classifier import SavedModel
from tutorial_utils.model.quiet_paddle import paddle

# Raise this by one whenever the same call trains other weights than before: a change in the networks of
# `classifier` and `transformer`, in the training, or in what `data` loads. Networks in a cache are found by it.
TRAINING_RECIPE = 1


RECIPES = {  # arguments of `classifier.train`
    # 8 epochs: over four seeds the accuracy on the held-out digits was 99.0 % or more. It was chosen by looking at that
    # accuracy, among about ten recipes, so the figure is slightly optimistic.
    "quick": {"epochs": 8, "batch_size": 64, "learning_rate": 1e-2},
    "resnet50": {"epochs": 5, "batch_size": 64, "learning_rate": 1e-3},
    # Chosen in the same way among about 25 recipes, and 95.8 % right on the held-out digits.
    "transformer": {"epochs": 8, "batch_size": 64, "learning_rate": 6e-3},
}
DATASETS = {  # what each network can learn, its usual dataset first
    "quick": ("digits", "cifar10"),
    "resnet50": ("digits", "cifar10"),
    "transformer": ("digit_sentences",),
}
_INPUTS = {"transformer": transformer.INPUT}  # arguments of `classifier.save`, where they aren't its own defaults


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, and ``saved``: the same as a static model.

    The history is the mean loss of each epoch. ``seconds`` is what the training took, also where an earlier call did it
    (``from_cache``).
    """

    model: paddle.nn.Layer
    saved: SavedModel
    history: list[float]
    seconds: float
    from_cache: bool


def load_or_train(name: str = "quick", dataset_name: str | None = None, epochs: int | None = None) -> Trained:
    """Return a trained network: trained by the first call, read from the cache by the later ones.

    The cache knows it by network, dataset, recipe, Paddle's version and `TRAINING_RECIPE`.

    Args:
        name: ``"quick"``, ``"resnet50"`` or ``"transformer"``.
        dataset_name: One of the network's `DATASETS`; None for the first.
        epochs: Another number of epochs than that of `RECIPES`.

    Raises:
        InputError: The network is unknown or can't read the dataset, or ``epochs`` is below 1.
    """
    if name not in RECIPES:
        raise InputError(f"There is no network {name!r}.", f"Choose one of {', '.join(map(repr, RECIPES))}.")
    dataset_name = dataset_name or DATASETS[name][0]
    if dataset_name not in DATASETS[name]:
        raise InputError(
            f"The network {name!r} can't learn the dataset {dataset_name!r}.",
            f"Choose one of {', '.join(map(repr, DATASETS[name]))} for it.",
        )
    recipe = dict(RECIPES[name])
    if epochs is not None:
        recipe["epochs"] = epochs
    known_by = json.dumps([TRAINING_RECIPE, name, dataset_name, recipe, paddle.__version__])
    key = blake3(known_by.encode()).hexdigest(length=8)
    folder = paths.cache_dir("models") / f"{name}-{dataset_name}-{key}"
    with (
        paths.filling_cache(),
        FileLock(f"{folder}.lock"),
    ):  # a second process waits and then reads what the first has trained
        if os.path.lexists(folder):
            try:
                return _read_cached(folder, name)
            except (DataError, ModelFileError) as error:
                warnings.warn(f"The cached model can't be used and is trained again: {error.cause}", stacklevel=2)
        dataset = data.load(dataset_name, "train")
        model = classifier.build(name, len(dataset.class_names))
        started = time.perf_counter()
        history = classifier.train(model, dataset, **recipe)
        seconds = time.perf_counter() - started
        _write_cached(folder, name, model, history, seconds)
    return Trained(model, SavedModel.at(folder / "model"), history, seconds, from_cache=False)


def _write_cached(folder: Path, name: str, model: paddle.nn.Layer, history: list[float], seconds: float) -> None:
    # The folder gets its name when it is complete: a training that is killed leaves nothing that a later call reads.
    with tempfile.TemporaryDirectory(prefix=".train-", dir=folder.parent) as temporary:
        complete = Path(temporary) / "complete"
        classifier.save(model, complete / "model", **_INPUTS.get(name, {}))
        classifier.save_weights(model, complete / "weights.npz")
        hashes = {path.name: _hash(path) for path in _files(complete)}
        record = {"history": history, "seconds": seconds, "hashes": hashes}
        (complete / "training.json").write_text(json.dumps(record, indent=1))
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)  # a file in its place
        complete.rename(folder)


def _read_cached(folder: Path, name: str) -> Trained:
    try:
        record = json.loads((folder / "training.json").read_text())
        history, seconds = [float(loss) for loss in record["history"]], float(record["seconds"])
        intact = {path.name: _hash(path) for path in _files(folder)} == record["hashes"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise ModelFileError(f"{folder} is incomplete or altered.", "Train the model again.")
    model = classifier.build(name)  # both datasets have the default of 10 classes
    classifier.load_weights(model, folder / "weights.npz")
    model.eval()
    return Trained(model, SavedModel.at(folder / "model"), history, seconds, from_cache=True)


def _files(folder: Path) -> list[Path]:
    saved = SavedModel(folder / "model.json", folder / "model.pdiparams")
    return [saved.model_path, saved.params_path, folder / "weights.npz"]


def _hash(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()
