"""The walls of the house: which room of the package may import which. Imports inside functions count, too."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

from tutorial_utils.base.lesson_names import part_of

PACKAGE = Path(__file__).parents[1] / "tutorial_utils"
ROAD = ("model", "engine", "runners", "measure")
LESSONS = sorted(path.name for path in (PACKAGE / "lessons").glob("lesson[0-9][0-9]"))


def imports(path: Path, for_types: bool = True) -> set[tuple[str, ...]]:
    """Return what a module imports of the package, as parts of a dotted name without the package's own.

    What stands below ``if TYPE_CHECKING:`` counts unless ``for_types`` is False.
    """
    found = set()
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full, so that this test can read them"
            found |= {(*(node.module or "").split("."), alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
    return {name[1:] for name in found if name[0] == PACKAGE.name and len(name) > 1}


def arrows(room: str) -> dict[str, set[tuple[str, ...]]]:
    """Return what each module of a room imports, by its path."""
    paths = (PACKAGE / room).rglob("*.py") if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    return {str(path.relative_to(PACKAGE)): imports(path) for path in paths}


def offenders(room: str, forbidden) -> list[str]:
    return [
        f"{path} imports {'.'.join(name)}" for path, names in arrows(room).items() for name in names if forbidden(name)
    ]


def rooms() -> list[str]:
    return sorted(path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())


def test_the_scan_sees_imports():
    assert ("engine", "options", "BuildOptions") in arrows("engine")["engine/builder.py"]
    assert any(name[0] == "measure" for names in arrows("lessons/lesson01").values() for name in names)


def test_base_imports_no_room():
    assert offenders("base", lambda name: name[0] != "base") == []


@pytest.mark.parametrize("room", [room for room in rooms() if room != "lessons"])
def test_nothing_outside_lessons_imports_a_lesson(room):
    """The exercise checker and the doctor find lessons by name."""
    assert offenders(room, lambda name: name[0] == "lessons") == []


def test_the_exercise_checker_imports_no_lesson():
    for module in ("lessons/__init__", "lessons/checking"):
        assert offenders(module, lambda name: name[0] == "lessons" and name[1] in LESSONS) == []


@pytest.mark.parametrize("lesson", LESSONS)
def test_no_lesson_imports_another(lesson):
    assert (
        offenders(f"lessons/{lesson}", lambda name: name[0] == "lessons" and name[1] in LESSONS and name[1] != lesson)
        == []
    )


NOTEBOOKS = [
    path for path in PACKAGE.parent.glob("notebooks/**/[0-9]*.ipynb") if ".ipynb_checkpoints" not in path.parts
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_notebook_imports_another_lesson(path):
    rooms = set(re.findall(r"tutorial_utils\.lessons\.(lesson\d\d)", path.read_text(encoding="utf-8")))
    assert rooms <= {f"lesson{part_of(path)[:2]}"}


@pytest.mark.parametrize("position", range(len(ROAD)), ids=ROAD)
def test_the_road_runs_one_way(position):
    later = ROAD[position + 1 :]
    assert offenders(ROAD[position], lambda name: name[0] in (*later, "inspection", "debug", "authoring")) == []


@pytest.mark.parametrize("room", ROAD)
def test_the_order_of_reading_names_each_module_of_the_road_once(room):
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    order = guide[guide.index("Four rooms of `tutorial_utils` are the road.") : guide.index("| Place | Holds |")]
    modules = [path.stem for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"]
    assert {module: order.count(f"`{module}`") for module in modules} == dict.fromkeys(modules, 1)


INNER = ("converting", "exporting")


@pytest.mark.parametrize("room", INNER)
def test_an_inner_room_of_the_model_is_entered_from_the_model_alone(room):
    """Everybody else calls `export`, `half_precision` and `quantization`."""
    for outside in set(rooms()) - {"model"}:
        assert offenders(outside, lambda name: name[:2] == ("model", room)) == []
    assert any(name[:2] == ("model", room) for names in arrows("model").values() for name in names)


@pytest.mark.parametrize("room", INNER)
def test_the_inner_rooms_of_the_model_do_not_know_each_other(room):
    assert offenders(f"model/{room}", lambda name: name[:2] in {("model", one) for one in INNER if one != room}) == []


def test_only_lessons_read_the_matrix():
    """It is measured by several stacks and read by several lessons; nothing else stands on it."""
    for outside in set(rooms()) - {"measure", "lessons"}:
        assert offenders(outside, lambda name: name[:2] == ("measure", "resnet50_matrix")) == []
    for module in (PACKAGE / "measure").glob("*.py"):
        assert "import resnet50_matrix" not in module.read_text(encoding="utf-8")


@pytest.mark.parametrize("room", ["model", "engine", "runners"])
def test_the_road_up_to_the_runners_asks_no_machine(room):
    """What a GPU is called, the driver says: see `base`. Only a measurement is stamped with the whole machine."""
    assert offenders(room, lambda name: name[0] == "machine") == []


def test_no_module_imports_itself_over_others():
    """Imports inside functions count: where one is needed to break a circle, the rooms are cut in the wrong place.

    On the road those for types count, too: it is read in one direction.
    """
    paths = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
    modules = {tuple(part for part in parts if part != "__init__"): path for parts, path in paths.items()}
    arrows: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for module, path in modules.items():
        for name in imports(path, for_types=module != () and module[0] in ROAD):
            while name not in modules:
                name = name[:-1]
            arrows.setdefault(module, set()).add(name)
    for module, targets in arrows.items():
        targets.discard(module)
    assert ("engine", "options") in arrows["engine", "builder"]
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle
