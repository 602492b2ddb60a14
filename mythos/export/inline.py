"""Assemble a definition of this package, with all definitions that it needs, into the source of one file.

Each definition appears once, after those that it uses, with its source in the package. Code that an exported model
never runs is omitted: ``REPLACED`` replaces conditions on kernels by constants, which makes their branches
unreachable, ``LEFT_OUT`` lists members to omit, and other members are kept only if the included code mentions them.
"""

import ast
import builtins
import copy
import inspect
import symtable
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from mythos.export.fold import fold, without_annotations

_PACKAGE = Path(__file__).parents[1]

Key = tuple[str, str]
"""Module and name of a definition."""

REPLACED: Final[dict[str, dict[str, str]]] = {
    "mythos.layers.ffn": {"self.is_shared_in(compute_dtype(x))": "False"},
    "mythos.layers.heads": {"is_available(x_BSHP)": "False"},
    "mythos.layers.mask": {"isinstance(mask, BlockMask)": "False", "isinstance(mask, Documents)": "False"},
    "mythos.layers.projection": {"self.is_shared_in(compute_dtype(x))": "False"},
    "mythos.moe.dispatch": {"experts.is_fused(x_ND, dtype)": "False"},
    "mythos.moe.layer": {
        "config.dispatch == 'grouped'": "config.dispatch == 'grouped' and hasattr(torch.nn.functional, 'grouped_mm')"
    },
    "mythos.moe.router": {"fused_router.is_available(x_ND, gate_ED)": "False"},
    "mythos.model.core": {
        "self.remat.block(run, before_BSD, given)": "run(before_BSD, given)",
    },
}
"""Expressions by module, as ``ast.unparse`` writes them, and their replacements."""
LEFT_OUT: Final[dict[Key, set[str]]] = {
    ("mythos.config.parts", "LoopConfig"): {"__post_init__"},
    ("mythos.layers.ffn", "SwiGLU"): {"shared"},
    ("mythos.layers.projection", "Projection"): {"shared"},
    ("mythos.model.core", "Core"): {"remat"},
    ("mythos.model.head", "Head"): {"forward"},
    ("mythos.loop.exits.halting", "Halting"): {"forward"},
    ("mythos.model.mythos", "Mythos"): {"forward", "observers"},
    ("mythos.moe.experts", "Experts"): {"forward", "shared"},
}
"""Omitted methods, and omitted attributes that ``__init__`` or the class sets, by class."""
REDIRECTED: Final[dict[Key, Key]] = {
    ("mythos.config.base", "config"): ("mythos.export.plain", "config"),
    ("mythos.loop.build", "build_parts"): ("mythos.export.plain", "build_parts"),
    ("mythos.loop.build", "build_attention_parts"): ("mythos.export.plain", "build_attention_parts"),
    ("mythos.loop.build", "build_router_parts"): ("mythos.export.plain", "build_router_parts"),
}
"""Definitions that are replaced by others."""
_NO_PARTS: Final = "PART_CLASSES = {}\nFP32_MODULES = ['router_bias', 'halting']\n"
"""Source of ``mythos.export.part_classes`` for a model without loop parts."""
SIBLINGS: Final[dict[Key, str]] = {("mythos.export.configuration", "MythosConfig"): ".configuration_mythos"}
"""Definitions that the exported file imports from a module in the same folder."""


class _Module(NamedTuple):
    """A module's source lines and global names."""

    lines: list[str]
    definitions: dict[str, ast.stmt]
    imported: dict[str, tuple[str, str | None]]
    """Names bound by imports: the module, and the name imported from it."""


@cache
def inlined(entry: Key, header: str, part_classes: str = _NO_PARTS) -> str:
    """Source of one file that defines ``entry`` and imports nothing from this package.

    Args:
        part_classes: source that replaces ``mythos.export.part_classes``.
    """
    attributes = {"backward"}  # torch calls it
    while True:  # members that are kept mention names, which keep other members
        gatherer = _Gatherer(attributes, {"mythos.export.part_classes": part_classes})
        gatherer.gather(entry)
        mentioned = {node.attr for node in gatherer.walk() if isinstance(node, ast.Attribute)}
        if mentioned <= attributes:
            return gatherer.text(header)
        attributes |= mentioned


