"""What an engine is built for: input shapes, types, workspace, target GPUs."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tutorial_utils.base import shapes
from tutorial_utils.base.errors import BuildError, ProfileError

if TYPE_CHECKING:
    from tutorial_utils.engine.tensorrt import trt

Shape = tuple[int, ...]
Configure = Callable[["trt.INetworkDefinition", "trt.IBuilderConfig"], Any]  # the hook of a build


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that one input may have: smallest, the one to optimize for, largest. Every dimension counts.

    For an input that TensorRT reads as a shape, such as the sizes of a Resize, its values: they may be negative.
    """

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self):
        for field in ("min", "opt", "max"):  # lists are welcome, but only tuples can be hashed and compared
            given = getattr(self, field)
            try:
                object.__setattr__(self, field, tuple(array("q", given)))
            except (TypeError, ValueError, OverflowError) as error:  # "q": 64 bits, as TensorRT's sizes
                raise ProfileError(f"A profile holds {given!r}.", "Give tuples such as (1, 3, 64, 64).") from error
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ProfileError(
                f"The shapes of a profile differ in rank: min {self.min}, opt {self.opt}, max {self.max}.",
                "Give all three the rank of the model's input.",
            )
        if not shapes.in_order(self.min, self.opt, self.max):
            raise ProfileError(
                f"A profile needs min <= opt <= max in every dimension, not min {self.min}, opt {self.opt}, "
                f"max {self.max}.",
                "Order the three shapes.",
            )


@dataclass(frozen=True)
class Profile:
    """An optimization profile: one shape range for every dynamic input, by input name.

    An input that TensorRT reads as a shape while it computes other shapes also needs a range of its values::

        Profile.of(x=(min_shape, opt_shape, max_shape)).with_values({"sizes": (min_values, opt_values, max_values)})
    """

    ranges: tuple[tuple[str, ShapeRange], ...]
    values: tuple[tuple[str, ShapeRange], ...] = ()

    def __post_init__(self):
        form = "Make it of names and three shapes each: Profile.of(x=(min_shape, opt_shape, max_shape))."
        try:
            pairs = [(name, given) for name, given in (*self.ranges, *self.values)]
        except (TypeError, ValueError) as error:
            raise ProfileError(f"A profile was made of {self.ranges!r} and {self.values!r}.", form) from error
        for name, given in pairs:
            if not isinstance(name, str) or not isinstance(given, ShapeRange):
                raise ProfileError(f"A profile has {given!r} for {name!r}.", form)
        for name, given in self.ranges:
            if min(given.min, default=0) < 0:  # 0 is a size: a cache of keys and values begins empty
                raise ProfileError(f"The profile of {name} begins at {given.min}.", "Give sizes of 0 or more.")

    @classmethod
    def of(cls, **inputs: tuple[Shape, Shape, Shape] | ShapeRange) -> "Profile":
        """Make a profile from keyword arguments: ``Profile.of(x=(min_shape, opt_shape, max_shape))``."""
        return cls.from_mapping(inputs)

    @classmethod
    def from_mapping(cls, inputs: Mapping[str, tuple[Shape, Shape, Shape] | ShapeRange]) -> "Profile":
        """Make a profile from a mapping, for input names that are not Python names."""
        return cls(_ranges(inputs))

    def with_values(self, inputs: Mapping[str, tuple[Shape, Shape, Shape] | ShapeRange]) -> "Profile":
        """Return the profile with the smallest, usual and largest values of inputs that are shapes, by input name."""
        return replace(self, values=_ranges(inputs))

    @classmethod
    def batch(cls, name: str, sample: Shape, *, opt: int, max: int, min: int = 1) -> "Profile":
        """Make a profile for one input whose first dimension is the batch: ``Profile.batch("x", (3, 32, 32), ...)``."""
        if not isinstance(sample, Iterable):
            raise ProfileError(f"The sample has the shape {sample!r}.", "Give a tuple without the batch: (3, 32, 32).")
        return cls.from_mapping({name: ((min, *sample), (opt, *sample), (max, *sample))})

    def __getitem__(self, name: str) -> ShapeRange:
        return dict(self.ranges)[name]


