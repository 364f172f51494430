"""Settings as they follow from the keys of a configuration: numbers, words, or "=" and an expression over the keys."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
}


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of what files write as one number or as two."""
    return (value, value) if isinstance(value, int) else tuple(value)


def patches(image_size: Any, patch_size: Any) -> tuple[int, ...]:
    """Rows and columns of the whole patches of a picture."""
    return tuple(size // patch for size, patch in zip(pair(image_size), pair(patch_size), strict=True))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil": math.ceil,
    "get": lambda values, key, default: values.get(key, default),
    "isqrt": math.isqrt,
    "len": len,
    "max": max,
    "min": min,
    "pair": pair,
    "patches": patches,
    "prod": math.prod,
    "range": range,
    "sum": sum,
}


def evaluate(setting: Any, names: Mapping[str, Any]) -> Any:
    """The value of a setting; of dicts and lists, that of each part. KeyError for a name that is not in names."""
    if isinstance(setting, dict):
        return {key: evaluate(value, names) for key, value in setting.items()}
    if isinstance(setting, list | tuple):
        return tuple(evaluate(value, names) for value in setting)
    if isinstance(setting, str) and setting.startswith("="):
        return _value(ast.parse(setting[1:].strip(), mode="eval").body, names)
    return setting


def names_in(setting: Any) -> set[str]:
    """The keys that a setting reads."""
    if isinstance(setting, dict | list | tuple):
        return set().union(*map(names_in, setting.values() if isinstance(setting, dict) else setting))
    if not isinstance(setting, str) or not setting.startswith("="):
        return set()
    found = {node.id for node in ast.walk(ast.parse(setting[1:].strip(), mode="eval")) if isinstance(node, ast.Name)}
    return found - set(FUNCTIONS)


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            found = names[node.id]
            return tuple(found) if isinstance(found, list) else found
        case ast.Tuple() | ast.List():
            return tuple(_value(part, names) for part in node.elts)
        case ast.Subscript(slice=ast.Slice(upper=ast.expr() as end)):
            return _value(node.value, names)[: _value(end, names)]
        case ast.Subscript():
            return _value(node.value, names)[_value(node.slice, names)]
        case ast.UnaryOp():
            return OPERATORS[type(node.op)](_value(node.operand, names))
        case ast.BinOp():
            return OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names))
        case ast.Compare(ops=[op], comparators=[right]):
            return OPERATORS[type(op)](_value(node.left, names), _value(right, names))
        case ast.BoolOp():
            parts = (_value(part, names) for part in node.values)
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        case ast.IfExp():
            return _value(node.body if _value(node.test, names) else node.orelse, names)
        case ast.Call(func=ast.Name(id=name)):
            return FUNCTIONS[name](*(_value(argument, names) for argument in node.args))
    raise ValueError(f"expression has {ast.unparse(node)}; it needs to be of names, numbers and {sorted(FUNCTIONS)}.")
