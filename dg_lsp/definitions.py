"""What a source file defines and imports: names with their signatures, by its syntax tree.

A definition is given as a reader would look it up: a function's head and the start of what is
said about it, a class's head with its members' heads, a short type in full. Pure; knows nothing
of files, or of which definition helps where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tree_sitter import Node

from dg_lsp.grammars import parse

MAX_CHARS = 600  # of one definition
_MAX_LINES = 16
_MAX_MEMBERS = 12
_DOC_LINES = 2

_FUNCTIONS = {
    "function_definition",
    "function_declaration",
    "generator_function_declaration",
    "method_definition",
    "method_declaration",
    "method_signature",
    "constructor_declaration",
    "function_item",
    "function_signature_item",
    "method",
    "singleton_method",
}
_CLASSES = {
    "class_definition",
    "class_declaration",
    "abstract_class_declaration",
    "class_specifier",
    "class",
    "impl_item",
    "trait_item",
    "interface_declaration",
}
_WHOLE = {
    "struct_item",
    "struct_specifier",
    "union_specifier",
    "enum_item",
    "enum_specifier",
    "enum_declaration",
    "record_declaration",
    "type_alias_declaration",
    "type_definition",
    "type_item",
    "type_spec",
    "alias_declaration",
    "const_item",
    "static_item",
    "const_spec",
    "var_spec",
    "macro_definition",
    "preproc_def",
    "preproc_function_def",
    "declaration",
    "variable_declarator",
    "assignment",
    "assignment_statement",
}
_AROUND = {  # what only stands around definitions
    "export_statement",
    "decorated_definition",
    "expression_statement",
    "lexical_declaration",
    "variable_declaration",
    "type_declaration",
    "const_declaration",
    "var_declaration",
    "var_spec_list",
    "template_declaration",
    "namespace_definition",
    "internal_module",
    "ambient_declaration",
    "module",
    "mod_item",
    "linkage_specification",
    "preproc_ifdef",
    "preproc_if",
    "preproc_else",
    "declaration_list",
    "statement_block",
    "body_statement",
}
_ITS_OWN_HEAD = {"export_statement", "decorated_definition", "template_declaration"}
_KEYWORDS = {"type_declaration", "const_declaration", "lexical_declaration", "variable_declaration"}
_FIELDS = {"public_field_definition", "property_signature", "field_declaration", "field_definition"}
_IMPORTS = {
    "import_statement",
    "import_from_statement",
    "future_import_statement",
    "import_declaration",
    "use_declaration",
    "preproc_include",
    "package_clause",
    "package_declaration",
    "using_declaration",
}
_IMPORT_CALL = re.compile(
    r"(?:require|require_relative|load|source|\.)\s|@import\s"
    r"|(?:local|const|let|var)\s.*\brequire\b"
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One name, the text that tells about it, and its lines in the file, counted from 0."""

    name: str
    text: str
    line: int
    end_line: int
    member: bool = False


def definitions(source: str, language: str) -> tuple[Definition, ...]:
    """What `source` defines at its outermost level, and its classes' members."""
    encoded = source.encode()
    tree = parse(encoded, language)
    if tree is None:
        return ()
    found = _Reader(encoded).walk(tree.root_node, tree.root_node, 0)
    return tuple(definition for definition in found if len(definition.name) > 1)


def imports(source: str, language: str) -> str:
    """The lines by which `source` imports, as they are; calls that import by their look."""
    tree = parse(source.encode(), language)
    if tree is None:
        return ""
    lines = source.split("\n")
    wanted = {row for row, line in enumerate(lines) if _IMPORT_CALL.match(line)}
    nodes = list(tree.root_node.children)
    for node in nodes:
        if node.type.startswith("preproc_if"):
            nodes.extend(node.children)
        if node.type in _IMPORTS:
            end = node.end_point
            wanted.update(range(node.start_point.row, end.row + (end.column > 0)))
    return "\n".join(lines[row] for row in sorted(wanted))


