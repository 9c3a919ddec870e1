"""Where holes can be in a source, by language: spans at syntax boundaries.

One line of the table per language is all that is known of it. Pure; knows nothing of files, or of
which spans are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tree_sitter import Node, Tree

REST_OF_LINE, ONE_LINE, BLOCK = "rest of line", "1 line", "block"
FEW_LINES, MORE_LINES = "2-3 lines", "4-8 lines"
SPLITS = (REST_OF_LINE, ONE_LINE, FEW_LINES, MORE_LINES, BLOCK)
_BLOCK_LINES = range(2, 21)
# Which modules a file wants, nothing around the cursor tells; these look like something else.
_IMPORTS_BY_LOOK = re.compile(
    rb"(?:const|let|var)\b[^\n]*\brequire\(|export\b[^;\n]*\bfrom\b\s*[\"']|export\s*\*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Node types of one grammar: what holds statements, and what the others mean for holes.

    `files` hold them like a whole file, `blocks` inside something whose head ends with `opener`.
    `asides` (comments, annotations that stand alone) neither begin nor end a hole of whole lines,
    `strings` are not entered, and `endings` behind a statement belong to it.
    """

    files: frozenset[str]
    blocks: frozenset[str]
    functions: frozenset[str]
    strings: frozenset[str]
    imports: frozenset[str]
    asides: frozenset[str] = frozenset({"comment"})
    opener: str = "{"
    endings: frozenset[str] = frozenset({";", ","})


class Span(NamedTuple):
    """Bytes `start` to `end`; `function` is the line of the outermost around it, or "module"."""

    split: str
    function: str
    start: int
    end: int


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PYTHON = Language(
    files=_words("module"),
    blocks=_words("block"),
    functions=_words("function_definition"),
    strings=_words("string"),
    imports=_words("import_statement import_from_statement future_import_statement"),
    opener=":",
    endings=frozenset(),
)
_TYPESCRIPT = Language(  # and JavaScript, which has a part of these
    files=_words("program"),
    blocks=_words(
        "statement_block class_body switch_body switch_case switch_default "
        "interface_body object_type enum_body"
    ),
    functions=_words(
        "function_declaration generator_function_declaration function_expression "
        "generator_function arrow_function method_definition"
    ),
    strings=_words("string template_string regex"),
    imports=_words("import_statement import_alias"),
    asides=_words("comment html_comment hash_bang_line decorator"),
)
_GO = Language(
    files=_words("source_file"),
    blocks=_words("block statement_list field_declaration_list interface_type"),
    functions=_words("function_declaration method_declaration func_literal"),
    strings=_words("interpreted_string_literal raw_string_literal rune_literal"),
    imports=_words("import_declaration package_clause"),
)
_RUST = Language(
    files=_words("source_file"),
    blocks=_words("block declaration_list field_declaration_list enum_variant_list match_block"),
    functions=_words("function_item closure_expression"),
    strings=_words("string_literal raw_string_literal char_literal"),
    imports=_words("use_declaration extern_crate_declaration"),
    asides=_words("line_comment block_comment attribute_item inner_attribute_item"),
)
_C = Language(
    files=_words("translation_unit preproc_if preproc_ifdef preproc_else preproc_elif"),
    blocks=_words(
        "compound_statement field_declaration_list declaration_list enumerator_list case_statement"
    ),
    functions=_words("function_definition"),
    strings=_words("string_literal char_literal system_lib_string preproc_arg"),
    imports=_words("preproc_include"),
)
_JAVA = Language(
    files=_words("program"),
    blocks=_words(
        "block class_body constructor_body interface_body annotation_type_body enum_body "
        "enum_body_declarations switch_block switch_block_statement_group"
    ),
    functions=_words(
        "method_declaration constructor_declaration compact_constructor_declaration "
        "static_initializer lambda_expression"
    ),
    strings=_words("string_literal character_literal"),
    imports=_words("import_declaration package_declaration"),
    asides=_words("line_comment block_comment"),
)
# By the name that editors have for a language.
LANGUAGES = {
    "python": _PYTHON,
    "javascript": _TYPESCRIPT,
    "javascriptreact": _TYPESCRIPT,
    "typescript": _TYPESCRIPT,
    "typescriptreact": _TYPESCRIPT,
    "go": _GO,
    "rust": _RUST,
    "c": _C,
    "java": _JAVA,
}