def _ranges(inputs: Mapping[str, tuple[Shape, Shape, Shape] | ShapeRange]) -> tuple[tuple[str, ShapeRange], ...]:
    if not isinstance(inputs, Mapping):
        raise ProfileError(f"A profile was asked for {inputs!r}.", 'Give shapes by input name: {"x": (min, opt, max)}.')
    ranges = {}
    for name, given in inputs.items():
        try:
            ranges[name] = given if isinstance(given, ShapeRange) else ShapeRange(*given)
        except TypeError as error:
            raise ProfileError(
                f"The profile of {name} is {given!r}.", "Give three shapes: the smallest, the best, the largest."
            ) from error
    return tuple(sorted(ranges.items(), key=lambda pair: str(pair[0])))


@dataclass(frozen=True)
class BuildOptions:
    """Options of an engine build. Equal options and an equal model give the same cached engine.

    Networks are strongly typed: the types of the ONNX file are those of the engine (see `model`). Data-centre TensorRT
    up to 10 can also choose types by itself, among those that flags allow::

        BuildOptions(strongly_typed=False, flags=("fp16",))

    Attributes:
        profiles: One or more optimization profiles; none for a model whose shapes are all static.
        workspace_bytes: Upper limit of the scratch memory that a layer may use; None for TensorRT's default, which is
            all of the GPU's memory.
        compute_capabilities: Target GPUs such as ``("8.6", "8.9")`` (TensorRT-RTX only). Empty: TensorRT builds
            for the GPU of this machine, TensorRT-RTX for those of its choice (without a GPU, 7.5 isn't among them:
            an FP32 model builds that 7.5 refuses).
        strongly_typed: Whether the ONNX file decides on the types. TensorRT 11 and TensorRT-RTX know nothing else.
        flags: Builder flags to set: names of `trt.BuilderFlag` in any case, such as ``("fp16", "refit")``.
        without_flags: Builder flags to clear. Of those that TensorRT sets by itself, ``"tf32"`` changes results.
        optimization_level: How long TensorRT searches, 0 to 5; None for its default, 3 (data-centre TensorRT only).
        hardware_compatible: Whether the engine also runs on other GPUs from Ampere on (data-centre TensorRT only).

    Raises:
        BuildError: An option is of another type, the workspace not a positive number of bytes, the level not one of
            0 to 5, or a flag is set and cleared. What the TensorRT at hand doesn't have, the build refuses.
    """

    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    strongly_typed: bool = True
    flags: tuple[str, ...] = ()
    without_flags: tuple[str, ...] = ()
    optimization_level: int | None = None
    hardware_compatible: bool = False

    def __post_init__(self):
        self._require_types()
        if self.workspace_bytes is not None and not 1 <= self.workspace_bytes < 2**63:
            raise BuildError(
                f"workspace_bytes is {self.workspace_bytes}.", "Give a positive number of bytes, or None for no limit."
            )
        targets = self.compute_capabilities
        profiles = (self.profiles,) if isinstance(self.profiles, Profile) else tuple(self.profiles)
        object.__setattr__(self, "profiles", profiles)
        object.__setattr__(self, "compute_capabilities", (targets,) if isinstance(targets, str) else tuple(targets))
        for field in ("flags", "without_flags"):  # in one order and case: they belong to the key of the cache
            given = getattr(self, field)
            names = (given,) if isinstance(given, str) else given
            object.__setattr__(self, field, tuple(sorted({name.lower() for name in names})))
        if both := set(self.flags) & set(self.without_flags):
            raise BuildError(f"The flag {', '.join(sorted(both))} is to be set and cleared.", "Name it once.")
        if self.optimization_level not in (None, *range(6)):
            raise BuildError(f"The optimization level is {self.optimization_level!r}.", "Give one of 0 to 5, or None.")

    def _require_types(self) -> None:
        """Refuse what TensorRT takes for something else, as True for a level of 1, or refuses late and in C++ terms."""
        for field in ("strongly_typed", "hardware_compatible"):
            if not isinstance(getattr(self, field), bool):
                raise BuildError(f"{field} is {getattr(self, field)!r}.", "Give True or False.")
        for field in ("workspace_bytes", "optimization_level"):
            if type(getattr(self, field)) not in (int, type(None)):
                raise BuildError(f"{field} is {getattr(self, field)!r}.", "Give an int, or None.")
        for field in ("profiles", "compute_capabilities", "flags", "without_flags"):
            kind, given = Profile if field == "profiles" else str, getattr(self, field)
            several = isinstance(given, list | tuple | set) and all(isinstance(one, kind) for one in given)
            if not (several or isinstance(given, kind)):
                raise BuildError(f"{field} is {given!r}.", f"Give a tuple of {kind.__name__}.")