class _Reader:
    """Walks one file's tree; nodes count in bytes, so the source stays encoded."""

    def __init__(self, source: bytes) -> None:
        self._source = source

    def walk(self, node: Node, outer: Node, depth: int) -> Iterator[Definition]:
        """The definitions below `node`; `outer` is what the next one's text starts with."""
        for child in node.named_children:
            alone = node.type in _KEYWORDS and node.named_child_count == 1
            start = outer if alone or node.type in _ITS_OWN_HEAD else child
            kind = child.type
            if kind in _FUNCTIONS:
                yield from self._defined(child, self._head(start, child), start)
            elif kind in _CLASSES:
                yield from self._class(child, start)
            elif kind in _WHOLE:
                yield from self._defined(child, self._brief(start, child), start)
            elif kind in _AROUND and depth < 6:
                yield from self.walk(child, start, depth + 1)

    def _class(self, node: Node, start: Node) -> Iterator[Definition]:
        head = self._head(start, node)
        body = node.child_by_field_name("body")
        members: list[Definition] = []
        lines: list[str] = []
        for child in body.named_children if body is not None else ():
            inner = child.child_by_field_name("definition") or child
            if inner.type in _FUNCTIONS:
                text = self._head(child, inner)
                members += self._defined(inner, text, child)
                lines.append(text)
            elif inner.type in _FIELDS or self._is_typed(inner):
                lines.append(self._indented(inner, inner.end_byte))
        yield from self._defined(node, "\n".join([head, *lines[:_MAX_MEMBERS]]), start)
        first = self._indented(node, node.end_byte).split("\n", 1)[0].rstrip("{ ")
        for member in members:
            yield replace(member, text=_clipped(f"{first}\n{member.text}"), member=True)

    def _defined(self, node: Node, text: str, start: Node) -> Iterator[Definition]:
        if name := self._name(node):
            last = node.end_point.row
            yield Definition(name, _clipped(text), start.start_point.row, last)

    def _head(self, start: Node, node: Node) -> str:
        """The text up to the body, with what is said about it above or at the body's start."""
        body = node.child_by_field_name("body")
        end = node.end_byte if body is None else body.start_byte
        head = self._indented(start, end).rstrip().removesuffix("{").rstrip()
        return "\n".join(filter(None, [self._comment(start), head, self._docstring(body)]))

    def _brief(self, start: Node, node: Node) -> str:
        """The whole text of something short; of a function in a variable the head."""
        value = node.child_by_field_name("value")
        body = value.child_by_field_name("body") if value is not None else None
        text = self._indented(start, node.end_byte if body is None else body.start_byte)
        return "\n".join(filter(None, [self._comment(start), text.rstrip()]))

    def _name(self, node: Node) -> str:
        """The last part of the name: that by which it is used."""
        named: Node | None = node
        for _ in range(6):
            if named is None:
                return ""
            inner = next(
                filter(None, map(named.child_by_field_name, ("name", "declarator", "left"))), None
            )
            if inner is None:
                break
            named = inner
        if named is node:
            named = node.child_by_field_name("type")  # an `impl`
        name = self._text(named) if named is not None else ""
        return re.split(r"[.:]", name)[-1] if re.fullmatch(r"[\w.:~$]+", name) else ""

    def _comment(self, node: Node) -> str:
        above = node.prev_named_sibling
        lines: list[str] = []
        row = node.start_point.row
        while above is not None and "comment" in above.type:
            end = above.end_point.row - (above.end_point.column == 0)
            if end != row - 1 or len(lines) > 40:
                break
            lines = self._indented(above, above.end_byte).rstrip().split("\n") + lines
            row, above = above.start_point.row, above.prev_named_sibling
        return "\n".join(lines[:_DOC_LINES])

    def _docstring(self, body: Node | None) -> str:
        first = body.named_children[0] if body is not None and body.named_children else None
        if first is None or first.type != "expression_statement" or not first.named_children:
            return ""
        string = first.named_children[0]
        if string.type != "string":
            return ""
        lines = self._indented(string, string.end_byte).split("\n")
        if len(lines) == 1:
            return lines[0]
        closing = '"""' if '"""' in lines[0] else "'''"
        return lines[0] + closing

    def _is_typed(self, node: Node) -> bool:
        """Whether this is a field with a type, as a dataclass has them."""
        inner = node.named_children[0] if node.named_children else None
        return inner is not None and inner.child_by_field_name("type") is not None

    def _indented(self, node: Node, end: int) -> str:
        """The text from the start of the node's line, if only blanks stand before it."""
        line = node.start_byte - node.start_point.column
        start = node.start_byte if self._source[line : node.start_byte].strip() else line
        return self._source[start:end].decode()

    def _text(self, node: Node) -> str:
        return self._source[node.start_byte : node.end_byte].decode()


def _clipped(text: str) -> str:
    lines = text[:MAX_CHARS].split("\n")
    if len(text) > MAX_CHARS:
        lines = lines[:-1] or lines
    return "\n".join(lines[:_MAX_LINES]).rstrip()
