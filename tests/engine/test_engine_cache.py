import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import filelock
import onnx
import pytest
from small_models import options, residual_model

from tutorial_utils import engine
from tutorial_utils.base import paths
from tutorial_utils.base.errors import BackendUnavailableError, CacheError
from tutorial_utils.engine import BuildReport, Profile, build
from tutorial_utils.engine.cache import cache_key

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual_model(), path)
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch):
    """Replace the builder by one that only counts: what the cache does has nothing to do with what a plan holds."""
    made = []

    def fake_build(onnx_path, *_):
        made.append(onnx_path)
        plan = f"plan {len(made)}".encode() * 100
        return plan, BuildReport("TensorRT-RTX", "1.7.1", plan_bytes=len(plan), warnings=(f"build {len(made)}",)), ()

    monkeypatch.setattr(engine, "_build", fake_build)
    return made


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def cached_files(folder):
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".lock")


# --- found again -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_warnings")
def test_second_build_comes_from_the_cache(model, folder):
    pytest.importorskip("tensorrt_rtx")
    first = build(model, options(), cache_folder=folder)
    second = build(model, options(), cache_folder=folder)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert second.plan == first.plan
    assert second.report == first.report
    assert second.report.layers
    assert cached_files(folder) == [".json", ".plan"]


def test_equal_model_is_found_under_another_path(model, folder, builds, tmp_path):
    build(model, options(), cache_folder=folder)
    (tmp_path / "elsewhere").mkdir()
    copy = model.rename(tmp_path / "elsewhere" / model.name)
    assert build(copy, options(), cache_folder=folder).from_cache


def test_default_folder_is_the_packages_cache(model, builds):
    assert build(model, options()).cache_folder == paths.cache_dir("engines")
    assert build(model, options()).from_cache


def test_rebuild_replaces_the_entry(model, folder, builds):
    first = build(model, options(), cache_folder=folder)
    again = build(model, options(), cache_folder=folder, rebuild=True)
    assert not again.from_cache
    assert again.plan != first.plan
    assert build(model, options(), cache_folder=folder).plan == again.plan
    assert len(builds) == 2


def test_a_build_with_a_hook_leaves_the_cache_alone(model, folder, builds):
    """Nobody can tell what a hook does: it must not get the plain build's engine, nor the plain build the hook's."""

    def hook(network, config):
        pass

    def build_with_hook(**named):
        return build(model, options(), cache_folder=folder, configure=hook, **named)

    first = build_with_hook()
    assert not folder.exists()
    plain = build(model, options(), cache_folder=folder)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    others = [build_with_hook(), build_with_hook(rebuild=True), first.rebuilt()]
    assert len({one.plan for one in (first, plain, *others)}) == len(builds) == 5
    assert not any(one.from_cache or one.cache_folder for one in (first, *others))
    assert {path: path.read_bytes() for path in folder.iterdir()} == files
    assert build(model, options(), cache_folder=folder).plan == plain.plan


def test_engine_of_a_model_that_changed_during_the_build_is_not_cached(model, folder, builds, monkeypatch):
    before, count_build = model.read_bytes(), engine._build

    def build_while_somebody_exports(*arguments):
        onnx.save(residual_model(seed=1), model)
        return count_build(*arguments)

    monkeypatch.setattr(engine, "_build", build_while_somebody_exports)
    with pytest.warns(UserWarning, match="changed while its engine was built"):
        build(model, options(), cache_folder=folder)
    model.write_bytes(before)
    monkeypatch.setattr(engine, "_build", count_build)
    assert not build(model, options(), cache_folder=folder).from_cache


