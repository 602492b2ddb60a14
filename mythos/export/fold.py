"""Code without the branches that constants close, and without annotations."""

import ast
import copy
from collections.abc import Mapping


def fold(node: ast.stmt, replaced: Mapping[str, str]) -> ast.stmt:
    """Replace expressions, given as ``ast.unparse`` writes them, and drop what can then never run."""
    folded = _Folder(replaced).visit(node)
    assert isinstance(folded, ast.stmt)
    return folded


def without_annotations(node: ast.stmt) -> ast.stmt:
    """A copy that does the same and reads no name in an annotation."""
    return ast.fix_missing_locations(_Bare().visit(copy.deepcopy(node)))


class _Folder(ast.NodeTransformer):
    def __init__(self, replaced: Mapping[str, str]) -> None:
        self.replaced = replaced

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        if isinstance(node, ast.expr) and self.replaced and (text := self.replaced.get(ast.unparse(node))):
            return ast.copy_location(ast.parse(text, mode="eval").body, node)
        visited = super().visit(node)
        if isinstance(visited, ast.FunctionDef):
            visited.body = _reachable(visited.body)
        return visited

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        closes = isinstance(node.op, ast.Or)
        if any(_constant(value) is closes for value in node.values):
            return ast.copy_location(ast.Constant(closes), node)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        known = _constant(node.operand)
        if isinstance(node.op, ast.Not) and known is not None:
            return ast.copy_location(ast.Constant(not known), node)
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        known = _constant(node.test)
        return node if known is None else (node.body if known else node.orelse)


class _Bare(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.Pass()
        self.generic_visit(node.value)
        return ast.Assign([node.target], node.value)


def _constant(node: ast.expr) -> bool | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, bool) else None


def _reachable(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements up to the first that leaves the function."""
    for place, statement in enumerate(body):
        if isinstance(statement, ast.Return | ast.Raise):
            return body[: place + 1]
    return body
