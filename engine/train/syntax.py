"""Whether a text is code of its language, and more than imports and data.

Python by its own parser, JavaScript and TypeScript by tree-sitter, whose grammars come in wheels.
Knows nothing of files.
"""

from __future__ import annotations

import ast
import importlib
import warnings
from functools import cache

from tree_sitter import Language, Node, Parser

_WRONG, _BARE = "does not parse", "imports and data only"
_DOING = frozenset(
    [
        "abstract_class_declaration", "arrow_function", "class", "class_declaration",
        "do_statement", "enum_declaration", "for_in_statement", "for_statement",
        "function_declaration", "function_expression", "generator_function",
        "generator_function_declaration", "if_statement", "interface_declaration",
        "method_definition", "switch_statement", "try_statement", "type_alias_declaration",
        "while_statement",
    ]
)  # fmt: skip


def python_complaint(text: str) -> str:
    """Why Python `text` is not worth learning from; empty when it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a corpus may write "\d"; that is its affair
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _WRONG
    plain = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign)
    return "" if any(not isinstance(node, plain) for node in body) else _BARE


def script_complaint(text: str, module: str, grammar: str) -> str:
    """The same for what the grammar function `grammar` of the wheel's `module` can parse."""
    root = _parser(module, grammar).parse(text.encode()).root_node
    if root.has_error:
        return _WRONG
    return "" if _does_something(root) else _BARE


def _does_something(root: Node) -> bool:
    """Whether anything in the tree is more than a name, a literal, a call or an assignment."""
    cursor = root.walk()
    while True:
        node = cursor.node
        if node is not None and node.type in _DOING:
            return True
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return False


@cache
def _parser(module: str, grammar: str) -> Parser:
    return Parser(Language(getattr(importlib.import_module(module), grammar)()))