def test_without_cache_nothing_is_read_or_written(model, folder, builds):
    build(model, options(), cache_folder=folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    engine_ = build(model, options(), cache_folder=folder, use_cache=False)
    assert not engine_.from_cache
    assert len(builds) == 2
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("use_cache", [True, False])
def test_rebuilt_builds_again_with_the_same_choices(use_cache, model, folder, builds):
    first = build(model, options(), cache_folder=folder, use_cache=use_cache)
    again = first.rebuilt()
    assert len(builds) == 2
    assert not again.from_cache
    assert (again.onnx_path, again.options, again.cache_folder) == (first.onnx_path, first.options, first.cache_folder)
    if use_cache:
        assert build(model, options(), cache_folder=folder).plan == again.plan
    else:
        assert not folder.exists()


# --- the key ---------------------------------------------------------------------------------------------------------


def test_key_changes_with_everything_that_decides_about_a_plan(model, tmp_path):
    other_weights = tmp_path / "other.onnx"
    onnx.save(residual_model(seed=1), other_weights)
    cases = {
        "as it is": (model, options(), "tensorrt_rtx 1.7.1.116"),
        "weights": (other_weights, options(), "tensorrt_rtx 1.7.1.116"),
        "profile": (
            model,
            options(profiles=[Profile.batch("x", (3, 32, 32), opt=8, max=32)]),
            "tensorrt_rtx 1.7.1.116",
        ),
        "two profiles": (model, options(profiles=options().profiles * 2), "tensorrt_rtx 1.7.1.116"),
        "workspace": (model, options(workspace_bytes=1 << 30), "tensorrt_rtx 1.7.1.116"),
        "target": (model, options(compute_capabilities=["8.6"]), "tensorrt_rtx 1.7.1.116"),
        "two targets": (model, options(compute_capabilities=["8.6", "8.9"]), "tensorrt_rtx 1.7.1.116"),
        "version": (model, options(), "tensorrt_rtx 1.6.1.120"),
        "flavour": (model, options(), "tensorrt 10.5.0"),
    }
    keys = {name: cache_key(*case) for name, case in cases.items()}
    assert len(set(keys.values())) == len(cases), keys
    assert cache_key(*cases["as it is"]) == keys["as it is"]


def test_lists_and_tuples_give_the_same_key(model):
    shapes = ((1, 3, 32, 32), (8, 3, 32, 32), (16, 3, 32, 32))
    with_tuples = options(profiles=(Profile.of(x=shapes),), compute_capabilities=("8.6",))
    with_lists = options(profiles=[Profile.of(x=[list(shape) for shape in shapes])], compute_capabilities=["8.6"])
    assert cache_key(model, with_lists, "") == cache_key(model, with_tuples, "")


def test_key_changes_with_external_weights(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    content, before = path.read_bytes(), cache_key(path, options(), "")
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[100] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert path.read_bytes() == content
    assert cache_key(path, options(), "") != before


def test_mistyped_tensorrt_finds_no_engine_in_the_cache(model, folder, builds, monkeypatch):
    build(model, options(), cache_folder=folder)
    monkeypatch.setenv(engine.flavour.FLAVOUR_VARIABLE, "tensorrt-rtx")  # the package's name, not the module's
    with pytest.raises(BackendUnavailableError, match="which is no TensorRT"):
        build(model, options(), cache_folder=folder)
    assert len(builds) == 1


@pytest.mark.parametrize(("flavour", "gpu_counts"), [("tensorrt", True), ("tensorrt_rtx", False)])
def test_gpu_is_part_of_the_identity_where_the_plan_depends_on_it(flavour, gpu_counts, monkeypatch):
    class Gpu:
        name, compute_capability = "Some GPU", "8.9"

    monkeypatch.setattr(engine.flavour, "installed_flavour", lambda: flavour)
    monkeypatch.setattr(engine.flavour, "installed_version", lambda name: "10.5.0")
    monkeypatch.setattr(engine, "find_gpu", lambda: (Gpu, None))
    identity = engine._tensorrt_identity()
    assert identity.startswith(f"{flavour} 10.5.0")
    assert ("Some GPU 8.9" in identity) == gpu_counts


# --- damage ----------------------------------------------------------------------------------------------------------


def truncate(plan, sidecar):
    plan.write_bytes(plan.read_bytes()[:-1])


def empty(plan, sidecar):
    plan.write_bytes(b"")


def flip_a_bit(plan, sidecar):
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)


def delete_plan(plan, sidecar):
    plan.unlink()


def cut_sidecar(plan, sidecar):
    sidecar.write_text(sidecar.read_text()[:-20])


def sidecar_of_another_form(plan, sidecar):
    sidecar.write_text(json.dumps({"blake3": json.loads(sidecar.read_text())["blake3"], "report": {"a": 1}}))


def another_report(plan, sidecar):
    sidecar.write_text(sidecar.read_text().replace("build 1", "build 2"))


def sidecar_is_a_list(plan, sidecar):
    sidecar.write_text("[]")


def sidecar_is_binary(plan, sidecar):
    sidecar.write_bytes(b"\xff\xfe\x00")


DAMAGE = [truncate, empty, flip_a_bit, delete_plan, cut_sidecar, sidecar_of_another_form, another_report,
          sidecar_is_a_list, sidecar_is_binary]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_entry_is_built_again_with_one_warning(damage, model, folder, builds):
    build(model, options(), cache_folder=folder)
    (plan,), (sidecar,) = folder.glob("*.plan"), folder.glob("*.json")
    damage(plan, sidecar)
    with pytest.warns(UserWarning, match=r"model-\w+\.plan is damaged .*building it again") as caught:
        again = build(model, options(), cache_folder=folder)
    assert len(caught) == 1
    assert not again.from_cache
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = build(model, options(), cache_folder=folder)
    assert (found.from_cache, found.plan) == (True, again.plan)


@pytest.mark.usefixtures("no_warnings")
def test_plan_without_sidecar_is_no_entry(model, folder, builds):
    build(model, options(), cache_folder=folder)
    next(folder.glob("*.json")).unlink()
    assert not build(model, options(), cache_folder=folder).from_cache
    assert len(builds) == 2


# --- killed and failed builds ----------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
from pathlib import Path
from small_models import options
from tutorial_utils import engine

model, folder, moment = sys.argv[1:]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

if moment == "build step":
    from tutorial_utils.engine import builder
    builder.Monitor.step_complete = die
elif moment == "plan half written":
    write = Path.write_bytes
    Path.write_bytes = lambda path, content: (write(path, content[:100]), die())
else:
    replace, left = os.replace, [{"plan not renamed": 0, "side-car not renamed": 1}[moment]]
    def count_down(*paths):
        if left[0] == 0:
            die()
        left[0] -= 1
        replace(*paths)
    os.replace = count_down
engine.build(model, options(), cache_folder=folder, rebuild=True)
"""


def start(code, *arguments, **pipes):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, **pipes)


@pytest.mark.usefixtures("no_warnings")
@pytest.mark.parametrize("entry_before", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("moment", ["build step", "plan half written", "plan not renamed", "side-car not renamed"])
def test_killed_build_leaves_nothing_that_is_loaded(moment, entry_before, model, folder):
    pytest.importorskip("tensorrt_rtx")
    if entry_before:
        build(model, options(), cache_folder=folder)
    child = start(CHILD, model, folder, moment)
    assert child.wait(timeout=60) == -signal.SIGKILL
    found = build(model, options(), cache_folder=folder)
    # A build that dies before it writes leaves the older entry; one that dies while it writes leaves none.
    assert found.from_cache == (entry_before and moment == "build step")
    assert found.report.plan_bytes == len(found.plan)
    assert build(model, options(), cache_folder=folder).plan == found.plan


def test_failed_build_frees_the_lock_and_stores_nothing(model, folder, builds, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_build", lambda *_: (_ for _ in ()).throw(RuntimeError("no engine")))
        with pytest.raises(RuntimeError, match="no engine"):
            build(model, options(), cache_folder=folder)
    assert cached_files(folder) == []
    assert not build(model, options(), cache_folder=folder).from_cache


# --- eight at once ---------------------------------------------------------------------------------------------------

ONE_OF_SEVERAL = """
import sys, time
from small_models import options
from tutorial_utils import engine

model, folder, log = sys.argv[1:]

def slow_build(*_):
    with open(log, "a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    return b"plan", engine.BuildReport("TensorRT-RTX", "1.7.1"), ()

engine._build = slow_build
engine._tensorrt_identity = lambda: "tensorrt_rtx 1.7.1.116"
print("ready", flush=True)
sys.stdin.read()
found = engine.build(model, options(), cache_folder=folder)
print(found.plan.decode(), found.from_cache)
"""


def test_eight_processes_at_once_build_once(model, folder, tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [start(ONE_OF_SEVERAL, model, folder, tmp_path / "log", **pipes) for _ in range(8)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.close()  # all of them wait for this
    answers = [child.stdout.read() for child in children]
    assert [child.wait(timeout=60) for child in children] == [0] * 8
    assert sorted(answers) == ["plan False\n"] + ["plan True\n"] * 7
    assert (tmp_path / "log").read_text() == "built\n"


# --- a folder that can't be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc"])
def test_folder_that_cannot_be_made(place, model, tmp_path, builds):
    blocker = tmp_path / "blocker"
    blocker.write_text("in the way")
    folder = {"a file": blocker, "below a file": blocker / "engines", "/proc": Path("/proc/engines")}[place]
    with pytest.raises(CacheError, match=r"can't be written.*use_cache=False"):
        build(model, options(), cache_folder=folder)
    assert builds == [], "it should be said before minutes are spent on a build"


def test_engine_in_a_folder_that_cannot_be_written_is_used(model, folder, builds, monkeypatch):
    """As in a container whose models are mounted read-only: not even a lock can be made there."""
    build(model, options(), cache_folder=folder)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert build(model, options(), cache_folder=folder).from_cache
    assert len(builds) == 1
    with pytest.raises(CacheError, match="Read-only file system"):
        build(model, options(), cache_folder=folder, rebuild=True)


@pytest.mark.parametrize("method", ["write_bytes", "write_text"])
def test_full_disk(method, model, folder, builds, monkeypatch):
    """The disk fills up while the plan (bytes) or its side-car (text) is written."""
    whole = getattr(Path, method)

    def write_half(path, content, *args):
        whole(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, write_half)
        with pytest.raises(CacheError, match="No space left on device"):
            build(model, options(), cache_folder=folder)
    # A plan without its side-car counts as absent.
    assert cached_files(folder) == ([] if method == "write_bytes" else [".plan"])
    assert not build(model, options(), cache_folder=folder).from_cache
    assert cached_files(folder) == [".json", ".plan"]
