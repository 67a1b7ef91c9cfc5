"""The inputs that an ONNX file declares, put in other words where TensorRT would misread them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import onnx

from tutorial_utils.base.errors import ProfileError
from tutorial_utils.engine.options import Profile
from tutorial_utils.model import onnx_file


def content(onnx_path: Path, profiles: Sequence[Profile]) -> bytes | None:
    """Return an ONNX file with its inputs declared anew, or None where TensorRT takes it as it is.

    TensorRT takes an input without a shape for a scalar: it gets as many open dimensions as its profile has. TensorRT
    takes equal names of dimensions for equal sizes, but some exporters call each unknown one "?", others each first one
    "batch": a name that stands for several sizes in a profile is left out.

    Raises:
        ModelFileError: The weights aren't whole, or lie in a file outside of the model's folder.
        ProfileError: An input declares no shape, and no profile gives it one.
    """
    try:
        model = onnx.load(onnx_path, load_external_data=False)
    except Exception:  # protobuf and onnx raise several kinds; what is wrong, TensorRT's parser says
        return None
    onnx_file.require_weights(model, onnx_path)
    inputs = onnx_file.inputs(model.graph)
    changed = False
    for value in inputs:
        tensor = value.type.tensor_type
        if value.type.HasField("tensor_type") and not tensor.HasField("shape"):
            given = dict(profiles[0].ranges).get(value.name) if profiles else None
            if given is None:
                raise ProfileError(
                    f"The model doesn't say how many dimensions its input {value.name} has, and no profile does.",
                    f"Pass profiles=[Profile.from_mapping({{{value.name!r}: (min_shape, opt_shape, max_shape)}})].",
                )
            tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in given.opt)
            changed = True
    dims = {value.name: value.type.tensor_type.shape.dim for value in inputs}
    ambiguous = _ambiguous_names(dims, profiles)
    for dim in (dim for several in dims.values() for dim in several if dim.dim_param in ambiguous):
        dim.ClearField("dim_param")
        changed = True
    return model.SerializeToString() if changed else None


def _ambiguous_names(
    dims: dict[str, Sequence[onnx.TensorShapeProto.Dimension]], profiles: Sequence[Profile]
) -> set[str]:
    """Return the names of dimensions that have several sizes in the smallest, usual or largest shapes of a profile."""
    sizes = defaultdict(set)
    for index, profile in enumerate(profiles):
        for name, given in profile.ranges:
            for end, shape in enumerate((given.min, given.opt, given.max)):
                for dim, size in zip(dims.get(name, ()), shape, strict=False):
                    sizes[dim.dim_param, index, end].add(size)
    return {name for (name, *_), several in sizes.items() if name and len(several) > 1} | {"?"}
