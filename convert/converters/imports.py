"""Reads a module's source: from which expressions its values and its functions' defaults came when it was imported."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, ModuleType

_Assigned = dict[str, list[ast.expr]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def expressions(module: ModuleType, names: set[str], code: CodeType | None) -> Iterator[tuple[str, ast.expr]]:
    """Yield (name, expression) of the module's values among `names`, of those that these are computed from, and of
    the defaults of the function that has `code`. Nothing where there is no source.
    """
    tree = _tree(module)
    assigned = _assigned(tree)
    waiting, seen = sorted(names), set()
    while waiting:
        name = waiting.pop()
        for expression in assigned.get(name, ()) if name not in seen else ():
            yield name, expression
            waiting += [part.id for part in ast.walk(expression) if isinstance(part, ast.Name)]
        seen.add(name)
    if code is None:
        return
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS) and code.co_firstlineno in _first_lines(node):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    yield f"a default of {code.co_name}", default


def origins(module: ModuleType, names: set[str]) -> Iterator[tuple[str, ModuleType]]:
    """Yield (name there, module) of those of a module's values that it took from another one."""
    for node in _statements(_tree(module).body):
        if isinstance(node, ast.ImportFrom):
            package = module.__name__.split(".")[: -node.level] if node.level else []
            origin = sys.modules.get(".".join([*package, *([node.module] if node.module else [])]))
            if origin is not None and origin is not module:
                yield from ((a.name, origin) for a in node.names if (a.asname or a.name) in names)


@functools.cache
def _tree(module: ModuleType) -> ast.Module:
    try:
        return ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])


def _assigned(tree: ast.Module) -> _Assigned:
    """Return {name: the expressions that are assigned to it, or into it}; a class's own under its name."""
    found: _Assigned = {}
    for node in _statements(tree.body):
        owner = node.name if isinstance(node, ast.ClassDef) else None
        for inner in _statements(node.body) if isinstance(node, ast.ClassDef) else (node,):
            value = getattr(inner, "value", None)
            for target in getattr(inner, "targets", [getattr(inner, "target", None)]):
                name = owner or _base(target)
                if name is not None and isinstance(value, ast.expr):
                    found.setdefault(name, []).append(value)
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run at an import, those inside `if`, `try`, `with` and loops too."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _base(target: ast.AST | None) -> str | None:
    """Return the name that an assignment changes: `a` of `a`, `a[0]`, `a.b`."""
    while isinstance(target, ast.Subscript | ast.Attribute):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None


def _first_lines(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[int]:
    return {node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))}
