"""JupyterLab as `make lab` starts it, in a browser: lessons run, and what they show can be read in both themes."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from browser.looks import AXE, lightness
from nbformat.v4 import new_code_cell, new_notebook

from tutorial_utils.authoring import notebook_form
from tutorial_utils.base.paths import ROOT

LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
TO_RUN = ("00_", "01d_", "01e_")  # with training and a table, with figures, with exercises
EXERCISE = "01e.3"
MINUTES = 60_000  # in milliseconds

# A person scrolls; the tests look at all cells of a notebook at once.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}

OPEN = """path => {
    window.notebook = null;
    jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'}).then(panel => window.notebook = panel);
}"""
IS_OPEN = "() => notebook?.context.isReady && notebook.sessionContext.isReady && notebook.content.widgets.length"
CLOSE = """() => {
    notebook.sessionContext.shutdown();
    notebook.context.model.dirty = false;
    notebook.close();
}"""
IS_DONE = """() => {
    const code = notebook.content.widgets.filter(one => one.model.type === 'code');
    const cells = code.filter(one => one.model.sharedModel.source.trim());
    const failed = cells.some(one => one.model.outputs.toJSON().some(output => output.output_type === 'error'));
    const idle = notebook.sessionContext.session.kernel.status === 'idle';
    return idle && (failed || cells.every(one => one.model.executionCount));
}"""
OUTPUTS = """() => notebook.content.widgets.filter(one => one.model.type === 'code')
    .flatMap(one => one.model.outputs.toJSON().map(output => ({...output, source: one.model.sharedModel.source})))"""
OF_CLOSING = "Canceled future"  # what JupyterLab still asked of a kernel that a test ended
STDERR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'


def command_of_make_lab():
    """Return the options that `make lab` starts JupyterLab with."""
    command = ["make", "--no-print-directory", "-n", "lab"]  # within `make test-browser`, it prints folders otherwise
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return shlex.split(printed.replace("\\\n", " ").rpartition(" -m jupyterlab ")[2])


def notebooks(folder):
    """Copy what the lessons need, without outputs: what a test finds, it has run."""
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for path in folder.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    netron = with_netron()
    if netron:
        nbformat.write(netron, folder / "netron.ipynb")
    bar = "import time\nfrom tutorial_utils.base import progress"
    loop = "for _ in progress.bar(range(400), description='Training'):\n    time.sleep(0.01)"
    cells = [new_code_cell(bar), new_code_cell(loop)]
    nbformat.write(notebook_form.canonical(new_notebook(cells=cells)), folder / "progress.ipynb")


def with_netron():
    """Return the lesson that offers Netron below a cell, up to that cell, as who takes the offer runs it; else None."""
    for name in LESSONS:
        notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and "# netron.widget(" in cell.source:
                notebook.cells = notebook.cells[: index + 1]
                cell.source = cell.source.replace("# netron.widget(", "netron.widget(").replace("netron.stop(", "# ")
                return notebook
    return None


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab at a free port, with nothing of the user's: its address and its token."""
    folder = tmp_path_factory.mktemp("lab")
    notebooks(folder / "course" / "notebooks")
    own = {
        **{f"JUPYTER_{name}_DIR": folder / name.lower() for name in ("RUNTIME", "CONFIG", "DATA")},
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "IPYTHONDIR": folder / "ipython",
        "TUTORIAL_UTILS_CACHE": ROOT / "build" / "cache",  # as `make lab` has it: a model is trained once
    }
    for name, values in SETTINGS.items():
        path = own["JUPYTERLAB_SETTINGS_DIR"] / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--expose-app-in-browser"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOG_minloglevel": "2",
        **{k: str(v) for k, v in own.items()},
    }
    for name in ("TUTORIAL_UTILS_PROGRESS", "OMP_NUM_THREADS"):  # of the second, Paddle warns on stderr
        environment.pop(name, None)
    said = folder / "server.log"
    with said.open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *command_of_make_lab(), *options],
            cwd=folder / "course",
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield _address(server, own["JUPYTER_RUNTIME_DIR"], said)
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


