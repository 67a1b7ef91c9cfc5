"""Make the recordings of the course on a machine with a GPU: what `python -m tutorial_utils record` does."""

import re
from pathlib import Path

from tutorial_utils import engine
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import deployment, recordings
from tutorial_utils.model import data, networks, onnx_file
from tutorial_utils.model.precisions import DEPLOYED, PRECISIONS

# Batches from one image to the largest that the lessons time, with the best kernels for the latter.
PROFILE = engine.Profile.batch("x", data.IMAGE_SHAPE, opt=64, max=64)


def record_deployment(models: Path | None = None, name: str | None = None, seconds: float = 1.0) -> Path:
    """Measure the quick classifier in every precision on every backend of this machine, and keep it as a recording.

    Args:
        models: A folder with ``quick-fp32.onnx`` and so on for each of `precisions.DEPLOYED`, from another machine, for
            one without Paddle. None trains and exports here.
        name: Name of the recording; "deployment_" and the GPU's name unless given. The course ships "deployment".
        seconds: About how long to time each row.

    Returns:
        The file that was written.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here, so there is nothing to record.
    """
    machine = capabilities.require_tensorrt_run()
    onnx_models = networks.quick(DEPLOYED) if models is None else models_in(models)
    engines = {
        precision: engine.build(path, engine.BuildOptions(profiles=(PROFILE,)))
        for precision, path in onnx_models.items()
        if deployment.refusal(machine, precision) is None
    }
    rows, skipped = deployment.run(machine, data.load("digits", "test"), onnx_models, engines=engines, seconds=seconds)
    recording = recordings.new(
        title="The quick classifier on the digits: quality and time of every variant on every backend",
        method=deployment.METHOD,
        machine=machine.machine(),
        data={"rows": [row.to_dict() for row in rows], "skipped": [vars(one) for one in skipped]},
    )
    name = name or "deployment_" + re.sub(r"\W+", "_", machine.gpu.name.lower())
    return recordings.save(recording, recordings.FOLDER / f"{name}.json")


def models_in(folder: Path) -> dict[str, Path]:
    """Return the ONNX files of a folder by precision.

    Raises:
        ModelFileError: One of them is missing.
    """
    models = {name: Path(folder) / PRECISIONS[name].file_name("quick") for name in DEPLOYED}
    for path in models.values():
        onnx_file.load(path)
    return models
