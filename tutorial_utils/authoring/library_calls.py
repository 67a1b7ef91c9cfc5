"""Which cells of a notebook call a library that the course teaches: read from syntax trees, nothing is executed.

A call counts where what is called came from a library: ``trt.Builder(log)``, and after it ``builder.create_network()``,
whatever the names are. Values are followed from cell to cell through assignments, containers, loops, ``with``, and the
functions and classes that the notebook defines. What other packages return is not followed, nor are arrays and strings
that a library returns: after ``logits = session.run(None, feeds)[0]``, ``logits.argmax()`` is NumPy's.
"""

import ast
import contextlib
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

LIBRARIES = (
    "cuda",
    "onnx",
    "onnxruntime",
    "paddle",
    "paddle2onnx",
    "polygraphy",
    "pycuda",
    "tensorrt",
    "tensorrt_rtx",
)
# These names are the libraries, however a lesson came by them: `trt` is what `flavour.load()` returns.
_NAMES = (*LIBRARIES, "trt")

_ABOUT = ("__version__", "__name__", "__file__", "__doc__", "__module__", "__qualname__")  # attributes that are text
_STRING_METHODS = frozenset(name for name in dir(str) if not name.startswith("_"))  # of `node.name.startswith("p2o")`
_GIVES_DATA = (  # calls of a library that return arrays, numbers or bytes
    *("copy_to_cpu", "infer", "item", "numpy", "pagelocked_empty", "pagelocked_zeros", "run", "SerializeToString"),
    *("to_array", "tobytes", "tolist"),
)
_PASS_ON = ("deepcopy", "iter", "list", "partial", "reversed", "set", "sorted", "tuple")  # their argument's content
_TIMING_MAGICS = ("%%capture", "%%prun", "%%time", "%%timeit")  # what follows is Python
_MOST_CALLS = 12  # of the notebook's functions, one within the other

# What is known of a value: None (not a library's), LIBRARY (a module, a class, a function), OBJECT, or a class below.
LIBRARY, OBJECT = "library", "object"


@dataclass(frozen=True)
class _Items:
    """A list, set or iterator: what is known of its elements."""

    item: Any


@dataclass(frozen=True)
class _Mapping:
    """A dictionary: what is known of its values."""

    value: Any


@dataclass(frozen=True)
class _Tuple:
    items: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class _Function:
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: ChainMap


@dataclass(frozen=True, eq=False)
class _Class:
    attributes: dict[str, Any]
    of_library: bool  # it has a base class of a library

    def instance(self) -> "_Instance":
        return _Instance(self.attributes, self.of_library)


@dataclass(frozen=True, eq=False)
class _Instance:
    attributes: dict[str, Any] = field(default_factory=dict)  # shared by all instances of a class
    of_library: bool = False

    def get(self, name: str) -> Any:
        return self.attributes.get(name, OBJECT if self.of_library else None)


def library_calls(cells: Iterable[str]) -> list[int]:
    """Return for each code cell of a notebook, in order, how many call expressions of the libraries it holds.

    A cell that isn't Python, such as one that begins with ``%%bash``, has none.
    """
    reader = _Reader()
    trees = [_parsed(source) for source in cells]
    for tree in trees:
        reader.statements(tree.body)
    return [sum(node in reader.found for node in ast.walk(tree)) for tree in trees]


def _parsed(source: str) -> ast.Module:
    """Return a cell's syntax tree, with IPython's own syntax (``!ls``, ``%matplotlib``) turned into Python."""
    first, _, rest = source.strip().partition("\n")
    if first.startswith(_TIMING_MAGICS):
        source = rest
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _element(value: Any) -> Any:
    """Return what is known of the elements that iterating over a value gives."""
    match value:
        case _Items(item):
            return item
        case _Tuple(items):
            return _first(items)
    return OBJECT if value in (LIBRARY, OBJECT) else None  # a dictionary gives its keys


