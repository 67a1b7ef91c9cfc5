"""The Paddle models of the course: build, train and run them, and save them as the static models that get optimized."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutorial_utils.base.errors import DataError, InputError, ModelFileError
from tutorial_utils.base.progress import bar
from tutorial_utils.model import data, paddle_program, transformer
from tutorial_utils.model.quiet_paddle import paddle

nn, functional = paddle.nn, paddle.nn.functional

INPUT_NAME = "x"


class ResidualBlock(nn.Layer):
    """Two 3x3 convolutions, and a shortcut that is added to their result. A stride of 2 halves height and width."""

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
    """ResNet-50 with a new head of dropout and one linear layer: 23.5 million weights."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.backbone = paddle.vision.models.resnet50(num_classes=0)  # 0: without the classifier of ImageNet
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2048, num_classes))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, num_classes]``."""
        return self.head(paddle.squeeze(self.backbone(x), [2, 3]))


def build(name: str = "quick", num_classes: int = 10, seed: int = 0) -> nn.Layer:
    """Build a network.

    Args:
        name: ``"quick"`` for QuickNet, ``"resnet50"`` for ResNet50Classifier, ``"transformer"`` for TransformerEncoder.
        seed: Seed of the random initial weights. It sets Paddle's global generator.

    Raises:
        InputError: The name is unknown.
    """
    paddle.seed(seed)
    networks = {"quick": QuickNet, "resnet50": ResNet50Classifier, "transformer": transformer.TransformerEncoder}
    if name not in networks:
        raise InputError(f"There is no network {name!r}.", f"Choose one of {', '.join(map(repr, networks))}.")
    with paddle.utils.unique_name.guard():  # else weights would be named by how many layers this process made before
        return networks[name](num_classes)


def train(
    model: nn.Layer,
    dataset: data.Dataset,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    progress: bool = True,
    after_step: Callable[[], None] = lambda: None,
    **optimizer_options: object,
) -> None:
    """Train a classifier in place: AdamW with a learning rate that rises, then falls to nothing (one cycle).

    On a CPU the same arguments give the same weights: the seeds are fixed, that of Paddle's global generator too. Some
    GPU kernels add in an order that changes from run to run.

    Args:
        model: The network; it is left in evaluation mode.
        dataset: What to train with.
        epochs: How often every input is seen.
        batch_size: Inputs per step.
        learning_rate: Its highest value, reached after 30 % of the steps.
        progress: Show a bar where someone watches.
        after_step: Called after each step: to keep pruned weights at 0, say.
        optimizer_options: Further arguments of `paddle.optimizer.AdamW`.

    Raises:
        InputError: There are no inputs, or ``epochs`` or ``batch_size`` is below 1.
    """
    if min(len(dataset), epochs, batch_size) < 1:
        raise InputError(
            f"Training was asked for with {len(dataset)} inputs, {epochs} epochs and batches of {batch_size}.",
            "Each must be at least 1.",
        )
    paddle.seed(0)
    random = np.random.default_rng(0)
    starts = range(0, len(dataset), batch_size)
    schedule = paddle.optimizer.lr.OneCycleLR(
        learning_rate, total_steps=epochs * len(starts), end_learning_rate=learning_rate / 1000
    )
    optimizer = paddle.optimizer.AdamW(schedule, parameters=model.parameters(), **optimizer_options)

    model.train()
    for epoch in range(epochs):
        order = random.permutation(len(dataset))
        for start in bar(starts, description=f"epoch {epoch + 1}/{epochs}", unit="batch") if progress else starts:
            batch = order[start : start + batch_size]
            logits = model(paddle.to_tensor(dataset.inputs[batch]))
            loss = functional.cross_entropy(logits, paddle.to_tensor(dataset.labels[batch]))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()
            after_step()
    model.eval()


@dataclass(frozen=True)
class SavedModel:
    """A static Paddle model: program, ``.json`` (Paddle's representation PIR) or ``.pdmodel``, and ``.pdiparams``."""

    model_path: Path
    params_path: Path

    @classmethod
    def at(cls, path_prefix: str | Path) -> "SavedModel":
        """Return the paths of the model that `save` writes under a path without endings."""
        return cls(Path(f"{path_prefix}.json"), Path(f"{path_prefix}.pdiparams"))


@contextmanager
def saving(target: SavedModel) -> Iterator[Path]:
    """Give a path without endings to write the two files to, and move them to ``target`` when both are complete.

    The program is moved last, so a save that is killed leaves no pair of files that don't belong together.

    Raises:
        ModelFileError: A file can't be written, or isn't whole: on a full disk, Paddle writes what fits in silence.
    """
    folder = target.model_path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".save-", dir=folder) as temporary:
            written = Path(temporary) / "model"
            yield written
            program, params = (written.with_suffix(path.suffix) for path in (target.model_path, target.params_path))
            if program.exists():  # else Paddle wrote another form, and who asked for this one says so
                _require_whole(program, params, folder)
            target.model_path.unlink(missing_ok=True)
            params.replace(target.params_path)
            program.replace(target.model_path)
    except OSError as error:
        raise ModelFileError(
            f"The model can't be saved in {folder}: {error.strerror or error}.",
            "Free some space, or choose a folder that you can write to.",
        ) from error