def spans(tree: Tree, source: bytes, language: Language) -> Iterator[Span]:
    """All spans of all splits in `source`, whose tree is `tree`; one may come twice."""
    nodes = list(_walk(tree.root_node, language))
    opaque = language.strings | language.asides
    torn = {  # rows that end inside a string or a comment
        row
        for node, _ in nodes
        if node.type in opaque
        for row in range(node.start_point.row, node.end_point.row)
    }
    for node, function in nodes:
        found: Iterable[tuple[str, Node, int]] = ()
        if node.type in language.blocks or node.type in language.files:
            found = _statement_holes(node, source, language)
        elif (node.type in language.strings or not node.children) and (
            node.start_point.row not in torn and node.type not in language.asides
        ):
            end = _line_end(source, node.start_byte)
            if _opens_rest_of_line(node, source, end):
                found = [(REST_OF_LINE, node, end)]
        for split, first, end in found:
            inside = _name(first, language) if function == "module" else function
            yield Span(split, inside, first.start_byte, end)


def _statement_holes(
    body: Node, source: bytes, language: Language
) -> Iterator[tuple[str, Node, int]]:
    """Runs of whole statements in one body, lines that head a compound one, the whole body."""
    statements = [child for child in body.children if child.is_named]
    if statements and _is_docstring(statements[0]):
        del statements[0]
    ends = [_end(node, source, language) for node in statements]
    whole = [
        node.type not in language.asides and _fills_its_lines(node.start_byte, end, source)
        for node, end in zip(statements, ends, strict=True)
    ]
    for i, first in enumerate(statements):
        if not whole[i] or first.type in language.imports or _imports_by_look(first, source):
            continue
        if head := _head_end(first, source, language):
            yield ONE_LINE, first, head
        for j in range(i, len(statements)):
            lines = source.count(b"\n", first.start_byte, ends[j]) + 1
            if lines > 8:
                break
            if whole[j]:
                split = ONE_LINE if lines == 1 else FEW_LINES if lines <= 3 else MORE_LINES
                yield split, first, ends[j]
    if body.type in language.blocks and statements and whole[0] and whole[-1]:
        lines = source.count(b"\n", statements[0].start_byte, ends[-1]) + 1
        if lines in _BLOCK_LINES:
            yield BLOCK, statements[0], ends[-1]


def _end(node: Node, source: bytes, language: Language) -> int:
    """Where a statement ends, with the `;` behind it and without line ends in it."""
    after = node.next_sibling
    if after is not None and after.type in language.endings:
        between = source[node.end_byte : after.start_byte]
        if not between.strip(b" \t"):
            return after.end_byte
    return node.start_byte + len(source[node.start_byte : node.end_byte].rstrip())


def _head_end(node: Node, source: bytes, language: Language) -> int | None:
    """Where the first line of a compound statement ends, if its body is below that line."""
    end = node.start_byte + len(
        source[node.start_byte : _line_end(source, node.start_byte)].rstrip()
    )
    if end >= node.end_byte:
        return None
    last = node.descendant_for_byte_range(end - 1, end)
    if last is None or last.type != language.opener or last.parent is None:
        return None
    return end if last.parent == node or last.parent.type in language.blocks else None


def _imports_by_look(node: Node, source: bytes) -> bool:
    return _IMPORTS_BY_LOOK.match(source, node.start_byte) is not None


def _opens_rest_of_line(node: Node, source: bytes, end: int) -> bool:
    """Whether code of some substance goes from this token to the end of its line."""
    rest = source[node.start_byte : end]
    line = source[source.rfind(b"\n", 0, node.start_byte) + 1 : node.start_byte]
    return line.strip() != b"" and len(rest.strip()) >= 3


def _fills_its_lines(start: int, end: int, source: bytes) -> bool:
    before = source[source.rfind(b"\n", 0, start) + 1 : start]
    return end > start and not before.strip() and not source[end : _line_end(source, end)].strip()


def _name(node: Node, language: Language) -> str:
    """What holes in the node count as one cluster with: a function by its line, or the module."""
    return str(node.start_point.row + 1) if node.type in language.functions else "module"


def _is_docstring(node: Node) -> bool:
    inner = node.named_children[:1]
    return node.type == "expression_statement" and [n.type for n in inner] == ["string"]


def _walk(root: Node, language: Language) -> Iterator[tuple[Node, str]]:
    """All nodes but those inside strings, each with the outermost function around it."""
    nodes = [(root, "module")]
    while nodes:
        node, function = nodes.pop()
        yield node, function
        if node.type in language.strings or node.type in language.asides:
            continue
        inside = _name(node, language) if function == "module" else function
        nodes += [(child, inside) for child in reversed(node.children)]


def _line_end(source: bytes, start: int) -> int:
    end = source.find(b"\n", start)
    return len(source) if end < 0 else end
