"""The course's three networks as ONNX files in each precision, made once and then read from the cache.

Lesson 00 walks this road step by step. The other lessons and the recordings start from its end.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from tutorial_utils.base import paths, sealed_files
from tutorial_utils.base.flavour import installed_version
from tutorial_utils.model import data, export, precisions
from tutorial_utils.model.precisions import PRECISIONS

if TYPE_CHECKING:
    from tutorial_utils.model.classifier import SavedModel

CALIBRATION_IMAGES = 500
RUN_EVERYWHERE = ("fp32", "fp16", "int8")

# Raise this by one whenever the same network comes out as another ONNX file than before: a change in `export`,
# `paddle2onnx_worker`, `precisions` and what it calls, the choice of calibration images, the random ResNet-50 or the
# calls below. Files in a cache are found by it.
EXPORT_RECIPE = 5
# What writes the files; another version may write others. Of builds for CPU and GPU, one is installed.
_EXPORTERS = (
    "paddlepaddle", "paddlepaddle-gpu", "paddle2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "polygraphy",
    "onnx-graphsurgeon",
)  # fmt: skip


def quick(names: Iterable[str] = RUN_EVERYWHERE) -> dict[str, Path]:
    """Return the quick classifier, trained on the digits, by precision: those named, of `PRECISIONS`."""
    return _trained("quick", names)


def transformer(names: Iterable[str] = RUN_EVERYWHERE) -> dict[str, Path]:
    """Return the transformer encoder, trained on the digits as sentences, by precision: those named, of `PRECISIONS`.

    Its input ``ids`` is int64 ``[batch, length]``: both vary, and the length goes to `data.LONGEST_SENTENCE`.
    """
    return _trained("transformer", names)


def _trained(network: str, names: Iterable[str]) -> dict[str, Path]:
    from tutorial_utils.model import trained  # imports Paddle

    return _exported(network, trained.load_or_train(network).saved, tuple(names), trained.DATASETS[network])


def resnet50() -> dict[str, Path]:
    """Return ResNet-50 with random weights by precision, "fp32" and "fp16": for what weights don't change.

    Its images are ``[batch, 3, 224, 224]``. Layers, fusion, memory and time are those of a trained ResNet-50 with 10
    classes. Accuracy means nothing, and there is no INT8 variant, since random activations give no ranges worth having.
    """
    from tutorial_utils.model import classifier  # imports Paddle

    folder = paths.cache_dir("models", f"resnet50-random-224-{EXPORT_RECIPE}")
    saved = classifier.SavedModel.at(folder / "model")
    with sealed_files.filling(vars(saved).values(), folder / "lock") as missing:
        if missing:
            classifier.save(classifier.build("resnet50"), folder / "model", (None, 3, 224, 224))
    return _exported("resnet50", saved, ("fp32", "fp16"))


def _exported(
    network: str, saved: "SavedModel", wanted: tuple[str, ...], dataset: str | None = None
) -> dict[str, Path]:
    """Return the files of a saved network by precision; what is calibrated is so with images of the dataset."""
    folder = _folder(network, saved.model_path, saved.params_path)
    needed = {"fp32", *wanted, *(source for name in wanted for source in PRECISIONS[name].made_from)}
    files = {name: folder / PRECISIONS[name].file_name(network) for name in needed}
    with sealed_files.filling(files.values(), folder / "lock") as missing:
        if missing:
            if not files["fp32"].exists():
                export.to_onnx(saved.model_path, saved.params_path, files["fp32"])
            images = data.calibration_images(data.load(dataset, "train"), CALIBRATION_IMAGES) if dataset else None
            precisions.write(files, images)
    return {name: files[name] for name in wanted}


def files(names: Iterable[str]) -> dict[str, Path]:
    """Return ONNX files of the networks by file name, such as ``quick-fp16.onnx`` and ``resnet50-fp32.onnx``."""
    wanted = [tuple(name.removesuffix(".onnx").split("-")) for name in names]
    made = {}
    for network, make in {"quick": quick, "transformer": transformer, "resnet50": lambda _: resnet50()}.items():
        of_it = [precision for one, precision in wanted if one == network]
        made[network] = make(of_it) if of_it else {}
    return {f"{network}-{precision}.onnx": made[network][precision] for network, precision in wanted}


def _folder(name: str, *sources: Path) -> Path:
    """Return the folder for what today's recipe and the installed libraries make of these files."""
    recipe = [EXPORT_RECIPE, export.OPSET, CALIBRATION_IMAGES, {one: installed_version(one) for one in _EXPORTERS}]
    hasher = blake3(json.dumps(recipe).encode())
    for source in sources:
        sealed_files.add(hasher, source)
    return paths.cache_dir("onnx", f"{name}-{hasher.hexdigest(length=8)}")