class _Gatherer:
    """Collects definitions depth first."""

    def __init__(self, attributes: set[str], replaced_modules: dict[str, str]) -> None:
        self.attributes = attributes
        self.modules = {name: _parsed(text) for name, text in replaced_modules.items()}
        self.by_name: dict[str, Key] = {}
        """Definitions by their name in the exported file."""
        self.nodes: dict[Key, ast.stmt] = {}
        """Syntax trees of the definitions, in the order of the exported file."""
        self.imports: dict[str, tuple[str, str | None]] = {}
        """Imports by the name that they bind: a module outside the package, and the name imported from it."""

    def gather(self, key: Key) -> None:
        """Add a definition after all definitions that it needs."""
        module_name, name = key
        if self.by_name.setdefault(name, key) != key:
            raise AssertionError(f"{name} is defined in {self.by_name[name][0]} and in {module_name}; rename one.")
        if key in self.nodes:
            return
        module = self.module(module_name)
        node = self._reduced(key, module)
        node = _Unqualifier(self, module).visit(node)
        self.nodes[key] = node  # added before its dependencies, so that the recursion ends
        for needed in sorted(_runtime_names(node)):
            self._resolve(module_name, needed)
        self.nodes[key] = self.nodes.pop(key)  # and moved behind them

    def module(self, name: str) -> _Module:
        """A module, which is read once."""
        if name not in self.modules:
            self.modules[name] = _read(name)
        return self.modules[name]

    def walk(self) -> Iterator[ast.AST]:
        """Every node of every definition."""
        for node in self.nodes.values():
            yield from ast.walk(node)

    def text(self, header: str) -> str:
        """Source text of the file."""
        parts = [self._source(key, node) for key, node in self.nodes.items()]
        for key, node in self.nodes.items():  # annotations are not evaluated, but people read them
            for name in _annotated(node) & self.module(key[0]).imported.keys():
                source, original = self.module(key[0]).imported[name]
                if source.split(".")[0] in {*sys.stdlib_module_names, "torch", "transformers"}:
                    self.imports[name] = source, original
        annotated = {name for node in self.nodes.values() for name in _annotated(node)}
        absent = sorted(annotated - self.by_name.keys() - self.imports.keys() - set(dir(builtins)))
        if absent:
            self.imports["Any"] = "typing", "Any"
            parts.insert(
                0,
                "# Types that only annotations mention are omitted.\n" + "\n".join(f"{name} = Any" for name in absent),
            )
        head = [f'"""{header}"""', "", "from __future__ import annotations", "", *_import_lines(self.imports)]
        return "\n".join([*head, "", "", "\n\n\n".join(parts)]) + "\n"

    def _resolve(self, module_name: str, name: str) -> None:
        """Add the definition or import to which a name in a module refers."""
        module = self.module(module_name)
        if name in module.definitions:
            self._add((module_name, name))
        elif name in module.imported:
            source, original = module.imported[name]
            if source.split(".")[0] == "mythos":
                assert original is not None, f"{module_name} uses the module {source} as a value"
                self._add((source, original))
            else:
                self.imports[name] = source, original
        elif name not in self.by_name:
            assert hasattr(builtins, name), f"{module_name}: {name} is not known"

    def _add(self, key: Key) -> None:
        key = REDIRECTED.get(key, key)
        if key in SIBLINGS:
            self.imports[key[1]] = SIBLINGS[key], key[1]
        else:
            self.gather(key)

    def _reduced(self, key: Key, module: _Module) -> ast.stmt:
        """A definition with its replaced expressions and without its omitted members."""
        node = fold(copy.deepcopy(module.definitions[key[1]]), REPLACED.get(key[0], {}))
        if isinstance(node, ast.ClassDef) and not key[0].startswith("mythos.export."):
            node.body = list(self._members(node.body, LEFT_OUT.get(key, set()))) or [ast.Pass()]
        return node

    def _members(self, body: list[ast.stmt], left_out: set[str]) -> Iterator[ast.stmt]:
        """The members of a class that are kept, each with its docstring."""
        is_kept = True
        for member in body:
            if isinstance(member, ast.FunctionDef):
                is_special = member.name.startswith("__") or member.name == "forward"
                is_kept = member.name not in left_out and (is_special or member.name in self.attributes)
                if member.name == "__init__":
                    member.body = _without(member.body, left_out)
            elif not isinstance(member, ast.Expr):
                is_kept = not _sets(member, left_out)
            if is_kept:
                yield member

    def _source(self, key: Key, node: ast.stmt) -> str:
        """Source of a definition, verbatim where it is unchanged; the members of a class are treated one by one."""
        module = self.module(key[0])
        original = module.definitions[key[1]]
        if not isinstance(node, ast.ClassDef):
            return _verbatim_or_unparsed(module, [original], node)
        assert isinstance(original, ast.ClassDef)
        head = copy.copy(node)
        head.body = [ast.Pass()]
        lines = [ast.unparse(head).removesuffix("\n    pass")]
        for member in node.body:
            if not module.lines[_first_line(member) - 2].strip():
                lines.append("")
            lines.append(_verbatim_or_unparsed(module, original.body, member))
        return "\n".join(lines)


