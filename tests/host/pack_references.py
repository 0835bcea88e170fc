"""What the nodes take from ComfyUI, read from their source: names, calls, and overrides of its methods."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
NODES = PACK / "nodes"
# Every other module that the nodes import, and that Python does not bring, is counted as ComfyUI's.
LIBRARIES = {"torch", "numpy", "PIL"}


@dataclass(frozen=True)
class Call:
    """A call of something of ComfyUI's.

    Attributes
    ----------
    positional : int
    keywords : tuple of str
    exact : bool
        False if more arguments follow in ``*`` or ``**``.
    place : str
        File and line.
    """

    positional: int
    keywords: tuple[str, ...]
    exact: bool
    place: str


@dataclass
class Uses:
    """The places and calls of one name."""

    places: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Method:
    """A method of a class that extends one of ComfyUI's; `base` is the dotted name of that class."""

    base: str
    name: str
    signature: Signature
    place: str


@cache
def _sources() -> list[tuple[str, ast.Module]]:
    """Every file of the nodes, with its syntax tree."""
    files = sorted(NODES.rglob("*.py"))
    return [(path.relative_to(PACK).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in files]


def read_pack() -> tuple[dict[str, Uses], list[Method]]:
    """All names of ComfyUI in the nodes, such as ``comfy.utils.pack_latents``, and the methods of subclasses."""
    uses: dict[str, Uses] = defaultdict(Uses)
    methods: list[Method] = []
    for file, tree in _sources():
        _Reader(file, uses, methods).visit(tree)
    return dict(sorted(uses.items())), methods


class _Reader(ast.NodeVisitor):
    def __init__(self, file: str, uses: dict[str, Uses], methods: list[Method]):
        self.file, self.uses, self.methods = file, uses, methods
        self.names: dict[str, str] = {}  # local -> of the host
        self.bases: list[str | None] = []  # of the classes around the current place

    def _use(self, name: str, node: ast.AST) -> str:
        place = f"{self.file}:{node.lineno}"
        self.uses[name].places.append(place)
        return place

    def _name(self, node: ast.AST) -> str | None:
        """The host's name that an expression stands for; an object of a class counts as the class."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._name(node.value)
            return owner and f"{owner}.{node.attr}"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "super":
                return self.bases[-1] if self.bases else None
            name = self._name(node.func)
            return name if name and name.rpartition(".")[2][0].isupper() else None
        return None

    def visit_Import(self, node):
        for alias in node.names:
            if _of_host(alias.name):
                self._use(alias.name, node)
                self.names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )

    def visit_ImportFrom(self, node):
        if node.level == 0 and _of_host(node.module):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                self._use(name, node)
                self.names[alias.asname or alias.name] = name

    def visit_Assign(self, node):
        self.generic_visit(node)
        name = self._name(node.value) if isinstance(node.value, (ast.Name, ast.Attribute)) else None
        if name and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self.names[node.targets[0].id] = name

    def visit_Attribute(self, node):
        if name := self._name(node):
            self._use(name, node)
        if not isinstance(node.value, (ast.Name, ast.Attribute)):
            self.visit(node.value)

    def visit_Call(self, node):
        self.generic_visit(node)
        if (name := self._name(node.func)) is None:
            return
        self.uses[name].calls.append(call_of(node, self.file))

    def visit_ClassDef(self, node):
        base = next(filter(None, map(self._name, node.bases)), None)
        if base:
            for one in node.body:
                if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and not one.name.startswith("__"):
                    place = f"{self.file}:{one.lineno}"
                    self.methods.append(Method(base, one.name, signature_of(one, without_first=True), place))
        self.bases.append(base)
        self.generic_visit(node)
        self.bases.pop()


def call_of(node: ast.Call, file: str) -> Call:
    """The arguments of a call in a file."""
    positional = sum(not isinstance(one, ast.Starred) for one in node.args)
    keywords = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
    exact = positional == len(node.args) and len(keywords) == len(node.keywords)
    return Call(positional, keywords, exact, f"{file}:{node.lineno}")


def calls_ending(function: str) -> list[Call]:
    """The calls in the nodes whose function is written so, or ends so, such as ``guider.sample``."""
    return [
        call_of(node, file)
        for file, tree in _sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and f".{ast.unparse(node.func)}".endswith(f".{function}")
    ]


def _of_host(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in LIBRARIES and root not in sys.stdlib_module_names


def signature_of(function: ast.FunctionDef | ast.AsyncFunctionDef, without_first: bool) -> Signature:
    """The parameters of a function's source, without ``self`` or ``cls``."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    rows = [
        Parameter(one.arg, Parameter.POSITIONAL_OR_KEYWORD, default=Parameter.empty if i < required else None)
        for i, one in enumerate(positional)
    ][1 if without_first else 0 :]
    if given.vararg:
        rows.append(Parameter(given.vararg.arg, Parameter.VAR_POSITIONAL))
    for one, default in zip(given.kwonlyargs, given.kw_defaults):
        rows.append(Parameter(one.arg, Parameter.KEYWORD_ONLY, default=None if default else Parameter.empty))
    if given.kwarg:
        rows.append(Parameter(given.kwarg.arg, Parameter.VAR_KEYWORD))
    return Signature(rows)


def function_of(file: str, name: str) -> Signature:
    """The parameters of a function of ``nodes/<file>``, such as ``Network.forward``.

    Raises
    ------
    LookupError
        If there is none.
    """
    node: ast.AST = ast.parse((NODES / file).read_text(encoding="utf-8"))
    for part in name.split("."):
        owner, found = node, [one for one in node.body if getattr(one, "name", None) == part]
        if not found:
            raise LookupError(f"nodes/{file} has no {name}; correct the tables in tests/host/contract.py")
        node = found[0]
    return signature_of(node, without_first=isinstance(owner, ast.ClassDef))
