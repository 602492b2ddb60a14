"""Fold constants in Python code to remove unreachable branches, and remove annotations."""

import ast
import copy
from collections.abc import Mapping


def fold(node: ast.stmt, replaced: Mapping[str, str]) -> ast.stmt:
    """Replace expressions, given as ``ast.unparse`` writes them, and remove the code that becomes unreachable."""
    folded = _Folder(replaced).visit(node)
    assert isinstance(folded, ast.stmt)
    return folded


def without_annotations(node: ast.stmt) -> ast.stmt:
    """A copy of a statement without annotations, which otherwise does the same."""
    return ast.fix_missing_locations(_AnnotationRemover().visit(copy.deepcopy(node)))


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
        dominant = isinstance(node.op, ast.Or)  # True decides an ``or``, False an ``and``
        if any(_constant(value) is dominant for value in node.values):
            return ast.copy_location(ast.Constant(dominant), node)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        value = _constant(node.operand)
        if isinstance(node.op, ast.Not) and value is not None:
            return ast.copy_location(ast.Constant(not value), node)
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        value = _constant(node.test)
        return node if value is None else (node.body if value else node.orelse)


class _AnnotationRemover(ast.NodeTransformer):
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
    """The statements up to the first that returns or raises."""
    for index, statement in enumerate(body):
        if isinstance(statement, ast.Return | ast.Raise):
            return body[: index + 1]
    return body