def _address(server, runtime, said):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in runtime.glob("jpserver-*.json"):
            found = json.loads(file.read_text())
            try:
                urllib.request.urlopen(f"{found['url']}api?token={found['token']}")
                return found
            except OSError:
                pass
        assert server.poll() is None, said.read_text()
        time.sleep(0.2)
    raise TimeoutError(said.read_text())


@pytest.fixture(scope="module")
def page(lab, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.complaints = []

    def complain(text):
        if OF_CLOSING not in text:
            page.complaints.append(text)

    page.on("console", lambda said: said.type == "error" and complain(said.text))
    page.on("pageerror", lambda error: complain(str(error)))
    page.goto(f"{lab['url']}lab/tree/notebooks/{LESSONS[0]}?token={lab['token']}")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length", timeout=MINUTES)
    yield page
    context.close()


@pytest.fixture
def opened(page):
    """Return how to open a notebook; it is closed, and its kernel ended, after the test."""

    def open_one(name):
        page.evaluate(OPEN, f"notebooks/{name}")
        return page.wait_for_function(IS_OPEN, timeout=MINUTES).json_value()

    yield open_one
    page.evaluate(CLOSE)


def run_all(page, minutes=10):
    """Choose Run All Cells from the menu, wait for the end, and return the outputs."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(IS_DONE, timeout=minutes * MINUTES, polling=500)
    return page.evaluate(OUTPUTS)


def use_theme(page, name):
    page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", f"JupyterLab {name}")
    page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=str(name == "Light").lower())


def once_light(figure, seconds=15):
    """Return None once the picture's rim is light; if that never happens, the last screenshot.

    On a busy machine Chromium may show a picture later than it says that a theme is on.
    """
    deadline = time.monotonic() + seconds
    figure.evaluate("image => image.decode()")
    while lightness(seen := figure.screenshot(), rim=6) <= 0.75:
        if time.monotonic() > deadline:
            return seen
        time.sleep(0.2)
    return None


def unreadable(page, within):
    """Return what axe-core finds too pale in the part of the notebook that this selects."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("within => axe.run({include: [within]}, {runOnly: ['color-contrast']})", within)
    return [node["html"][:120] for fault in found["violations"] for node in fault["nodes"]]


def test_server_listens_to_this_machine_alone_and_asks_for_its_token(lab, page):
    assert lab["hostname"] in ("localhost", "127.0.0.1")
    assert len(lab["token"]) >= 32
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{lab['url']}api/contents")


def test_first_lesson_opens_by_itself(page):
    page.locator(".jp-NotebookPanel:visible h1").first.wait_for()


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_opens(page, opened, name):
    assert opened(name) == len(nbformat.read(ROOT / "notebooks" / name, as_version=4).cells)
    title = page.locator(".jp-NotebookPanel:visible h1").first
    title.wait_for()
    assert title.inner_text().strip("¶")
    assert not page.locator(".jp-Dialog, .Toastify__toast").count()  # no question lies over the lesson
    assert page.complaints == []


@pytest.mark.parametrize("start", TO_RUN)
def test_lesson_runs_and_can_be_read_in_both_themes(page, opened, screenshots, start):
    name = next(name for name in LESSONS if name.startswith(start))
    opened(name)
    outputs = run_all(page)
    errors = [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert errors == []
    assert page.locator(f".jp-NotebookPanel:visible {STDERR}").count() == 0
    for theme in ("Light", "Dark"):
        use_theme(page, theme)
        for number, figure in enumerate(page.locator(".jp-NotebookPanel:visible .jp-Cell img").all()):
            seen = once_light(figure)
            if seen is not None:
                (screenshots / f"lab-{start}{theme.lower()}-figure-{number}.png").write_bytes(seen)
                pytest.fail(f"figure {number} of {name} has a dark rim in the {theme} theme: see its screenshot")
        for kind in ("RenderedHTML", "RenderedMarkdown", "RenderedText"):
            if page.locator(f".jp-NotebookPanel:visible .jp-{kind}").count():
                assert unreadable(page, f".jp-NotebookPanel:not(.lm-mod-hidden) .jp-{kind}") == []
        page.screenshot(path=screenshots / f"lab-{start}{theme.lower()}.png")
    use_theme(page, "Light")
    assert page.complaints == []


def test_progress_bar_is_seen_while_it_runs_and_leaves_nothing(page, opened, screenshots):
    opened("progress.ipynb")
    bar = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output").filter(
        has_text=re.compile(r"Training: +\d+%")
    )
    for theme in ("Light", "Dark"):
        use_theme(page, theme)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        bar.wait_for(timeout=MINUTES)
        page.screenshot(path=screenshots / f"lab-progress-{theme.lower()}.png")
        assert unreadable(page, ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output") == []
        page.wait_for_function(IS_DONE, timeout=MINUTES, polling=200)
        assert page.locator(f".jp-NotebookPanel:visible {STDERR}").count() == 0
        assert "".join(output.get("text", "") for output in page.evaluate(OUTPUTS)).strip() == ""
    use_theme(page, "Light")


def test_exercise_says_what_is_wrong_and_turns_green(page, opened, screenshots):
    name = next(name for name in LESSONS if name.startswith(TO_RUN[-1]))
    solutions = nbformat.read(ROOT / "notebooks" / "solutions" / name, as_version=4).cells
    check = next(index for index, cell in enumerate(solutions) if cell.source.find(f'check("{EXERCISE}"') >= 0)
    solved = next(cell for cell in reversed(solutions[:check]) if "solution" in cell.metadata.get("tags", []))
    opened(name)
    run_all(page)
    wrong = f"{solved.source.partition('# solution')[0]}return []"
    for answer, said, colour in (
        (wrong, "not yet right", "rgb(207, 34, 46)"),
        (solved.source, "right", "rgb(26, 127, 55)"),
    ):
        result = answered(page, solved.source.partition("(")[0], answer)
        assert result.inner_text().startswith(f"Exercise {EXERCISE}: {said}.")
        assert len(result.inner_text()) > 60  # it says why
        assert result.evaluate("one => getComputedStyle(one).borderLeftColor") == colour
        result.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / f"lab-exercise-{said.replace(' ', '-')}.png")


def answered(page, start, answer):
    """Type an answer over the cell of an exercise, run it and the check, and return the paragraph with the result."""
    visible = page.locator(".jp-NotebookPanel:visible")
    visible.locator(".jp-CodeCell").filter(has_text=start).first.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(answer)
    page.keyboard.press("Shift+Enter")
    check = visible.locator(".jp-CodeCell").filter(has_text=f'check("{EXERCISE}"')
    before = check.locator(".jp-OutputPrompt").inner_text()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(IS_DONE, timeout=MINUTES)
    check.locator(".jp-OutputPrompt").filter(has_not_text=before).wait_for()
    return check.locator(".jp-RenderedHTML p")


def test_netron_draws_the_model_in_its_frame(page, opened, screenshots):
    if with_netron() is None:
        pytest.skip("no lesson offers Netron below a cell")
    opened("netron.ipynb")
    assert [output for output in run_all(page) if output["output_type"] == "error"] == []
    frame = page.locator(".jp-NotebookPanel:visible iframe")
    frame.scroll_into_view_if_needed()
    inside = frame.content_frame
    inside.get_by_text("Accept").click(timeout=MINUTES)
    inside.locator("#target svg").get_by_text("Conv").first.wait_for(timeout=MINUTES)
    page.screenshot(path=screenshots / "lab-netron.png")
