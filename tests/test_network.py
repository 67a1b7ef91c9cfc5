"""No word leaves the machine: the course's processes look up no name, and connect to nothing but this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import onnx
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from small_models import residual_model

from tutorial_utils.machine import child

ROOT = Path(__file__).parents[1]
VARIABLE = "ORT_DISABLE_TELEMETRY"
NOTEBOOKS = [
    pytest.param(path, id=f"{path.parent.name}/{path.stem}")
    for path in sorted((ROOT / "notebooks").glob("**/[0-9]*.ipynb"))
]
# What lessons do. ONNX Runtime 1.32 looks up a name some 10 s after it was imported, if it may.
CELLS = (
    "from tutorial_utils.debug import polygraphy_cli\nimport onnxruntime, time\nstarted = time.monotonic()",
    "session = onnxruntime.InferenceSession('model.onnx')\nsession.get_inputs()[0].name",
    "from tutorial_utils.model.quiet_paddle import paddle\nfloat(paddle.ones([2]).sum())",
    "polygraphy_cli.run('polygraphy run model.onnx --onnxrt --input-shapes x:[1,3,32,32]', '.').returncode",
    "time.sleep(max(0, 12 - (time.monotonic() - started)))",
)
PLANTED = {
    "a connection": "socket.create_connection(('192.0.2.1', 80), 0.1)",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "a connection by IPv6": "socket.create_connection(('2001:db8::1', 80), 0.1)",
    "a name": "socket.getaddrinfo('course.invalid', 80)",
}


def strangers(trace: str) -> set[str]:
    """Return what a trace of strace shows of other machines: calls with their address, and with that of a resolver.

    A name is looked up on port 53, or through the socket of a service of this machine that does it. That of nscd
    doesn't count: it is asked for users, too, and where it isn't there, the look-up goes on to port 53.
    """
    found = set()
    for call in re.findall(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*", trace):
        internet = re.search(r"sa_family=AF_INET6?\b", call)
        here = re.search(
            r'inet_addr\("127\.|inet_pton\(AF_INET6, "(::1|::ffff:127\.[\d.]+)"|inet_addr\("0\.0\.0\.0"', call
        )
        look_up = re.search(r"port=htons\(53\)|sun_path=\"[^\"]*(avahi|resolve)", call, re.IGNORECASE)
        if (internet and not here) or look_up:
            found.add(call[:200])
    return found


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Python under strace, with a new home and without any setting of ours: returns what left this machine."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (Debian, Ubuntu: strace)")
    folder = tmp_path_factory.mktemp("traced")
    (folder / "home").mkdir()
    onnx.save(residual_model(), folder / "model.onnx")
    command = [strace, "-f", "-qq", "--seccomp-bpf", "-e", "trace=network", "-e", "signal=none", "-o"]
    tried = subprocess.run([*command, folder / "trace", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"strace can't trace here: {tried.stderr.strip()}")
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "CI")}
    environment |= {"HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("XDG_CACHE_HOME", None)

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, folder / name, sys.executable, *arguments], cwd=folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def end(name: str, process: subprocess.Popen[str]) -> set[str]:
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return strangers((folder / name).read_text(errors="replace"))

    path = folder / "01_lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in CELLS]), path)
    lesson = start("lesson", "-m", "tutorial_utils.authoring.course", str(path))  # the other tests run while it waits
    yield SimpleNamespace(
        folder=folder,
        run=lambda *arguments: end("trace", start("trace", *arguments)),
        lesson=lambda: end("lesson", lesson),
    )
    if lesson.poll() is None:
        lesson.terminate()
        lesson.communicate()


@pytest.mark.parametrize("attempt", PLANTED.values(), ids=PLANTED)
def test_an_attempt_is_seen_though_it_is_swallowed_in_a_child(traced, attempt):
    code = f"import contextlib, socket\nwith contextlib.suppress(OSError):\n    {attempt}"
    assert traced.run("-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)")


def test_this_machine_is_no_stranger(traced):
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    assert traced.run("-c", code) == set()


def test_commands_ask_nobody(traced):
    commands = [["doctor"], ["record", "--list"], ["inspect", "model.onnx", "--json"]]
    code = f"""
from tutorial_utils.__main__ import main
for command in {commands}:
    status = main(command)
assert status == 0
"""
    assert traced.run("-c", code) == set()


def test_lessons_ask_nobody(traced):
    """A kernel with ONNX Runtime, Paddle and a child of Polygraphy, run as `make course` runs a lesson."""
    assert traced.lesson() == set()
    left = {path.name for path in (traced.folder / "home").rglob("*")}
    assert "Microsoft" not in left  # where ONNX Runtime would keep an identifier, and what it waits to send


# --- every way in ----------------------------------------------------------------------------------------------------


def setting(code: str, **environment: str) -> str:
    """Return what a fresh Python prints, in whose environment nothing is set but what is given."""
    base = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**base, "PYTHONPATH": str(ROOT), **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_package_switches_it_off_and_leaves_a_readers_own_setting():
    code = "import tutorial_utils, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert setting(code) == "1"
    assert setting(code, ORT_DISABLE_TELEMETRY="0") == "0"


def test_children_inherit_it():
    code = """
import os
from tutorial_utils.authoring import course
from tutorial_utils.base import child_process
from tutorial_utils.debug import polygraphy_cli
for environment in (course.kernel_environment(), child_process.environment(), polygraphy_cli._environment({})):
    print(environment["ORT_DISABLE_TELEMETRY"], end=" ")
"""
    assert setting(code) == "1 1 1"
    assert setting(code, ORT_DISABLE_TELEMETRY="0") == "0 0 0"


def test_the_doctors_child_knows_nothing_of_the_package_and_switches_it_off_too(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text(
        f"import os\n__version__ = os.environ.get({VARIABLE!r})\ndef get_available_providers(): return []"
    )
    monkeypatch.syspath_prepend(tmp_path)
    unset = {name: value for name, value in os.environ.items() if name != VARIABLE}
    assert child.ask("modules", "onnxruntime", environment=unset).values["onnxruntime"]["version"] == "1"


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_notebook_imports_the_package_before_onnx_runtime(path):
    """So that a kernel that nobody prepared, as in an editor, sends nothing either."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = re.findall(r"^\s*(?:from|import) (tutorial_utils|onnxruntime|polygraphy)", code, re.MULTILINE)
    assert not imports or imports[0] == "tutorial_utils"


def test_make_switches_off_onnx_runtime_and_jupyterlab():
    makefile = (ROOT / "Makefile").read_text()
    assert f"export {VARIABLE} ?= 1" in makefile
    options = makefile[makefile.index("NO_WORD := ") :].partition("\n\n")[0]
    for option in (
        "check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "news_url=None",
        "extension_manager=readonly",
        "app_settings_dir='$(CURDIR)/.jupyterlab'",
    ):
        assert f"--LabApp.{option}" in options
    assert "$(NO_WORD)" in makefile[makefile.index("lab: ") :].partition("\n\n")[0]


def test_jupyterlab_asks_no_question_about_news_however_it_is_started():
    settings = json.loads((ROOT / ".jupyterlab" / "overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:notification"] == {"checkForUpdates": False, "fetchNews": "false"}
    assert "jupyter lab --LabApp.app_settings_dir=.jupyterlab " in (ROOT / "README.md").read_text()
    assert "install -D .jupyterlab/overrides.json " in (ROOT / ".binder" / "postBuild").read_text()
