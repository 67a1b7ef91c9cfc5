import json
import os
import re
import shutil
import subprocess
import sys
import types

import pytest
from test_cli import ROOT, WORKING

from tutorial_utils.base import flavour, paths
from tutorial_utils.base.gpu import Capability, Gpu
from tutorial_utils.base.lesson_names import part_of
from tutorial_utils.base.requirements import TEXT_DETECTION
from tutorial_utils.lessons import lesson02
from tutorial_utils.machine import checks, doctor, library_checks
from tutorial_utils.machine.capabilities import Capabilities, Needs
from tutorial_utils.machine.checks import Check, Fix
from tutorial_utils.machine.child import Answer
from tutorial_utils.machine.doctor import Diagnosis, examine, needs_of
from tutorial_utils.machine.facts import Library

NO_GPU = (None, Capability("NVIDIA GPU", False, "No NVIDIA driver found.", "Look elsewhere.", harmless=True))
PYCUDA = {"pycuda": "__version__ = '2026.1'", "pycuda/driver": "def init(): raise RuntimeError('a broken CUDA')"}
PADDLE_GPU = {
    "paddle": "__version__ = '3.3.1'\ndef is_compiled_with_cuda(): return True",
    "paddle/inference": "def get_trt_compile_version(): return (10, 5, 0)",
    "paddle/version": "full_version = '3.3.1'\ndef cuda(): return '12.6'\ndef cuda_archs(): return ['80', '90']",
}


