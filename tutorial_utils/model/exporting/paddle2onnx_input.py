"""A program of Paddle 3.3, written so that paddle2onnx 2.1.0 computes what Paddle does. Paddle keeps the original.

paddle2onnx leaves attributes in double precision unread, or stops at them; it clips every hardtanh at -1 and 1, takes
the exact GELU for its approximation, and gives a LayerNorm over several axes flat weights, which ONNX forbids. A mean
over all axes gets the shape [1], or stops it, and so do a softplus with a beta and the number in ``1 / x``.
With newer versions, `tests/model/exporting/test_paddle2onnx_input.py` fails where one of that has become needless.
"""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

# paddle2onnx reads their doubles, which hold large integers too.
_READ_AS_DOUBLES = ("1.full", "1.assign_value_")
_SOFTPLUS_THRESHOLD = 20.0  # the only one that paddle2onnx takes, beside a beta of 1
_REDUCTIONS = tuple(f"1.{name}" for name in ("mean", "sum", "max", "min", "prod", "any", "all", "logsumexp"))
Value = dict[str, int]  # reads a result of another operator, by its number


def write(program: Path, target: Path) -> None:
    """Write a copy of a ``.json`` program for paddle2onnx."""
    text = program.read_text(encoding="utf-8")
    content = json.loads(text)
    _Writer(max(map(int, re.findall(r'"%": ?(\d+)', text)))).rewrite(content["program"]["regions"])
    target.write_text(json.dumps(content), encoding="utf-8")