def _require_whole(program: Path, params: Path, folder: Path) -> None:
    try:
        paddle_program.operators(program)
        paddle_program.require_files(program, params)
    except ModelFileError as error:
        free = f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB"
        raise ModelFileError(
            f"Paddle saved only a part of the model in {folder}, without an error; {free} are free there.",
            "Free some space, and save it again.",
        ) from error


@contextmanager
def _evaluating(model: nn.Layer) -> Iterator[None]:
    """Put a network in evaluation mode, and then each of its layers in the mode that it had."""
    training = [layer for layer in model.sublayers(include_self=True) if layer.training]
    model.eval()
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


def save(
    model: nn.Layer,
    path_prefix: str | Path,
    input_shape: tuple[int | None, ...] = (None, 3, 32, 32),
    *,
    input_name: str = INPUT_NAME,
    dtype: str = "float32",
) -> SavedModel:
    """Save a network as a static model in evaluation mode: batch norm with its statistics, dropout switched off.

    Args:
        model: The network; each of its layers keeps the mode that it is in.
        path_prefix: Where to, without the endings ``.json`` and ``.pdiparams``.
        input_shape: Shape of the input; None is a dimension that may vary, such as the batch.
        input_name: What the input is called.
        dtype: Its data type; ``"int64"`` for ids.

    Raises:
        ModelFileError: Paddle wrote no ``.json``, because its older intermediate representation is switched on.
    """
    target = SavedModel.at(path_prefix)
    with _evaluating(model), saving(target) as written:
        spec = paddle.static.InputSpec(list(input_shape), dtype, name=input_name)
        paddle.jit.save(model, str(written), input_spec=[spec])
        if not written.with_suffix(".json").exists():
            raise ModelFileError(
                "Paddle wrote a .pdmodel instead of a .json: its older form of programs is switched on.",
                "Unset FLAGS_enable_pir_api, and start Python anew.",
            )
    return target


def save_weights(model: nn.Layer, path: Path) -> None:
    """Write the weights of a network as ``.npz``."""
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


def load_weights(model: nn.Layer, path: Path) -> None:
    """Fill a network with weights that `save_weights` wrote. Such a file holds arrays only: reading it runs no code.

    Raises:
        DataError: The file lacks a weight of the network's shape.
    """
    with np.load(path) as file:
        stored = dict(file)
    for name, tensor in model.state_dict().items():
        if name not in stored or list(stored[name].shape) != tensor.shape:
            raise DataError(
                f"{path} has no weights {name!r} of shape {tensor.shape}: they belong to another network.",
                "Give the weights of this network.",
            )
    model.set_state_dict(stored)