def gpu(compute_capability):
    return Gpu("Test GPU", compute_capability, "13.0", 80 * 2**30), Capability("NVIDIA GPU", True, "A GPU.", "")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a machine of light stand-ins: a GPU or none, modules by their source, and packages by their name."""
    for name in (library_checks.POLYGRAPHY_SWITCH, "LD_LIBRARY_PATH", "TUTORIAL_UTILS_TENSORRT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))

    def make(found_gpu=NO_GPU, packages=(), **modules):
        for name, source in (WORKING | modules).items():
            folder = tmp_path / "modules" / name
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text(source)
        for name in packages:
            folder = tmp_path / "modules" / f"{name.replace('-', '_')}-1.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        monkeypatch.syspath_prepend(tmp_path / "modules")
        monkeypatch.setattr(doctor, "find_gpu", lambda: found_gpu)

    return make


def row(diagnosis: Diagnosis, name: str) -> Check:
    (found,) = [check for check in diagnosis.checks if check.name == name]
    return found


def names(diagnosis: Diagnosis) -> list[str]:
    return [check.name for check in diagnosis.checks]


# The whole


def run_bare(tmp_path, *arguments):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    command = [tmp_path / "bare" / "bin" / "python", "-m", "tutorial_utils", "doctor", *arguments]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)


def test_bare_interpreter(tmp_path):
    result = run_bare(tmp_path, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert found["ready"] is False
    status = {check["name"]: check["status"] for check in found["checks"]}
    assert status["Python"] == "yes"
    works = {"Python", "Disk", "Memory", "NVIDIA GPU"}
    assert {name for name in status if status[name] == "yes"} <= works
    (packages,) = [check for check in found["checks"] if check["name"] == "Packages"]
    assert "platformdirs" in packages["reason"]
    assert re.search("make (course|doctor)", packages["remedy"])  # the latter where `make` was run already
    assert {lesson["runs"] for lesson in found["lessons"]} <= {"no"}


def test_bare_interpreter_is_told_what_comes_first(tmp_path):
    result = run_bare(tmp_path, "--fix", "--yes")
    assert (result.returncode, result.stderr) == (1, "")
    assert re.search(r"Not ready\. Mend this first: Packages\. .*make (course|doctor)", result.stdout)


def test_default_environment(machine):
    machine()
    found = examine()
    assert found.first_to_mend is None
    assert names(found) == [
        "Python",
        "Packages",
        "Disk",
        "Memory",
        "NVIDIA GPU",
        "Choice of TensorRT",
        "TensorRT builds engines",
        "TensorRT builds INT8",
        "Paddle on the CPU",
        "Paddle to ONNX",
        "Paddle on the GPU",
        "Paddle-TensorRT",
        "PyCUDA",
        "TensorRT runs engines",
        "ONNX Runtime on the CPU",
        "ONNX Runtime on the GPU",
        "Polygraphy",
        "Polygraphy's TensorRT",
        "Text detection network",
        "Jupyter kernel",
        "Cache",
    ]
    assert all(check.remedy for check in found.checks if check.status != "yes")
    assert "Ready:" in str(found)


def test_every_module_broken_at_once(machine):
    everything = [name for name in {**WORKING, **PYCUDA, "tensorrt": "", "jupyter_client": ""} if "/" not in name]
    machine(packages=["paddlepaddle-gpu"], **dict.fromkeys(everything, "import os; os.abort()"))
    found = examine()
    assert found.first_to_mend.name == "TensorRT builds engines"
    assert "the process ended without an answer (SIGABRT)" in row(found, "Jupyter kernel").reason


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("tensorrt_rtx", "import os; os.abort()", "TensorRT builds engines"),
        ("paddle", "raise OSError('libgomp.so.1')", "Paddle on the CPU"),
        ("onnxruntime", "raise SystemExit(3)", "ONNX Runtime on the CPU"),
    ],
)
def test_broken_library_is_the_first_to_mend(machine, module, source, name):
    machine(**{module: source})
    first = examine().first_to_mend
    assert first.name == name
    assert "python -m pip install --force-reinstall" in first.remedy


def test_check_that_raises_is_a_row(machine, monkeypatch):
    machine()
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: 1 / 0)
    disk = row(examine(), "Disk")
    assert disk.status == "warning"
    assert "ZeroDivisionError" in disk.reason


# TensorRT against the GPU


@pytest.mark.parametrize(
    ("found", "variable", "reason"),
    [
        (NO_GPU, None, "TensorRT-RTX (module tensorrt_rtx). Without a GPU, only this one builds engines."),
        (gpu("8.6"), None, "TensorRT-RTX (module tensorrt_rtx). NVIDIA lists it for compute capability 8.6."),
        (gpu("9.0"), None, "TensorRT (module tensorrt). NVIDIA doesn't list TensorRT-RTX for compute capability 9.0 "),
        (gpu("9.0"), "tensorrt_rtx", "TensorRT-RTX (module tensorrt_rtx). TUTORIAL_UTILS_TENSORRT asks for it."),
    ],
)
def test_which_tensorrt_is_chosen_and_why(found, variable, reason, machine, monkeypatch):
    machine(found, tensorrt="__version__ = '10.6.0'")
    monkeypatch.setattr(flavour, "find_gpu", lambda: found)
    if variable:
        monkeypatch.setenv("TUTORIAL_UTILS_TENSORRT", variable)
    diagnosis = examine()
    assert row(diagnosis, "Choice of TensorRT").reason.startswith(reason)
    built_by = row(diagnosis, "TensorRT builds engines").reason
    assert built_by.startswith(reason.partition(" (")[0] + " 1")


def test_context_that_cannot_be_retained(machine):
    machine(gpu("8.9"), **PYCUDA)
    found = examine()
    assert row(found, "PyCUDA").status == "yes"
    assert row(found, "CUDA context of PyCUDA").status == "no"
    assert "RuntimeError: a broken CUDA" in row(found, "CUDA context of PyCUDA").reason
    assert row(found, "TensorRT runs engines").status == "no"
    assert found.lessons[0].runs == "in part"


def test_context_that_is_retained(machine):
    context = "types.SimpleNamespace(push=lambda: None, pop=lambda: None)"
    device = f"types.SimpleNamespace(retain_primary_context=lambda: {context})"
    driver = f"import types\ndef init(): pass\ndef Device(number): return {device}"
    machine(gpu("8.9"), **PYCUDA | {"pycuda/driver": driver})
    found = examine()
    assert row(found, "CUDA context of PyCUDA").status == "yes"
    assert row(found, "TensorRT runs engines").status == "yes"
    assert found.lessons[0].runs == "live"


# Paddle's TensorRT


@pytest.fixture
def tensorrt_libraries(tmp_path):
    """Make libraries with the versioned names that pip installs: empty ones that only know their version."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")

    def make(version=100500):
        folder = tmp_path / "modules" / "tensorrt_libs"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        source = folder / "version.c"
        source.write_text(f"int getInferLibVersion(void) {{ return {version}; }}")
        for name in ("nvinfer", "nvinfer_plugin"):
            subprocess.run([compiler, "-shared", "-o", folder / f"lib{name}.so.10", source], check=True)
        return folder

    return make