class _Writer:
    """Writes the operators of a program anew, in order, some of them as others."""

    def __init__(self, last_number: int):
        self.numbers = itertools.count(last_number + 1)
        self.written: list[dict[str, Any]] = []  # of the block at hand
        self.kinds: dict[int, list] = {}  # data type, shape and layout of each tensor, by its number

    def rewrite(self, regions: list[dict]) -> None:
        for block in itertools.chain.from_iterable(region["blocks"] for region in regions):
            outer, self.written = self.written, []
            for operation in block["ops"]:
                results = operation["O"] if isinstance(operation["O"], list) else [operation["O"]]
                self.kinds |= {result["%"]: result["TT"]["D"] for result in results if result.get("TT")}
                self.rewrite(operation.get("regions", []))
                if operation["#"] not in _READ_AS_DOUBLES:
                    stored = json.dumps(operation.get("A", []))
                    operation["A"] = json.loads(stored.replace('"0.a_f64"', '"0.a_f32"'))
                given = {item["N"]: item["AT"].get("D") for item in operation.get("A", ()) if isinstance(item, dict)}
                if operation["#"] == "1.hardtanh":
                    self.clip(operation, given)
                elif operation["#"] == "1.gelu" and given["approximate"]:
                    self.gelu(operation)
                elif operation["#"] == "1.layer_norm":
                    self.layer_norm(operation, given["begin_norm_axis"])
                elif operation["#"] == "1.softplus" and given["threshold"] == _SOFTPLUS_THRESHOLD:
                    self.softplus(operation, given["beta"])
                elif operation["#"] in _REDUCTIONS:
                    self.reduction(operation, given)
                elif operation["#"] == "1.full_batch_size_like":
                    self.full_like(operation, given)
                self.written.append(operation)
            block["ops"], self.written = self.written, outer

    def add(self, name: str, inputs: list[Value], kind: list, **attributes: tuple[str, Any]) -> Value:
        """Write an operator with one result of this kind; attributes are pairs of a type and a value."""
        result = {"%": next(self.numbers), "TT": {"#": "0.t_dtensor", "D": kind}}
        stored = [{"N": key, "AT": {"#": f"{type_}", "D": value}} for key, (type_, value) in attributes.items()]
        self.written.append({"#": f"1.{name}", "A": stored, "I": inputs, "O": [result], "OA": []})
        return {"%": result["%"]}

    def constant(self, value: float) -> Value:
        return self.add(
            "full", [], [{"#": "0.t_f32"}, [1], "NCHW", [], 0],
            shape=("1.a_intarray", [1]), value=("0.a_f32", value), dtype=("1.a_dtype", "float32"),
            place=("1.a_place", [1, 0, ""]),
        )  # fmt: skip

    def clip(self, hardtanh: dict[str, Any], given: dict[str, float]) -> None:
        bounds = [self.constant(given["t_min"]), self.constant(given["t_max"])]
        hardtanh |= {"#": "1.clip", "A": [], "I": hardtanh["I"] + bounds}

    def gelu(self, gelu: dict[str, Any]) -> None:
        """x (1 + tanh z) / 2 = x sigmoid(2 z), where z = sqrt(2 / pi) (x + 0.044715 x^3)."""
        (x,) = gelu["I"]
        kind, factor = self.kinds[x["%"]], 2 * math.sqrt(2 / math.pi)
        square = self.add("multiply", [x, x], kind)
        curve = self.add(
            "scale", [square, self.constant(factor * 0.044715)], kind,
            bias=("0.a_f32", factor), bias_after_scale=("0.a_bool", True),
        )  # fmt: skip
        gate = self.add("sigmoid", [self.add("multiply", [x, curve], kind)], kind)
        gelu |= {"#": "1.multiply", "A": [], "I": [x, gate]}

    def softplus(self, softplus: dict[str, Any], beta: float) -> None:
        """The threshold, from which on softplus is x, holds for beta x: softplus(beta x) / beta is the same."""
        if beta == 1:
            return
        (x,) = softplus["I"]
        kind = self.kinds[x["%"]]
        plain = self.add(
            "softplus", [self.add("multiply", [x, self.constant(beta)], kind)], kind,
            beta=("0.a_f32", 1.0), threshold=("0.a_f32", _SOFTPLUS_THRESHOLD),
        )  # fmt: skip
        softplus |= {"#": "1.multiply", "A": [], "I": [plain, self.constant(1 / beta)]}

    def layer_norm(self, norm: dict[str, Any], first_axis: int) -> None:
        sizes = self.kinds[norm["I"][0]["%"]][1][first_axis:]
        if len(sizes) == 1:
            return
        for index, weights in enumerate(norm["I"][1:], 1):
            if weights["%"] in self.kinds:  # a norm without weights reads number 0
                kind = self.kinds[weights["%"]]
                norm["I"][index] = self.add("reshape", [weights, self.integers(sizes)], [kind[0], sizes, *kind[2:]])

    def integers(self, values: list[int]) -> Value:
        return self.add(
            "full_int_array", [], [{"#": "0.t_i64"}, [len(values)], "NCHW", [], 0],
            value=("0.a_array", [{"#": "0.a_i64", "D": value} for value in values]),
            dtype=("1.a_dtype", "int64"), place=("1.a_place", [1, 0, ""]),
        )  # fmt: skip

    def reduction(self, reduction: dict[str, Any], given: dict[str, Any]) -> None:
        """Name the axes where they are an empty list, which stands for all, and make the scalar by a squeeze."""
        (x, *axes), (result,) = reduction["I"], reduction["O"]
        kind, rank = result["TT"]["D"], len(self.kinds[x["%"]][1])
        named = self.kinds[axes[0]["%"]][1] != [0] if axes else given["axis"] != []
        if not rank or (named and kind[1]):
            return
        everything = self.integers([*range(rank)])
        changed = {"keepdim": True, "reduce_all": False, "axis": [{"#": "0.a_i64", "D": i} for i in range(rank)]}
        for item in reduction["A"]:
            if item["N"] in changed:
                item["AT"]["D"] = changed[item["N"]]
        reduction["I"] = [x, everything] if axes else [x]
        if kind[1]:
            return
        kept = {"%": next(self.numbers), "TT": {"#": "0.t_dtensor", "D": [kind[0], [1] * rank, *kind[2:]]}}
        self.written.append({**reduction, "O": [kept]})
        reduction |= {"#": "1.squeeze", "A": [], "I": [{"%": kept["%"]}, everything]}

    def full_like(self, filled: dict[str, Any], given: dict[str, Any]) -> None:
        """A number in the shape of another tensor, as Paddle writes ``1 / x`` where the batch may vary."""
        (x,) = filled["I"]
        kind = filled["O"][0]["TT"]["D"]
        if kind[:2] == self.kinds[x["%"]][:2] and given["value"] is not None:
            kept = [item for item in filled["A"] if item["N"] in ("dtype", "place", "stop_gradient")]
            filled |= {"#": "1.full_like", "A": kept, "I": [x, self.constant(given["value"])]}