class _Reader:
    """Reads statements in order, and collects in `found` the calls of a library."""

    def __init__(self) -> None:
        self.found: set[ast.AST] = set()
        self.scope = ChainMap(dict.fromkeys(_NAMES, LIBRARY))
        self.branches = 0  # within how many blocks that may be left out the statement stands
        self.returned: list[Any] = []
        self.running: list[ast.AST] = []

    # --- statements ---------------------------------------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    root = alias.name.partition(".")[0]
                    self.bind_name(alias.asname or root, LIBRARY if root in LIBRARIES else None)
            case ast.ImportFrom(module=module, names=names):
                known = LIBRARY if (module or "").partition(".")[0] in LIBRARIES else None
                for alias in names:
                    self.bind_name(alias.asname or alias.name, known)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.expressions(node.decorator_list)
                function = _Function(node, self.scope)
                self.bind_name(node.name, function)
                self.run(function, (), {})
            case ast.ClassDef():
                self.bind_name(node.name, self.class_of(node))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.assign(target, value)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                known = self.value(value) if value else None
                self.bind(target, known if known is not None else self.annotated(annotation))
            case ast.Return(value=value):
                self.returned.append(self.value(value) if value else None)
            case ast.For(target=target, iter=iterated) | ast.AsyncFor(target=target, iter=iterated):
                self.bind(target, _element(self.value(iterated)))
                self.branch(node.body, node.orelse)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    opened = self.value(item.context_expr)
                    if item.optional_vars:
                        self.bind(item.optional_vars, opened)
                self.statements(body)
            case ast.If(test=test) | ast.While(test=test):
                self.value(test)
                self.branch(node.body, node.orelse)
            case ast.Try(body=body, handlers=handlers):
                self.branch(body, *(handler.body for handler in handlers), node.orelse, node.finalbody)
            case ast.Match(subject=subject, cases=cases):
                self.value(subject)
                self.branch(*(case.body for case in cases))
            case _:
                self.expressions(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))

    def branch(self, *bodies: Sequence[ast.stmt]) -> None:
        self.branches += 1
        for body in bodies:
            self.statements(body)
        self.branches -= 1

    # --- names --------------------------------------------------------------------------------------------------------

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        pairs = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
        if pairs and not any(isinstance(one, ast.Starred) for one in (*target.elts, *value.elts)):
            known = [self.value(one) for one in value.elts]  # all of them first: `a, b = b, a`
            for one, its in zip(target.elts, known, strict=True):
                self.bind(one, its)
        else:
            self.bind(target, self.value(value))

    def bind(self, target: ast.expr, known: Any) -> None:
        match target:
            case ast.Name(id=name):
                self.bind_name(name, known)
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                exact = isinstance(known, _Tuple) and len(known.items) == len(targets)
                for number, one in enumerate(targets):
                    self.bind(one, known.items[number] if exact else _element(known))
            case ast.Starred(value=rest):
                self.bind(rest, known and _Items(known))
            case ast.Attribute(value=owner, attr=name):
                instance = self.value(owner)
                if isinstance(instance, _Instance) and (known is not None or name not in instance.attributes):
                    instance.attributes[name] = known
            case ast.Subscript(value=container, slice=key):
                self.value(key)
                self.put_into(container, known and _Mapping(known))

    def bind_name(self, name: str, known: Any) -> None:
        if known is None and (name in _NAMES or (self.branches and self.scope.get(name))):
            return  # another branch, or an earlier round, may have made it a library's
        self.scope[name] = known

    def put_into(self, container: ast.expr, known: Any) -> None:
        """Remember what a container holds that so far was empty or unknown."""
        if known is not None and self.value(container) is None:
            self.bind(container, known)

    # --- expressions --------------------------------------------------------------------------------------------------

    def expressions(self, nodes: Iterable[ast.expr]) -> None:
        for node in nodes:
            self.value(node)

    def value(self, node: ast.expr) -> Any:
        """Return what is known of an expression's value, and find the calls in it."""
        match node:
            case ast.Name(id=name):
                return self.scope.get(name)
            case ast.Attribute(value=owner, attr=name):
                return self.attribute(self.value(owner), name)
            case ast.Call():
                return self.call(node)
            case ast.Subscript(value=container, slice=key):
                self.value(key)
                return self.item(self.value(container), key)
            case ast.Await(value=inner) | ast.Starred(value=inner):
                return self.value(inner)
            case ast.Yield(value=inner) | ast.YieldFrom(value=inner) if inner:
                self.returned.append(self.value(inner))
                return None
            case ast.NamedExpr(target=target, value=inner):
                known = self.value(inner)
                self.bind(target, known)
                return known
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.value(test)
                return _first([self.value(body), self.value(orelse)])
            case ast.BoolOp(values=values):
                return _first([self.value(one) for one in values])
            case ast.BinOp(left=left, right=right):
                return _first([self.value(left), self.value(right)])
            case ast.Tuple(elts=items):
                known = tuple(self.value(one) for one in items)
                return _Tuple(known) if any(one is not None for one in known) else None
            case ast.List(elts=items) | ast.Set(elts=items):
                known = _first([self.value(one) for one in items])
                return known and _Items(known)
            case ast.Dict(keys=keys, values=values):
                self.expressions(key for key in keys if key)
                known = _first([self.value(one) for one in values])
                return known and _Mapping(known)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self.comprehension(node)
            case ast.Lambda():
                function = _Function(node, self.scope)
                self.run(function, (), {})
                return function
        self.expressions(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
        return None

    def attribute(self, owner: Any, name: str) -> Any:
        match owner:
            case _Instance():
                known = owner.get(name)
                is_property = isinstance(known, _Function) and any(
                    "property" in ast.unparse(one) for one in getattr(known.node, "decorator_list", ())
                )
                return self.run(known, (owner,), {}) if is_property else known
            case _Class(attributes=attributes):
                return attributes.get(name)
        return owner if owner in (LIBRARY, OBJECT) and name not in _ABOUT else None

    def item(self, container: Any, key: ast.expr) -> Any:
        match container, key:
            case ((_Items() | _Tuple()), ast.Slice()):
                return container
            case _Mapping(value), _:
                return value
            case _Tuple(items), ast.Constant(value=int(number)) if -len(items) <= number < len(items):
                return items[number]
        return _element(container)

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Any:
        with self.inner_scope(self.scope):
            for part in node.generators:
                self.bind(part.target, _element(self.value(part.iter)))
                self.expressions(part.ifs)
            if isinstance(node, ast.DictComp):
                self.value(node.key)
                known = self.value(node.value)
                return known and _Mapping(known)
            known = self.value(node.elt)
            return known and _Items(known)

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> Any:
        called, name = node.func, ""
        owner = None
        if isinstance(called, ast.Attribute):
            owner, name = self.value(called.value), called.attr
            function = self.attribute(owner, name)
        else:
            function = self.value(called)
        arguments = [self.value(one) for one in node.args]
        keywords = {one.arg: self.value(one.value) for one in node.keywords}
        if isinstance(function, _Function):
            bound = [owner, *arguments] if isinstance(owner, _Instance) else arguments
            return self.run(function, bound, keywords)
        if isinstance(function, _Class):
            return self.construct(function, node, arguments, keywords)
        if function in (LIBRARY, OBJECT):
            if owner == OBJECT and name in _STRING_METHODS:
                return None
            self.found.add(node)
            return None if name in _GIVES_DATA else OBJECT
        if isinstance(owner, _Mapping | _Items | _Tuple):
            return self.of_container(owner, name)
        if name in ("append", "add", "appendleft") and arguments:
            self.put_into(called.value, arguments[0] and _Items(arguments[0]))
        return self.of_python(name or getattr(called, "id", ""), node, arguments, keywords)

    def construct(self, made: _Class, node: ast.Call, arguments: list[Any], keywords: dict[str | None, Any]) -> Any:
        if made.of_library:
            self.found.add(node)
        instance = made.instance()
        start = made.attributes.get("__init__")
        if isinstance(start, _Function):
            self.run(start, [instance, *arguments], keywords)
        else:  # a dataclass
            fields = zip(made.attributes, arguments, strict=False)
            made.attributes.update((name, known) for name, known in (*fields, *keywords.items()) if known is not None)
        return instance

    def of_container(self, container: _Mapping | _Items | _Tuple, method: str) -> Any:
        content = container.value if isinstance(container, _Mapping) else _element(container)
        match method:
            case "items":
                return _Items(_Tuple((None, content)))
            case "values":
                return _Items(content)
            case "get" | "pop" | "popleft" | "setdefault":
                return content
            case "copy":
                return container
        return None

    def of_python(self, name: str, node: ast.Call, arguments: list[Any], keywords: dict[str | None, Any]) -> Any:
        """Return what is known of the result of a function of Python itself that passes on what it is given."""
        first = arguments[0] if arguments else None
        if name == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
            return LIBRARY if str(node.args[0].value).partition(".")[0] in LIBRARIES else None
        if name == "SimpleNamespace":
            return _Instance({key: known for key, known in keywords.items() if key})
        if name == "enter_context":
            return first
        if first is None and not any(one is not None for one in arguments):
            return None
        if name == "getattr":
            attribute = node.args[1] if len(node.args) > 1 else None
            return self.attribute(first, attribute.value if isinstance(attribute, ast.Constant) else "")
        if name == "enumerate":
            return _Items(_Tuple((None, _element(first))))
        if name == "zip":
            return _Items(_Tuple(tuple(_element(one) for one in arguments)))
        if name in ("next", "min", "max"):
            return _element(first)
        if name == "partial" or first not in (LIBRARY, OBJECT):
            return first if name in _PASS_ON else None
        return _Items(OBJECT) if name in _PASS_ON else None

    # --- what the notebook defines ------------------------------------------------------------------------------------

    def run(self, function: _Function, arguments: Sequence[Any], keywords: dict[str | None, Any]) -> Any:
        """Read a function's body for known arguments, and return what is known of what it returns."""
        node = function.node
        if node in self.running or len(self.running) == _MOST_CALLS:
            return None
        parameters = node.args
        names = [one.arg for one in (*parameters.posonlyargs, *parameters.args)]
        given = dict(zip(names, arguments, strict=False)) | {name: one for name, one in keywords.items() if name}
        branches, returned = self.branches, self.returned
        self.branches, self.returned = 0, []
        self.running.append(node)
        with self.inner_scope(function.scope):
            for one in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs):
                known = given.get(one.arg)
                self.scope[one.arg] = known if known is not None else self.annotated(one.annotation)
            if parameters.vararg:
                rest = _first(arguments[len(names) :])
                self.scope[parameters.vararg.arg] = rest and _Items(rest)
            if isinstance(node, ast.Lambda):
                self.returned.append(self.value(node.body))
            else:
                self.statements(node.body)
        result = _first(self.returned)
        self.running.pop()
        self.branches, self.returned = branches, returned
        return result

    def class_of(self, node: ast.ClassDef) -> _Class:
        bases = [self.value(base) for base in node.bases]
        inherited = [base for base in bases if isinstance(base, _Class)]
        of_library = LIBRARY in bases or any(base.of_library for base in inherited)
        attributes: dict[str, Any] = {}
        for base in reversed(inherited):
            attributes |= base.attributes
        made = _Class(attributes, of_library)
        scope = self.scope
        for statement in node.body:
            match statement:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    attributes[name] = _Function(statement, scope)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    attributes[name] = self.annotated(annotation)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    attributes[name] = self.value(value)
        methods = [one for one in attributes.values() if isinstance(one, _Function)]
        for method in sorted(methods, key=lambda one: getattr(one.node, "name", "") != "__init__"):
            self.run(method, [made.instance()], {})
        return made

    def annotated(self, annotation: ast.expr | None) -> Any:
        """Return what a type annotation says about a value."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            with contextlib.suppress(SyntaxError):
                return self.annotated(ast.parse(annotation.value, mode="eval").body)
        if isinstance(annotation, ast.Subscript):
            inner = annotation.slice
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            known = _first([self.annotated(one) for one in parts])
            if known is not None:
                is_mapping = "dict" in ast.unparse(annotation.value) or "Mapping" in ast.unparse(annotation.value)
                return _Mapping(known) if is_mapping else _Items(known)
        if isinstance(annotation, ast.BinOp):
            return _first([self.annotated(annotation.left), self.annotated(annotation.right)])
        known = self.value(annotation) if annotation else None
        if isinstance(known, _Class):
            return known.instance()
        return OBJECT if known in (LIBRARY, OBJECT) else None

    @contextlib.contextmanager
    def inner_scope(self, outer: ChainMap) -> Iterator[None]:
        before, self.scope = self.scope, outer.new_child()
        try:
            yield
        finally:
            self.scope = before