def on_paddle_gpu(machine):
    machine(gpu("8.6"), ["paddlepaddle-gpu"], **PADDLE_GPU, tensorrt="__version__ = '10.5.0'")


def test_libraries_matter_only_to_gpu_builds_of_paddle(machine):
    machine(gpu("8.6"))
    assert not [name for name in names(examine()) if name.endswith("for Paddle")]


def test_libraries_that_are_nowhere(machine):
    on_paddle_gpu(machine)
    found = row(examine(), "TensorRT libraries for Paddle")
    assert found.status == "no"
    assert "libnvinfer.so: cannot open shared object file" in found.reason
    assert "environment.yml" in found.remedy
    assert found.fix is None


def test_libraries_that_are_broken(machine, tmp_path, monkeypatch):
    on_paddle_gpu(machine)
    for name in ("libnvinfer.so", "libnvinfer_plugin.so"):
        (tmp_path / name).write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert "file too short" in row(examine(), "TensorRT libraries for Paddle").reason


def test_fix_makes_paddle_find_the_libraries_of_pip(machine, tmp_path, monkeypatch, tensorrt_libraries, capsys):
    folder = tensorrt_libraries()
    on_paddle_gpu(machine)
    (folder / "libnvinfer.so").symlink_to("libnvinfer.so.8")  # broken: of an older version
    kernel = tmp_path / "prefix" / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["python"], "env": {"OTHER": "1"}}')
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")

    before = examine()
    assert row(before, "TensorRT libraries for Paddle").status == "no"
    assert "doctor --fix" in row(before, "TensorRT libraries for Paddle").remedy
    assert doctor.mend(before, accept_all=True) == 1
    assert "done" in capsys.readouterr().out

    after = examine()
    assert row(after, "TensorRT libraries for Paddle").status == "yes"
    assert "by Jupyter kernels" in row(after, "TensorRT libraries for Paddle").reason
    assert row(after, "TensorRT version for Paddle").reason.endswith("TensorRT 10.5.0 and opens 10.5.0.")
    assert os.readlink(folder / "libnvinfer.so") == "libnvinfer.so.10"
    assert json.loads(kernel.read_text())["env"] == {"OTHER": "1", "LD_LIBRARY_PATH": f"{folder}:${{LD_LIBRARY_PATH}}"}
    assert library_checks.loader_environment()["LD_LIBRARY_PATH"] == f"{folder}:/elsewhere"


@pytest.mark.parametrize(
    ("compiled", "number", "status", "reason"),
    [
        ([10, 5, 0], 100500, "yes", "opens 10.5.0"),
        ([10, 5, 0], 100400, "warning", "An older one may crash"),
        ([10, 5, 0], 101303, "warning", "pd_op.stack"),
        ([10, 5, 0], 110400, "no", "opens 11.4.0. The major"),
        ([8, 6, 1], 8601, "yes", "opens 8.6.1"),
        ([10, 5, 0], 8601, "no", "opens 8.6.1. The major"),
    ],
)
def test_compiled_against_opened_tensorrt(compiled, number, status, reason):
    paddle = Library("3.3.1", details={"tensorrt": compiled})
    found = library_checks.paddle_tensorrt_version(paddle, Answer({"errors": [], "version": number}))
    assert found.status == status
    assert reason in found.reason


# System, Polygraphy, kernel, cache


@pytest.mark.parametrize(("version", "status"), [((3, 9), "no"), ((3, 10), "yes"), ((3, 12), "yes"), ((3, 13), "no")])
def test_python_version(monkeypatch, version, status):
    monkeypatch.setattr(checks.sys, "version_info", (*version, 0))
    assert checks.python().status == status


def test_one_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(checks, "is_installed", lambda module: module != "jupyterlab")
    found = checks.packages({"paddle": Library("3.3.1")})
    assert found.remedy == 'Run `python -m pip install "jupyterlab>=4.2,<5"`.'


def test_packages_that_nobody_lists(monkeypatch):
    """A copy of the package's folder alone: no clone around it, and no metadata."""
    monkeypatch.setattr(checks.requirements, "declared", dict)
    found = checks.packages({})
    assert (found.status, found.needed) == ("no", True)
    assert "run `make course`" in found.remedy


