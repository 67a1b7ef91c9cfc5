"""Which cells of a notebook call a library that the course teaches: read from syntax trees, nothing is executed.

A call counts where what is called begins with a name of a library: ``trt.Builder(log)``, and after
``builder = trt.Builder(log)`` also ``builder.create_network()``. Names are followed through assignments, ``with`` and
loops. What a function takes, and what is assigned to a name or to an attribute such as ``self.context``, is known where
it is annotated; other calls may be missed, and none is counted by mistake.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator

from IPython.core.inputtransformer2 import TransformerManager

LIBRARIES = {
    "cuda", "netron", "onnx", "onnxruntime", "paddle", "paddle2onnx", "polygraphy", "pycuda", "tensorrt",
    "tensorrt_rtx",
}  # fmt: skip
_NAMES = LIBRARIES | {"trt"}  # the libraries, however a lesson came by them: trt is also what `flavour.load()` gives
# Methods whose results are arrays, numbers, text or bytes: what is called on those is no call of the library.
_GIVE_DATA = {"copy_to_cpu", "item", "numpy", "run", "SerializeToString", "to_array", "tobytes", "tolist"}
_TEXT = {name for name in dir(str) if not name.startswith("_")}  # methods of names, as in node.name.startswith("p2o")


def library_calls(cells: Iterable[str]) -> list[int]:
    """Return for each code cell of a notebook, in order, how many call expressions of the libraries it holds.

    A cell that isn't Python, such as one that begins with ``%%bash``, has none.
    """
    known, counts = set(_NAMES), []
    for tree in map(_parsed, cells):
        bindings = list(_bindings(tree))
        imported = {name: package in LIBRARIES for name, package in bindings if isinstance(package, str)}
        known = _NAMES | {name for name in known | imported.keys() if imported.get(name, True)}
        for _ in bindings:  # walking isn't reading order: until nothing is added
            found = {name for name, value in bindings if isinstance(value, ast.expr) and _is_of(value, known)}
            if found <= known:
                break
            known |= found
        counts.append(sum(isinstance(node, ast.Call) and _is_call_of(node, known) for node in ast.walk(tree)))
    return counts


def _parsed(source: str) -> ast.Module:
    """Return a cell's syntax tree, with IPython's own syntax (``!ls``, ``%matplotlib``) turned into Python."""
    first, _, rest = source.strip().partition("\n")
    if first.startswith(("%%capture", "%%time")):
        source = rest
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _bindings(tree: ast.Module) -> Iterator[tuple[str, ast.expr | str]]:
    """Give each name that is bound, with the value that it is bound to, or the package that it is imported from."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.asname or _root(alias.name), _root(alias.name)) for alias in names)
            case ast.ImportFrom(module=module, names=names):
                yield from ((alias.asname or alias.name, _root(module or "")) for alias in names)
            case ast.arg(arg=name, annotation=annotation) if annotation:
                yield name, annotation
            case ast.AnnAssign(target=target, annotation=annotation):
                yield ast.unparse(target), annotation
            case ast.Assign(targets=targets, value=value):
                yield from ((name, value) for target in targets for name in _targets(target))
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                yield from ((name, value) for name in _targets(target))
            case ast.withitem(optional_vars=target, context_expr=value) if target:
                yield from ((name, value) for name in _targets(target))


def _targets(target: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _root(dotted: str) -> str:
    return dotted.partition(".")[0]


def _is_of(value: ast.expr, known: set[str]) -> bool:
    """Say whether an expression begins with a name of a library, and gives no plain data."""
    match value:
        case ast.Name(id=name):
            return name in known
        case ast.Attribute(attr=name) if ast.unparse(value) in known:  # self.context, where that was annotated
            return True
        case ast.Attribute(value=owner, attr=name):
            return (name == "__init__" or not name.startswith("__")) and _is_of(owner, known)
        case ast.Subscript(value=owner) | ast.Await(value=owner):
            return _is_of(owner, known)
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name not in known and not hasattr(builtins, name):
            return _is_of(first, known)  # checked(builder.create_network()) gives what it is given
        case ast.Call(func=called):
            return _is_of(called, known) and getattr(called, "attr", "") not in _GIVE_DATA | _TEXT
    return False


def _is_call_of(node: ast.Call, known: set[str]) -> bool:
    return _is_of(node.func, known) and getattr(node.func, "attr", "") not in _TEXT
