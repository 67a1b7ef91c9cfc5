"""The Paddle model of the course: build it, train it, run it, and save it as the static model that gets optimized."""

import json
import pickle
import shutil
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from filelock import FileLock

from tutorial_utils.base import paths
from tutorial_utils.base.errors import DataError, InputError, ModelFileError
from tutorial_utils.base.progress import bar
from tutorial_utils.model import data
from tutorial_utils.model.quiet_paddle import paddle

nn, functional = paddle.nn, paddle.nn.functional

INPUT_NAME = "x"

# URL and checksum: the table of models in paddle/vision/models/resnet.py
RESNET50_IMAGENET = data.Source(
    "https://paddle-hapi.bj.bcebos.com/models/resnet50.pdparams", "ca6f485ee1ab0492d38f323885b0ad80"
)


class ResidualBlock(nn.Layer):
    """Two 3x3 convolutions, and a shortcut that is added to their result.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        stride: 1 keeps height and width, 2 halves them.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        # The bias of a convolution would be cancelled by the batch norm that follows it.
        self.conv1 = nn.Conv2D(channels_in, channels_out, 3, stride, 1, bias_attr=False)
        self.norm1 = nn.BatchNorm2D(channels_out)
        self.conv2 = nn.Conv2D(channels_out, channels_out, 3, 1, 1, bias_attr=False)
        self.norm2 = nn.BatchNorm2D(channels_out)
        if stride == 1 and channels_in == channels_out:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2D(channels_in, channels_out, 1, stride, bias_attr=False), nn.BatchNorm2D(channels_out)
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map ``[N, channels_in, H, W]`` to ``[N, channels_out, H/stride, W/stride]``."""
        residual = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(residual + self.shortcut(x))


class QuickNet(nn.Layer):
    """A residual network with 78,042 trainable weights that learns the digits in seconds without a GPU.

    It has what optimizers fuse in larger networks too: convolution, batch norm, ReLU and the residual addition.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 16, 3, 2, 1, bias_attr=False), nn.BatchNorm2D(16), nn.ReLU())
        self.blocks = nn.Sequential(ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2))
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, num_classes]``."""
        return self.head(paddle.squeeze(self.pool(self.blocks(self.stem(x))), [2, 3]))


class ResNet50Classifier(nn.Layer):
    """ResNet-50 with a new head of dropout and one linear layer: 23.5 million weights.

    Args:
        num_classes: Number of classes.
        pretrained: Start from weights trained on ImageNet (98 MB, downloaded once).

    Raises:
        DataError: The pretrained weights can't be downloaded or read.
    """

    def __init__(self, num_classes: int = 10, pretrained: bool = False):
        super().__init__()
        self.backbone = paddle.vision.models.resnet50(num_classes=0)  # 0: without the classifier of ImageNet
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2048, num_classes))
        if pretrained:
            weights = data.fetch(
                RESNET50_IMAGENET, paths.cache_dir("pretrained"), "Build the model with pretrained=False"
            )
            load_weights(self.backbone, weights)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, num_classes]``."""
        return self.head(paddle.squeeze(self.backbone(x), [2, 3]))


def build(name: str = "quick", num_classes: int = 10, pretrained: bool = False, seed: int = 0) -> nn.Layer:
    """Build a network.

    Args:
        name: ``"quick"`` for QuickNet, ``"resnet50"`` for ResNet50Classifier.
        num_classes: Number of classes.
        pretrained: Start from weights trained on ImageNet; ``"resnet50"`` only.
        seed: Seed of the random initial weights. It sets Paddle's global generator.

    Raises:
        InputError: The name is unknown, or the network has no pretrained weights.
        DataError: The pretrained weights can't be downloaded or read.
    """
    paddle.seed(seed)
    if name == "resnet50":
        return ResNet50Classifier(num_classes, pretrained)
    if name != "quick":
        raise InputError(f"There is no network {name!r}.", "Choose 'quick' or 'resnet50'.")
    if pretrained:
        raise InputError("There are no pretrained weights for 'quick'.", "Train it: it takes seconds.")
    return QuickNet(num_classes)


def train(
    model: nn.Layer,
    dataset: data.Dataset,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> list[float]:
    """Train a network in place: AdamW with a learning rate that rises, then falls to nothing (one cycle).

    On a CPU the same arguments give the same weights. Some GPU kernels add in an order that changes from run to run.

    Args:
        model: The network; it is left in evaluation mode.
        dataset: Training images.
        epochs: How often every image is seen.
        batch_size: Images per step.
        learning_rate: Its highest value, reached after 30 % of the steps.
        seed: Seed of the order of the images and of dropout. It sets Paddle's global generator.
        progress: Show a bar where someone watches.

    Returns:
        Mean loss (cross entropy) of each epoch.

    Raises:
        InputError: There are no images, or ``epochs`` or ``batch_size`` is below 1.
    """
    if min(len(dataset), epochs, batch_size) < 1:
        raise InputError(
            f"Training was asked for with {len(dataset)} images, {epochs} epochs and batches of {batch_size}.",
            "Each must be at least 1.",
        )
    paddle.seed(seed)
    random = np.random.default_rng(seed)
    starts = range(0, len(dataset), batch_size)
    schedule = paddle.optimizer.lr.OneCycleLR(
        learning_rate, total_steps=epochs * len(starts), end_learning_rate=learning_rate / 1000
    )
    optimizer = paddle.optimizer.AdamW(schedule, parameters=model.parameters())

    model.train()
    history = []
    for epoch in range(epochs):
        order = random.permutation(len(dataset))
        total_loss = 0.0
        for start in bar(starts, description=f"epoch {epoch + 1}/{epochs}", unit="batch") if progress else starts:
            batch = order[start : start + batch_size]
            logits = model(paddle.to_tensor(dataset.images[batch]))
            loss = functional.cross_entropy(logits, paddle.to_tensor(dataset.labels[batch]))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()
            total_loss += float(loss) * len(batch)
        history.append(total_loss / len(dataset))
    model.eval()
    return history


def predict(model: nn.Layer, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Run a network in evaluation mode.

    Args:
        model: The network; its mode is left as it was.
        images: float32 ``[N, 3, H, W]``, N at least 1.
        batch_size: Images per call.

    Returns:
        Logits, float32 ``[N, num_classes]``.

    Raises:
        InputError: The images have another shape or data type.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0 or images.dtype != np.float32:
        raise InputError(
            f"The images have shape {list(images.shape)} and type {images.dtype}.",
            "Give float32 [N, 3, H, W], such as Dataset.images.",
        )
    with _evaluation_mode(model), paddle.no_grad():
        logits = [
            model(paddle.to_tensor(images[start : start + batch_size])).numpy()
            for start in range(0, len(images), batch_size)
        ]
    return np.concatenate(logits)


@contextmanager
def _evaluation_mode(model: nn.Layer) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


@dataclass(frozen=True)
class SavedModel:
    """The two files of a static Paddle model.

    Attributes:
        model_path: The program, ``.json`` (Paddle's intermediate representation, PIR).
        params_path: The weights, ``.pdiparams``.
    """

    model_path: Path
    params_path: Path

    @classmethod
    def at(cls, path_prefix: str | Path) -> "SavedModel":
        """Return the model saved under a path without its endings.

        Raises:
            ModelFileError: One of the two files is missing or empty.
        """
        saved = cls(Path(f"{path_prefix}.json"), Path(f"{path_prefix}.pdiparams"))
        for path in (saved.model_path, saved.params_path):
            if not path.is_file() or path.stat().st_size == 0:
                raise ModelFileError(
                    f"{path} is {'empty' if path.is_file() else 'missing'}.",
                    "Save the model again with classifier.save().",
                )
        return saved


def save(
    model: nn.Layer, path_prefix: str | Path, input_shape: tuple[int | None, ...] = (None, 3, 32, 32)
) -> SavedModel:
    """Save a network as a static model in evaluation mode: batch norm with its statistics, dropout switched off.

    The files are written in a temporary folder and moved when both are complete. The program is moved last, so a
    save that is killed leaves no pair of files that don't belong together.

    Args:
        model: The network; its mode is left as it was.
        path_prefix: Where to, without the endings ``.json`` and ``.pdiparams``.
        input_shape: Shape of the input ``x``; None is a dimension that may vary, such as the batch.

    Returns:
        The paths of the two files.

    Raises:
        ModelFileError: Paddle wrote no ``.json``, because its older intermediate representation is switched on.
    """
    target = SavedModel(Path(f"{path_prefix}.json"), Path(f"{path_prefix}.pdiparams"))
    folder = target.model_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _evaluation_mode(model), tempfile.TemporaryDirectory(prefix=".save-", dir=folder) as temporary:
        spec = paddle.static.InputSpec(list(input_shape), "float32", name=INPUT_NAME)
        paddle.jit.save(model, f"{temporary}/model", input_spec=[spec])
        written = SavedModel.at(f"{temporary}/model")
        target.model_path.unlink(missing_ok=True)
        written.params_path.replace(target.params_path)
        written.model_path.replace(target.model_path)
    return target


# All that a pickle of arrays and plain containers refers to.
_ALLOWED_IN_WEIGHTS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    # NumPy's constructor of an empty array, under the names of NumPy 1 and 2.
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    # How the older pickle protocols store bytes.
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin1"),
}


class _WeightsUnpickler(pickle.Unpickler):
    """Refuses what isn't on the list: a pickle can name any function of any module, and have it called."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ALLOWED_IN_WEIGHTS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _ALLOWED_IN_WEIGHTS[module, name]


def load_weights(model: nn.Layer, path: Path) -> None:
    """Fill a network with the weights of a ``.pdparams`` file, without running code that the file may contain.

    Weights that the network doesn't have, such as those of a removed head, are left out.

    Args:
        model: The network.
        path: A file written by ``paddle.save(model.state_dict(), path)``.

    Raises:
        DataError: The file is damaged, holds more than arrays, or lacks a weight of the network's shape.
    """
    try:
        with path.open("rb") as file:
            stored = _WeightsUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(
            f"{path} can't be read as weights: {str(error) or type(error).__name__}.",
            "Delete it, so that it is fetched or trained again.",
        ) from error
    state = {}
    for name, tensor in model.state_dict().items():
        array = stored.get(name) if isinstance(stored, dict) else None
        if not isinstance(array, np.ndarray) or list(array.shape) != tensor.shape or array.dtype.kind != "f":
            raise DataError(
                f"{path} has no weights {name!r} of shape {tensor.shape}: they belong to another network.",
                "Give the weights of this network.",
            )
        state[name] = array
    model.set_state_dict(state)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained by ``load_or_train``: the arguments of ``train``."""

    epochs: int
    batch_size: int
    learning_rate: float


RECIPES = {
    # 8 epochs: over four seeds the accuracy on the held-out digits was 99.0 % or more. It was chosen by looking at that
    # accuracy, among about ten recipes, so the figure is slightly optimistic.
    "quick": Recipe(epochs=8, batch_size=64, learning_rate=1e-2),
    "resnet50": Recipe(epochs=5, batch_size=64, learning_rate=1e-3),
}


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        model: The network, in evaluation mode.
        saved: The same network as a static model.
        history: Mean loss of each epoch.
        seconds: Time that the training took, also when it was read from the cache.
        from_cache: Whether an earlier call did the training.
    """

    model: nn.Layer
    saved: SavedModel
    history: list[float]
    seconds: float
    from_cache: bool


def load_or_train(
    name: str = "quick",
    dataset_name: str = "digits",
    epochs: int | None = None,
    pretrained: bool = False,
    force: bool = False,
) -> Trained:
    """Return a trained network: trained by the first call, read from the cache by the later ones.

    The cache knows it by network, dataset, recipe, Paddle's version and the code of this module and of ``data``.

    Args:
        name: ``"quick"`` or ``"resnet50"``.
        dataset_name: ``"digits"`` or ``"cifar10"``.
        epochs: Another number of epochs than the recipe's (8 and 5).
        pretrained: Start from weights trained on ImageNet; ``"resnet50"`` only.
        force: Train again.

    Raises:
        InputError: The network is unknown or has no pretrained weights, or ``epochs`` is below 1.
        DataError: The dataset or the pretrained weights can't be had.
        CacheError: The cache folder can't be written to.
    """
    if name not in RECIPES:
        raise InputError(f"There is no network {name!r}.", f"Choose one of {', '.join(map(repr, RECIPES))}.")
    recipe = asdict(RECIPES[name])
    if epochs is not None:
        recipe["epochs"] = epochs
    key = _cache_key(name, dataset_name, pretrained, recipe)
    folder = paths.cache_dir("models") / f"{name}-{dataset_name}-{key}"
    with FileLock(f"{folder}.lock"):  # a second process waits and then reads what the first has trained
        if folder.exists() and not force:
            try:
                return _read_cached(folder, name)
            except (DataError, ModelFileError) as error:
                warnings.warn(f"The cached model can't be used and is trained again: {error.cause}", stacklevel=2)
        dataset = data.load(dataset_name, "train")
        model = build(name, len(dataset.class_names), pretrained)
        started = time.perf_counter()
        history = train(model, dataset, **recipe)
        seconds = time.perf_counter() - started
        _write_cached(folder, model, history, seconds)
    return Trained(model, SavedModel.at(folder / "model"), history, seconds, from_cache=False)


def _cache_key(name: str, dataset_name: str, pretrained: bool, recipe: dict[str, float]) -> str:
    described = json.dumps([name, dataset_name, pretrained, recipe, paddle.__version__])
    code = Path(__file__).read_bytes() + Path(data.__file__).read_bytes()
    return blake3(described.encode() + code).hexdigest(length=8)


def _write_cached(folder: Path, model: nn.Layer, history: list[float], seconds: float) -> None:
    # The folder gets its name when it is complete: a training that is killed leaves nothing that a later call reads.
    with tempfile.TemporaryDirectory(prefix=".train-", dir=folder.parent) as temporary:
        complete = Path(temporary) / "complete"
        save(model, complete / "model")
        paddle.save(model.state_dict(), str(complete / "weights.pdparams"))
        hashes = {path.name: _hash(path) for path in sorted(complete.iterdir())}
        record = {"history": history, "seconds": seconds, "hashes": hashes}
        (complete / "training.json").write_text(json.dumps(record, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        complete.rename(folder)


def _read_cached(folder: Path, name: str) -> Trained:
    try:
        record = json.loads((folder / "training.json").read_text())
        intact = all(_hash(folder / file_name) == expected for file_name, expected in record["hashes"].items())
    except (OSError, ValueError, KeyError):
        intact = False
    if not intact:
        raise ModelFileError(f"{folder} is incomplete or altered.", "Train the model again.")
    model = build(name)  # both datasets have the default of 10 classes
    load_weights(model, folder / "weights.pdparams")
    model.eval()
    return Trained(model, SavedModel.at(folder / "model"), record["history"], record["seconds"], from_cache=True)


def _hash(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()
