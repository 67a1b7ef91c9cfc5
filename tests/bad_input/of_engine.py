"""Bad input to profiles, options, builds and the engine cache."""

import json

import blake3
from bad_input.table import At, changed, external, full_disk, one_node, rows, with_node, with_weight

from tutorial_utils.base.errors import (
    BuildError,
    CacheError,
    ModelFileError,
    PlanError,
    PrecisionError,
    ProfileError,
    TargetError,
    UnsupportedOperatorError,
)
from tutorial_utils.engine import BuildOptions, Profile, build, plan_header
from tutorial_utils.engine.calibrators import EntropyCalibrator

BATCHES = Profile.batch("x", (3, 32, 32), opt=2, max=4)
NAN, ONE = float("nan"), (1,)


def good_build(at: At):
    return build(at.tiny, cache_folder=at.given / "engines")


def built(at: At, content, options: BuildOptions | None = None, **how):
    path = at.write("a.onnx", content)
    return build(path, options or BuildOptions([BATCHES]), cache_folder=at.out, **how)


def optioned(**options):
    return lambda at: build(at.model, BuildOptions(**{"profiles": [BATCHES], **options}), use_cache=False)


def no_room(at: At):
    path = at.tiny
    with full_disk():
        return build(path, cache_folder=at.given / "engines")


THREE = "(three|Three) shapes"
PROFILES = rows(
    lambda at: Profile.of(x=((1, 3), (2, 3), (4, 3))),
    ("profile of numbers", lambda at: Profile.of(x=(1, 2, 3)), ProfileError, "holds 1", "Give tuples"),
    ("profile of words", lambda at: Profile.of(x=("a", "b", "c")), ProfileError, "holds 'a'", "Give tuples"),
    ("profile of bytes", lambda at: Profile.of(x=(b"ab", b"ab", b"ab")), ProfileError, "holds b'ab'", "Give tuples"),
    ("profile of fractions", lambda at: Profile.of(x=((1.5,), (2,), (3,))),
     ProfileError, r"holds \(1\.5,\)", "Give tuples"),
    ("profile of NaN", lambda at: Profile.of(x=((NAN,),) * 3), ProfileError, r"holds \(nan,\)", "Give tuples"),
    ("profile of None", lambda at: Profile.of(x=None), ProfileError, "profile of x is None", THREE),
    ("profile of two shapes", lambda at: Profile.of(x=(ONE, ONE)), ProfileError, "profile of x is", THREE),
    ("profile of 2^70", lambda at: Profile.of(x=((2**70,),) * 3),
     ProfileError, "holds .1180591620717411303424", "Give tuples"),
    ("profile of ranks", lambda at: Profile.of(x=((1, 2), ONE, ONE)),
     ProfileError, "differ in rank", "Give all three the rank"),
    ("profile backwards", lambda at: Profile.of(x=((3,), (2,), ONE)),
     ProfileError, "min <= opt <= max", "Order the three"),
    ("profile of less than nothing", lambda at: Profile.of(x=((-1,), ONE, ONE)),
     ProfileError, "x begins at", "0 or more"),
    ("profiles in a list", lambda at: Profile.from_mapping([1]), ProfileError, r"asked for \[1\]", "by input name"),
    ("profile of a number", lambda at: Profile.from_mapping({1: (ONE,) * 3}),
     ProfileError, "for 1", "names and three shapes"),
    ("ranges that are none", lambda at: Profile((("x", 5),)), ProfileError, "5 for 'x'", "names and three shapes"),
    ("ranges of another form", lambda at: Profile(5), ProfileError, "made of 5", "names and three shapes"),
    ("sample of None", lambda at: Profile.batch("x", None, opt=1, max=1),
     ProfileError, "shape None", "without the batch"),
)  # fmt: skip

OPTIONS = rows(
    lambda at: BuildOptions(profiles=[BATCHES]),
    ("workspace of less than nothing", lambda at: BuildOptions(workspace_bytes=-1),
     BuildError, "workspace_bytes is -1", "positive number"),
    ("workspace of 2^80", lambda at: BuildOptions(workspace_bytes=2**80),
     BuildError, "workspace_bytes is 12089", "positive number"),
    ("workspace in words", lambda at: BuildOptions(workspace_bytes="1 GB"),
     BuildError, "workspace_bytes is '1 GB'", "an int"),
    ("level 9", lambda at: BuildOptions(optimization_level=9), BuildError, "level is 9", "0 to 5"),
    ("flags of a number", lambda at: BuildOptions(flags=5), BuildError, "flags is 5", "tuple of str"),
    ("flag set and cleared", lambda at: BuildOptions(flags="tf32", without_flags="TF32"),
     BuildError, "tf32 is to be set and cleared", "Name it once"),
    ("target as a number", lambda at: BuildOptions(compute_capabilities=8.6),
     BuildError, "compute_capabilities is 8.6", "tuple of str"),
    ("profiles of text", lambda at: BuildOptions(profiles="x"), BuildError, "profiles is 'x'", "tuple of Profile"),
    ("truth as a number", lambda at: BuildOptions(strongly_typed=1),
     BuildError, "strongly_typed is 1", "True or False"),
)  # fmt: skip