@pytest.mark.parametrize(("gib", "complete", "status"), [(3, True, "yes"), (3, False, "warning"), (0, True, "warning")])
def test_disk(monkeypatch, gib, complete, status):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=gib * 2**30))
    assert checks.disk(complete).status == status


@pytest.mark.parametrize("own", [True, False], ids=["its own Python", "another Python"])
def test_packages_where_make_has_set_up_an_environment(tmp_path, monkeypatch, own):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "installed").touch()
    monkeypatch.setattr(checks.paths, "ROOT", tmp_path)
    monkeypatch.setattr(checks.sys, "prefix", str(tmp_path / ".venv") if own else "/usr")
    monkeypatch.setattr(checks, "is_installed", lambda module: False)
    found = checks.packages({})
    assert ("make doctor" in found.remedy) == (not own)


LIMITS = {
    "v2": ({"self/cgroup": "0::/a/b\n"}, "a", ("memory.max", "memory.current", "inactive_file 1073741824")),
    "v2 in a container": ({"self/cgroup": "0::/\n"}, "", ("memory.max", "memory.current", "inactive_file 1073741824")),
    "v1": (
        {"self/cgroup": "9:name=systemd:/\n4:memory:/a/b\n0::/\n"},
        "memory/a",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file 1073741824"),
    ),
}


@pytest.mark.parametrize(("proc", "group", "names"), LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize(("limit", "gib"), [("6442450944", 5), ("max", 20), ("9223372036854771712", 20)])
def test_memory_below_the_limit_of_a_control_group(tmp_path, proc, group, names, limit, gib):
    """6 GiB, of which 2 GiB are used and 1 GiB of that is the contents of files."""
    files = {f"proc/{name}": text for name, text in proc.items()}
    files["proc/meminfo"] = f"MemTotal: 99 kB\nMemAvailable:   {20 * 2**20} kB\n"
    texts = (limit, str(2 * 2**30), f"anon 1\n{names[2]}\n")
    files |= {f"groups/{group}/{name}": text for name, text in zip((*names[:2], "memory.stat"), texts, strict=True)}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert checks._available_memory(tmp_path / "proc", tmp_path / "groups") == gib * 2**30


@pytest.mark.parametrize(("gib", "status"), [(1, "warning"), (2.4, "warning"), (2.5, "yes")])
def test_memory(monkeypatch, gib, status):
    monkeypatch.setattr(checks, "_available_memory", lambda: gib * 2**30)
    assert checks.memory().status == status


@pytest.mark.parametrize(
    ("switch", "installed", "status", "remedy"),
    [
        (None, ["tensorrt_rtx"], "warning", "export POLYGRAPHY_USE_TENSORRT_RTX=1"),
        ("0", ["tensorrt_rtx"], "warning", "export POLYGRAPHY_USE_TENSORRT_RTX=1"),
        ("1", ["tensorrt_rtx"], "yes", ""),
        (None, ["tensorrt_rtx", "tensorrt"], "yes", ""),
        ("1", ["tensorrt"], "warning", "unset POLYGRAPHY_USE_TENSORRT_RTX"),
    ],
)
def test_switch_of_polygraphy(monkeypatch, switch, installed, status, remedy):
    monkeypatch.delenv(library_checks.POLYGRAPHY_SWITCH, raising=False)
    if switch:
        monkeypatch.setenv(library_checks.POLYGRAPHY_SWITCH, switch)
    found = library_checks.polygraphy_switch({name: Library("1") for name in ["polygraphy", *installed]})
    assert found.status == status
    assert remedy in found.remedy


def test_kernel_of_another_interpreter(machine, tmp_path, monkeypatch):
    machine()
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["/usr/local/other/python3"], "display_name": "", "language": ""}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    found = examine()
    assert found.first_to_mend.name == "Jupyter kernel"
    assert "/usr/local/other/python3" in found.first_to_mend.reason
    assert found.first_to_mend.fix


