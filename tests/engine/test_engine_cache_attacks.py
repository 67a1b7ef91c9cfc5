"""The engine cache under attack: changes, random damage, kills at random moments, eight at once, no room to write."""

import os
import random
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import onnx
import pytest
from small_models import options, residual_model

from tutorial_utils import engine
from tutorial_utils.base.errors import CacheError
from tutorial_utils.engine import BuildReport, Profile, build

ROOT = Path(__file__).parents[2]
DAMAGES, KILLS, PROCESSES = 200, 12, 8


@pytest.fixture
def model(tmp_path):
    """A model with its weights in a file beside it."""
    path = tmp_path / "model.onnx"
    onnx.save(residual_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def plan_bytes():
    return 1000


@pytest.fixture(autouse=True)
def builds(monkeypatch, plan_bytes):
    """Replace the builder by one whose plans are all different: the cache doesn't know what a plan holds."""
    made = []

    def fake_build(*_):
        made.append(random.Random(len(made)).randbytes(plan_bytes))
        return (
            made[-1],
            BuildReport("TensorRT-RTX", "1.7.1", plan_bytes=plan_bytes, warnings=(f"build {len(made)}",)),
            (),
        )

    monkeypatch.setattr(engine, "_build", fake_build)
    monkeypatch.setattr(engine, "_tensorrt_identity", lambda: "tensorrt_rtx 1.7.1.116")
    return made


# --- changes ---------------------------------------------------------------------------------------------------------


def other_weights(model, monkeypatch):
    onnx.save(residual_model(seed=1), model)  # with the weights inside
    return {}


def other_external_data(model, monkeypatch):
    weights = bytearray((model.parent / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (model.parent / "weights.bin").write_bytes(weights)
    return {}


def other_version(model, monkeypatch):
    monkeypatch.setattr(engine, "_tensorrt_identity", lambda: "tensorrt_rtx 1.7.1.117")
    return {}


def other_profile(model, monkeypatch):
    return {"profiles": [Profile.batch("x", (3, 32, 32), opt=8, max=17)]}


def other_option(model, monkeypatch):
    return {"workspace_bytes": 1 << 30}


def other_target(model, monkeypatch):
    return {"compute_capabilities": ["8.6"]}


CHANGES = [other_weights, other_external_data, other_version, other_profile, other_option, other_target]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_build_gives_a_new_engine_beside_the_old_one(change, model, folder, monkeypatch):
    first = build(model, options(), cache_folder=folder)
    before = {path: path.read_bytes() for path in (model, model.parent / "weights.bin")}
    with monkeypatch.context() as patch:
        changes = change(model, patch)
        second = build(model, options(**changes), cache_folder=folder)
    assert not second.from_cache
    assert second.plan != first.plan
    for path, content in before.items():
        path.write_bytes(content)
    again = build(model, options(), cache_folder=folder)
    assert (again.from_cache, again.plan) == (True, first.plan)


# --- damage ----------------------------------------------------------------------------------------------------------


def truncate(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def flip_a_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def delete(path, rng):
    path.unlink()


def test_random_damage_never_loads_a_wrong_plan(model, folder):
    rng, attacks = random.Random(0), Counter()
    for _ in range(DAMAGES):
        good = build(model, options(), cache_folder=folder)
        damage, ending = rng.choice([truncate, flip_a_bit, delete]), rng.choice(["plan", "json"])
        damage(next(folder.glob(f"*.{ending}")), rng)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = build(model, options(), cache_folder=folder)
        if found.from_cache:  # the damage must have meant nothing
            assert ending == "json"
            assert (found.plan, found.report) == (good.plan, good.report)
        else:
            assert found.plan != good.plan
            assert len(caught) == (0 if (damage, ending) == (delete, "json") else 1)
        attacks[damage.__name__, ending, found.from_cache] += 1
    assert attacks.total() == DAMAGES
    assert len({attack[:2] for attack in attacks}) == 6


# --- kills -----------------------------------------------------------------------------------------------------------

# Builds without end. Every byte of a plan is the number of its build, which its report says too.
ENDLESS = """
import itertools, sys
from small_models import options
from tutorial_utils import engine

model, folder = sys.argv[1:]
numbers = itertools.count(1)

def numbered_build(*_):
    number = next(numbers) % 256
    return bytes([number]) * 4_000_000, engine.BuildReport("TensorRT-RTX", "1.7.1", warnings=(str(number),)), ()

engine._build = numbered_build
engine._tensorrt_identity = lambda: "tensorrt_rtx 1.7.1.116"
print("ready", flush=True)
while True:
    engine.build(model, options(), cache_folder=folder, rebuild=True)
"""


def start(code, *arguments, **pipes):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, **pipes)


def test_builds_killed_at_random_moments_leave_a_whole_engine_or_none(model, folder, builds):
    rng = random.Random(0)
    for _ in range(KILLS):
        child = start(ENDLESS, model, folder, stdout=subprocess.PIPE)
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.communicate(timeout=60)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing of what a kill leaves looks damaged
            found = build(model, options(), cache_folder=folder)
        if found.from_cache and found.plan not in builds:
            (number,) = set(found.plan)
            assert found.report.warnings == (str(number),)
            assert len(found.plan) == 4_000_000


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
print("ready", flush=True)
sys.stdin.read()
found = engine.build(model, options(), cache_folder=folder)
print(found.plan.decode(), found.from_cache)
"""


def test_eight_processes_at_once_build_once(model, folder, tmp_path):
    children = [
        start(ONE_OF_SEVERAL, model, folder, tmp_path / "log", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.close()  # all of them wait for this
    answers = [child.stdout.read() for child in children]
    assert [child.wait(timeout=60) for child in children] == [0] * PROCESSES
    assert sorted(answers) == ["plan False\n"] + ["plan True\n"] * (PROCESSES - 1)
    assert (tmp_path / "log").read_text() == "built\n"


# --- no room ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan_bytes", [200_000])
def test_file_system_that_takes_no_more(model, folder):
    """The kernel itself cuts the plan short: writing beyond the limit fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CacheError, match=r"can't be written: File too large.*use_cache=False"):
            build(model, options(), cache_folder=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    assert not build(model, options(), cache_folder=folder).from_cache
    assert build(model, options(), cache_folder=folder).from_cache


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(model, folder, builds):
    """What it holds is still found; what is new can't be stored, which is said before it is built."""
    first = build(model, options(), cache_folder=folder)
    folder.chmod(0o555)
    try:
        assert build(model, options(), cache_folder=folder).plan == first.plan
        with pytest.raises(CacheError, match=r"can't be written: Permission denied.*use_cache=False"):
            build(model, options(workspace_bytes=1 << 30), cache_folder=folder)
    finally:
        folder.chmod(0o755)
    assert len(builds) == 1