FITS = "name that the ONNX file uses"
BUILDS = rows(
    good_build,
    ("no profile", lambda at: build(at.model, use_cache=False),
     ProfileError, "x has the dynamic shape", r"Profile\.of"),
    ("profile of another input", optioned(profiles=[Profile.batch("z", (3, 32, 32), opt=1, max=2)]),
     ProfileError, "ranges for z, but the dynamic inputs are x", FITS),
    ("profile of another size", optioned(profiles=[Profile.batch("x", (3, 31, 32), opt=1, max=2)]),
     ProfileError, r"doesn't fit the input x", "Only the dimensions of -1"),
    ("values of no shape", optioned(profiles=[BATCHES.with_values({"x": (ONE, ONE, ONE)})]),
     ProfileError, "gives 1 of x", "with_values"),
    ("target 9.9", optioned(compute_capabilities="9.9"), TargetError, "compute capability 9.9", "Choose from .*8.6"),
    ("target that is a command", optioned(compute_capabilities="8.6;true"),
     TargetError, "8.6;true", "Choose from .*8.6"),
    ("unknown flag", optioned(flags="nonsense"), BuildError, "no builder flag nonsense", "Choose from"),
    ("weak flag", optioned(flags="fp16"), PrecisionError, "no builder flag fp16", "half_precision"),
    ("workspace of a byte", optioned(workspace_bytes=1), BuildError, "workspace limit", "Raise workspace_bytes"),
    ("options of a dictionary", lambda at: build(at.model, {"flags": ()}),
     BuildError, "options are {", r"BuildOptions\("),
    ("hook that is none", lambda at: build(at.model, configure="refit"),
     BuildError, "configure is 'refit'", "Give a function"),
    ("build: missing", lambda at: build(at.given / "no.onnx"), ModelFileError, "There is no model", "Check the path"),
    ("build: folder", lambda at: build(at.given), ModelFileError, "is a folder", "Name the .onnx file"),
    ("build: pipe", lambda at: build(at.pipe("a.onnx")),
     ModelFileError, "is a pipe or a device", "Name the .onnx file"),
    ("build: 5 GB of zeros", lambda at: build(at.sparse("a.onnx", 5 << 30)),
     ModelFileError, "such a file ends at", "save_as_external_data=True"),
    ("build: empty", lambda at: built(at, b""), ModelFileError, "a.onnx is empty", "Export it again"),
    ("build: garbage", lambda at: built(at, b"not a model"),
     ModelFileError, "parser refuses a.onnx", "Export the model again"),
    ("build: weights on a device", lambda at: built(at, external("/dev/zero")),
     ModelFileError, "'/dev/zero', outside of its own", "Export the model again"),
    ("build: the same, uncached", lambda at: built(at, external("/dev/zero"), use_cache=False),
     ModelFileError, "'/dev/zero', outside of its own", "Export the model again"),
    ("build: weights in a pipe", lambda at: (at.pipe("w.bin"), built(at, external("w.bin"))),
     ModelFileError, "no ordinary file", "Export the model again"),
    ("build: weight too short", lambda at: built(at, with_weight(raw_data=b"123")),
     ModelFileError, "w0 .* is damaged: it has 3 bytes", "Export the model again"),
    ("build: no opset", lambda at: built(at, changed(lambda model: model.ClearField("opset_import"))),
     ModelFileError, "of which opset", "Export it again"),
    ("build: unknown operator",
     lambda at: built(at, with_node(op_type="Nonsense")),
     UnsupportedOperatorError, "can't convert Nonsense", "Replace the operator"),
)  # fmt: skip


def damaged_entry(text: str):
    """Damage the side-car of a cached engine, whose plan is then built again; it must be found no more."""

    def call(at: At):
        first = good_build(at)
        (sidecar,) = (at.given / "engines").glob("*.json")
        sidecar.write_text(text)
        again = good_build(at)
        assert not again.from_cache
        assert again.report.version == first.report.version
        assert good_build(at).from_cache
        raise CacheError("It was built again.", "None is needed.")

    return call


def forged(report) -> str:
    """Return a side-car whose checksum is right for any plan that is empty; no build makes one."""
    return json.dumps({"blake3": blake3.blake3(b"").update(json.dumps(report).encode()).hexdigest(), "report": report})


def side_car(name: str, text: str):
    return (f"side-car {name}", damaged_entry(text), CacheError, "built again", "None")


OTHER_FOLDER = "write access or name another folder"
CACHE = rows(
    good_build,
    ("cache folder is a file", lambda at: build(at.tiny, cache_folder=at.tiny),
     CacheError, "can't be written: Not a directory", OTHER_FOLDER),
    ("cache folder below a file", lambda at: build(at.tiny, cache_folder=at.tiny / "engines"),
     CacheError, "can't be written: Not a directory", OTHER_FOLDER),
    ("cache folder is a pipe", lambda at: build(at.tiny, cache_folder=at.pipe("pipe")),
     CacheError, "can't be written: Not a directory", OTHER_FOLDER),
    ("cache folder with a null byte", lambda at: build(at.tiny, cache_folder="a\0b"),
     CacheError, "can't be written: embedded null", OTHER_FOLDER),
    ("full disk", no_room, CacheError, "can't be written: File too large", "Free some space"),
    side_car("of nothing", ""),
    side_car("null", "null"),
    side_car("[]", "[]"),
    side_car("of numbers", '{"blake3": 5, "report": 7}'),
    side_car("without a report", '{"blake3": "x"}'),
    side_car("nested 100,000 times", "[" * 100_000),
    side_car("forged", forged({"layers": 5})),
    ("plan of nothing", lambda at: plan_header.read(b""),
     PlanError, "0 bytes, and a plan begins with", "must be built first"),
    ("plan of another kind", lambda at: plan_header.read(one_node().SerializeToString()),
     PlanError, "bytes begin with b", "must be built first"),
    ("calibrator", lambda at: EntropyCalibrator(at.model, None, 1),
     PrecisionError, "has no calibrators", "model.quantization"),
)  # fmt: skip

ROWS = [*PROFILES, *OPTIONS, *BUILDS, *CACHE]
