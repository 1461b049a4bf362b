"""What a function says, found in its source and written so that every supported Python writes the same.

`ast.dump` differs between 3.11, 3.12 and 3.13, bytecode differs with every version, and `inspect.getsource` gives the
lines of a lambda together with its neighbours', or those of a file that was edited since it was imported. So: the file
is parsed and compiled once more, the function is the node whose code is the one that runs, and the tree is walked here,
without positions and without fields that are empty. Where no source runs as this code (none is shipped, it was
rewritten, the file is newer than the process) the bytecode stands for it, and an upgrade of Python is a cold cache.
"""

from __future__ import annotations

import ast
import dis
import linecache
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

from scalekit._cache.key import Tree, canonical

__all__ = ["bytecode", "bytecode_globals", "globals_read", "located", "said"]

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_NODES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_FAR = 1 << 24
_DOCSTRING = 0x4000000  # CO_HAS_DOCSTRING, since 3.13


def located(function: FunctionType) -> Node | None:
    """The node of the source that runs as `function`, or None."""
    code = function.__code__
    wanted = bytecode(code)
    for again in (False, True):
        if again:
            linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, function.__globals__))
        try:
            nodes, codes = _parsed(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        running = [one for one in codes.get(code.co_firstlineno, ()) if bytecode(one) == wanted]
        if not running:
            continue
        here = nodes.get(code.co_firstlineno, ())
        found = [one for one in here if getattr(one, "name", "<lambda>") == code.co_name]
        if len(found) > 1:
            found = _of_one_line(code, found, text)
        return found[0] if len({said(one) for one in found}) == 1 else None
    return None


def _of_one_line(code: CodeType, found: list[Node], text: str) -> list[Node]:
    """Which lambdas of one line run as `code`: those that compile to it, of them the one where its positions lie."""
    wanted, compiled = bytecode(code), _told_apart(text, code.co_firstlineno)
    same = [one for one, made in zip(found, compiled, strict=True) if made == wanted] or found
    return [one for one in same if _inside(code, one)] or same


@lru_cache(2)
def _told_apart(text: str, line: int) -> list[Tree]:
    """The bytecode of each lambda of a line. Each is given a line of its own, so that its code can be recognised."""
    tree = ast.parse(text)
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == line]
    for place, node in enumerate(lambdas):  # the outer ones first
        for part in ast.walk(node):
            if hasattr(part, "lineno"):
                part.lineno = part.end_lineno = _FAR + place  # type: ignore[attr-defined]
    codes = {code.co_firstlineno: bytecode(code) for code in _codes(tree)}
    return [codes[_FAR + place] for place in range(len(lambdas))]


@lru_cache(2)
def _parsed(text: str) -> tuple[dict[int, list[Node]], dict[int, list[CodeType]]]:
    """The functions of a file and their code, by the line on which they begin."""
    tree = ast.parse(text)
    nodes: dict[int, list[Node]] = {}
    for node in ast.walk(tree):
        if isinstance(node, _NODES):
            decorators: list[ast.expr] = getattr(node, "decorator_list", [])
            nodes.setdefault(min([one.lineno for one in (node, *decorators)]), []).append(node)
    codes: dict[int, list[CodeType]] = {}
    for code in _codes(tree):
        codes.setdefault(code.co_firstlineno, []).append(code)
    return nodes, codes


def _codes(tree: ast.Module) -> Iterator[CodeType]:
    """Every code object that the module compiles to."""
    waiting: list[CodeType] = [compile(tree, "", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)]
    while waiting:
        code = waiting.pop()
        waiting += [one for one in code.co_consts if isinstance(one, CodeType)]
        yield code


def _inside(code: CodeType, node: Node) -> bool:
    body = cast(ast.Lambda, node).body
    first, last = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    for line, end_line, column, end_column in code.co_positions():
        if line is None or end_line is None or column is None or end_column is None or end_column == 0:
            continue  # the prologue
        if (line, column) < first or (end_line, end_column) > last:
            return False
    return True


def bytecode(code: CodeType, *, bare: bool = False) -> Tree:
    """What this Python made of a function, without names of files and lines; `bare` leaves out its docstring."""
    constants = [bytecode(one) if isinstance(one, CodeType) else canonical(one) for one in code.co_consts]
    if bare and code.co_consts and isinstance(code.co_consts[0], str) and _documented(code):
        constants[0] = None
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_DOCSTRING)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_name)
    return (code.co_code, tuple(constants), shape, names, code.co_exceptiontable)


def _documented(code: CodeType) -> bool:
    """Before 3.13 the docstring is the first constant, and None stands there if there is none."""
    return bool(code.co_flags & _DOCSTRING) or _DOCSTRING not in dis.COMPILER_FLAG_NAMES