class _Unqualifier(ast.NodeTransformer):
    """Replaces ``module.name`` by ``name`` for modules of this package, and gathers the definition."""

    def __init__(self, gatherer: _Gatherer, module: _Module) -> None:
        self.gatherer = gatherer
        self.module = module

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        source = self._package_module(node.value)
        if source is None:
            return node
        if not isinstance(node.ctx, ast.Load):
            raise AssertionError(f"{source}.{node.attr} is assigned from another module")
        self.gatherer.gather((source, node.attr))
        return ast.copy_location(ast.Name(node.attr, ast.Load()), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        assert not (node.module or "").startswith("mythos"), f"a function imports {node.module}"
        return node

    def _package_module(self, value: ast.expr) -> str | None:
        if not isinstance(value, ast.Name) or value.id not in self.module.imported:
            return None
        source, original = self.module.imported[value.id]
        whole = source if original is None else f"{source}.{original}"
        return whole if whole.startswith("mythos") and _path(whole).is_file() else None


def _read(name: str) -> _Module:
    return _parsed(_path(name).read_text(encoding="utf-8"))


def _parsed(text: str) -> _Module:
    definitions: dict[str, ast.stmt] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(text).body:
        match node:
            case ast.Import(names=names):
                imported |= {alias.asname or alias.name: (alias.name, None) for alias in names}
            case ast.ImportFrom(module=source, names=names):
                imported |= {alias.asname or alias.name: (source or "", alias.name) for alias in names}
            case ast.FunctionDef() | ast.ClassDef():
                definitions[node.name] = node
            case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(target=ast.Name(id=target)):
                definitions[target] = node
    return _Module(text.splitlines(), definitions, imported)


def _path(name: str) -> Path:
    return _PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")


def _runtime_names(node: ast.stmt) -> set[str]:
    """Global names that a definition reads when it is defined or run."""
    names: set[str] = set()
    text = ast.unparse(without_annotations(node))
    tables = [symtable.symtable(text, "definition", "exec")]
    while tables:
        table = tables.pop()
        is_module = table.get_type() == "module"
        for symbol in table.get_symbols():
            is_global = not symbol.is_assigned() if is_module else symbol.is_global()
            if symbol.is_referenced() and is_global:
                names.add(symbol.get_name())
        tables += table.get_children()
    return names


def _annotated(root: ast.stmt) -> set[str]:
    """Names in the annotations of a definition."""
    annotations = [getattr(node, field, None) for node in ast.walk(root) for field in ("annotation", "returns")]
    return {
        node.id
        for annotation in annotations
        if annotation
        for node in ast.walk(annotation)
        if isinstance(node, ast.Name)
    }


def _import_lines(imports: dict[str, tuple[str, str | None]]) -> list[str]:
    """Import statements in the usual order: standard library, other packages, modules of the same folder."""
    modules = sorted({f"import {source}" for source, original in imports.values() if original is None})
    names_by_module: dict[str, list[str]] = {}
    for name, (source, original) in sorted(imports.items()):
        if original is not None:
            names_by_module.setdefault(source, []).append(original if name == original else f"{original} as {name}")
    lines = modules + [f"from {source} import {', '.join(names)}" for source, names in sorted(names_by_module.items())]
    groups: tuple[list[str], ...] = ([], [], [])
    for line in lines:
        top = line.split()[1].split(".")[0]
        groups[0 if top in sys.stdlib_module_names else 1 if top else 2].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group).split("\n")


def _without(body: list[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """The statements, except those that set one of the names, and their docstrings."""
    kept, is_kept = [], True
    for statement in body:
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            is_kept = not _sets(statement, names)
        kept += [statement] if is_kept else []
    return kept


def _sets(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement sets one of the names, as a class variable or as ``self.name``."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    assigned = {getattr(target, "attr", None) or getattr(target, "id", None) for target in targets}
    return bool(assigned & names)


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _verbatim_or_unparsed(module: _Module, originals: list[ast.stmt], node: ast.stmt) -> str:
    """The source lines of the original if the node is unchanged, else the unparsed node."""
    for original in originals:
        if original.lineno == node.lineno and ast.dump(original) == ast.dump(node):
            return "\n".join(module.lines[_first_line(original) - 1 : original.end_lineno])
    if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
        lines = "\n".join(f"    {line}" if line else "" for line in inspect.cleandoc(text).splitlines())
        node.body[0] = ast.Expr(ast.Constant(lines.strip() + ("\n    " if "\n" in lines else "")))
    indent = " " * node.col_offset
    return "\n".join(indent + line if line.strip() else "" for line in ast.unparse(node).splitlines())