def test_fix_installs_the_kernel_of_this_interpreter(tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    calls = []
    monkeypatch.setattr(library_checks.subprocess, "run", lambda command, **named: calls.append(command))
    lost = library_checks.kernel(Answer({}, "NoSuchKernel: python3"))
    assert lost.status == "no"
    assert doctor.mend(Diagnosis([lost], [], {}), accept_all=True) == 1
    assert calls == [[sys.executable, "-m", "ipykernel", "install", "--sys-prefix"]]


def test_a_question_that_takes_too_long_changes_nothing():
    pytest.importorskip("ipykernel")
    late = Answer({}, "no answer within 60 s", late=True)
    for found in (library_checks.kernel(late), library_checks.paddle_libraries(late)):
        assert (found.status, found.fix) == ("no", None)
        assert "no answer within 60 s" in found.reason
        assert found.remedy.startswith("Run this again")


def test_cache_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "new" / "cache"))
    assert (checks.cache().status, checks.cache().fix) == ("yes", None)
    assert not (tmp_path / "new").exists(), "looking must change nothing"


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "file"))
    found = checks.cache()
    assert (found.status, found.needed) == ("no", True)
    assert f"set {paths.CACHE_VARIABLE}" in found.remedy


# Asking before mending


@pytest.mark.parametrize(
    ("terminal", "answer", "made"), [(True, "y", 1), (True, "", 0), (True, "n", 0), (False, "y", 0)]
)
def test_nothing_is_mended_without_a_yes(monkeypatch, terminal, answer, made):
    applied = []
    check = Check("Thing", "no", "It is broken.", "Mend it.", fix=Fix("mend it", lambda: applied.append(1)))
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert doctor.mend(Diagnosis([check], [], {})) == made
    assert len(applied) == made


def test_fix_that_fails_is_told_and_the_next_is_tried(capsys):
    def fails():
        raise OSError("read-only file system")

    applied = []
    checks = [
        Check("One", "no", "", "", fix=Fix("a", fails)),
        Check("Two", "no", "", "", fix=Fix("b", lambda: applied.append(1))),
    ]
    assert doctor.mend(Diagnosis(checks, [], {}), accept_all=True) == 1
    assert "One: that failed: read-only file system" in capsys.readouterr().out


# The network of lesson 04


def test_missing_network_has_a_command_and_keeps_no_other_lesson_from_running(machine, monkeypatch):
    machine()
    monkeypatch.setattr(checks, "is_installed", lambda module: module != "rapidocr_onnxruntime")
    found = examine()
    network = row(found, "Text detection network")
    assert (network.status, network.needed) == ("no", False)
    assert network.remedy == f"Run `python -m pip install --no-deps {TEXT_DETECTION}`."
    assert found.first_to_mend is None


# The tables


def test_every_lesson_has_its_needs():
    fields = set(Capabilities.__dataclass_fields__)
    for path in doctor.notebooks():
        needs = needs_of(part_of(path))
        assert needs, path
        assert set(needs.live + needs.recorded) <= fields


def test_parts_of_a_lesson_have_needs_of_their_own(machine, monkeypatch, tmp_path):
    machine()
    needs = {"02a": Needs(live=("paddle",)), "02b": Needs(live=("paddle_tensorrt",))}
    monkeypatch.setattr(lesson02, "NEEDS", needs)
    for name in ("02a_inference.ipynb", "02b_tensorrt.ipynb", "02c_nothing_said.ipynb", "99a_no_room.ipynb", "x.ipynb"):
        (tmp_path / name).touch()
    found = [path.name for path in doctor.notebooks(tmp_path)]
    assert found == ["02a_inference.ipynb", "02b_tensorrt.ipynb", "02c_nothing_said.ipynb", "99a_no_room.ipynb"]
    monkeypatch.setattr(doctor, "notebooks", lambda: sorted(tmp_path.glob("*.ipynb")))
    assert [(lesson.lesson, lesson.runs) for lesson in examine().lessons] == [
        ("02a_inference", "live"),
        ("02b_tensorrt", "no"),
    ]


def test_lessons_that_are_not_there_are_not_mentioned(machine, monkeypatch, tmp_path):
    machine()
    (tmp_path / "02b_paddle.ipynb").touch()
    monkeypatch.setattr(doctor, "notebooks", lambda: [tmp_path / "02b_paddle.ipynb"])
    (lesson,) = examine().lessons
    assert (lesson.lesson, lesson.runs) == ("02b_paddle", "in part")
    assert "Paddle-TensorRT" in lesson.reason


def test_without_lessons_the_package_is_ready_and_not_the_lessons():
    """As from a wheel."""
    found = doctor.Diagnosis([checks.python()], [], {})
    assert "Ready: the package works here. The lessons are in a clone" in str(found)