def bytecode_globals(code: CodeType) -> set[str]:
    """The names that code reads from its module, nested functions' included."""
    names = {str(one.argval) for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= bytecode_globals(constant)
    return names


def said(node: Node) -> Tree:
    """The function's parameters and body: without its name, decorators, annotations and docstring.

    Those of the functions and classes inside it stay: they may be a tool's schema, a model's fields, a prompt.
    """
    body: Any = node.body
    if not isinstance(node, ast.Lambda):
        match node.body[0]:
            case ast.Expr(value=ast.Constant(value=str())):
                body = node.body[1:]
            case _:
                pass
    return (type(node).__name__, _shape(node.args, True), _shape(body, True))


def _shape(node: Any, own: bool) -> Tree:
    if isinstance(node, list):
        return tuple([_shape(one, own) for one in node])  # pyright: ignore[reportUnknownVariableType]
    if isinstance(node, ast.Constant):
        return ("Constant", canonical(node.value))
    if not isinstance(node, ast.AST):
        return cast(Tree, node)
    if isinstance(node, ast.JoinedStr):
        return ("JoinedStr", *[_shape(one, own) for one in _joined(node)])
    inside = own and not isinstance(node, (*_NODES, ast.ClassDef))
    parts: list[Tree] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if value is None or value == [] or field in _SILENT:
            continue
        if own and field == "annotation" and isinstance(node, (ast.arg, ast.AnnAssign)):
            continue
        parts.append((field, _shape(value, inside)))
    return (type(node).__name__, *parts)


def _joined(node: ast.JoinedStr) -> Iterator[ast.expr]:
    """The parts of an f-string, neighbouring texts as one: parsers differ in where they cut, and in empty ones."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield part
    if text:
        yield ast.Constant(text)


class _Scope:
    """The names of one function, class or comprehension. What is rebound through `global` is no constant."""

    def __init__(self, outer: _Scope | None, kind: str = "function") -> None:
        self.outer = outer
        self.kind = kind
        self.bound: set[str] = set()
        self.read: set[str] = set()
        self.passed: set[str] = set()  # read by scopes inside, which do not see the names of a class
        self.declared: set[str] = set()
        self.changed: set[str] = set() if outer is None else outer.changed
        self.certain: set[str] = set() if outer is None else outer.certain  # read where it was declared global

    def assign(self, name: str) -> None:
        (self.changed if name in self.declared else self.bound).add(name)

    def load(self, name: str) -> None:
        (self.certain if name in self.declared else self.read).add(name)

    def free(self) -> set[str]:
        return (self.read - self.bound) | (self.passed if self.kind == "class" else self.passed - self.bound)


def globals_read(node: Node) -> set[str]:
    """The names that the function reads and does not bind: its module's, its closure's and builtins."""
    scope = _Scope(None)
    _function(node, scope)
    return (scope.free() | scope.certain) - scope.changed


def _function(node: Node, scope: _Scope) -> None:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    scope.bound |= {one.arg for one in every if one is not None}
    _visit(node.body, scope)


def _visit(node: Any, scope: _Scope) -> None:
    match node:
        case list():
            for one in node:  # pyright: ignore[reportUnknownVariableType]
                _visit(one, scope)
        case ast.Name(id=name):
            scope.load(name) if isinstance(node.ctx, ast.Load) else scope.assign(name)
        case ast.Global(names=names):
            scope.declared |= {*names}
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            holder = scope
            while holder.kind == "comprehension" and holder.outer is not None:
                holder = holder.outer
            holder.assign(name)
            _visit(value, scope)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() | ast.ClassDef():
            if not isinstance(node, ast.Lambda):
                scope.assign(node.name)
            for field, value in ast.iter_fields(node):
                if field != "body":
                    _visit(value, scope)
            inner = _Scope(scope, "class" if isinstance(node, ast.ClassDef) else "function")
            if isinstance(node, ast.ClassDef):
                _visit(node.body, inner)
            else:
                _function(node, inner)
            scope.passed |= inner.free()
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            _visit(node.generators[0].iter, scope)
            inner = _Scope(scope, "comprehension")
            for child in ast.iter_child_nodes(node):
                _visit(child, inner)
            scope.passed |= inner.free()
        case ast.alias(name=name, asname=asname):
            scope.assign(asname or name.partition(".")[0])
        case ast.AST():
            for field in ("name", "rest"):  # of except, match, type parameters
                if isinstance(bound := getattr(node, field, None), str):
                    scope.assign(bound)
            for child in ast.iter_child_nodes(node):
                _visit(child, scope)
        case _:
            pass
