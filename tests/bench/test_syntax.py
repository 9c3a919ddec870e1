from dataclasses import dataclass

import pytest

from bench import syntax
from bench.syntax import BLOCK, FEW_LINES, LANGUAGES, MORE_LINES, ONE_LINE, REST_OF_LINE
from dg_lsp import grammars
from tests.bench.test_holes import SOURCE as PYTHON


@dataclass(frozen=True)
class Case:
    """A source, some of the holes in it, what none of whole lines begins with, and the heads of
    its outermost functions."""

    source: str
    lines: set[str]
    few: str
    more: str
    block: str
    rests: set[str]
    never: set[str]
    functions: set[str]


JAVASCRIPT = """'use strict';

const path = require('path');
import { join } from 'node:path';
export * from './other.js';

/* Resolves names,
 * const a = not_code(1); */
exports.lookup = function lookup(names, options) {
  const found = new Map();
  names.forEach((name) => {
    if (!name) {
      return;
    }
    found.set(name, path.join(options.root, name));
  });
  const text = `
    const b = not_code(2);
  `;
  return found; // all of them
};

class Cache {
  #size = 0;
  static limit = 100;

  get(key) {
    switch (typeof key) {
      case 'string':
        this.#size += 1;
        break;
      default:
        throw new TypeError('a key must be text: ' + key);
    }
    return this.entries[key];
  }
}
"""

TYPESCRIPT = """import { Injectable } from './core';
export { Other } from './other';

export interface Options {
  root: string;
  depth?: number;
}

enum Kind {
  File = 1,
  Folder,
}

@Injectable()
export class Walker<T extends Options> {
  private readonly seen: Set<string> = new Set();
  kind = Kind.File;

  constructor(private options: T) {}

  @Memo()
  walk(start: string): string[] {
    const todo: string[] = [start];
    while (todo.length > 0) {
      const next = todo.pop() as string;
      this.seen.add(next);
    }
    return [...this.seen];
  }
}

export const depth = (options?: Options): number => {
  return options?.depth ?? 0;
};
"""

TSX = """import React from 'react';

type Props = {
  items: string[];
  onPick: (item: string) => void;
};

export const List = ({ items, onPick }: Props) => {
  const [picked, setPicked] = React.useState('');
  const pick = (item: string) => {
    setPicked(item);
    onPick(item);
  };
  return (
    <ul className="list">
      {items.map((item) => (
        <li key={item} onClick={() => pick(item)}>{item}</li>
      ))}
    </ul>
  );
};
"""

GO = """package cache

import (
	"fmt"
	"sync"
)

// Cache keeps values.
type Cache struct {
	mu     sync.Mutex
	values map[string]int
}

type Store interface {
	Get(key string) (int, error)
	Put(key string, value int)
}

func (c *Cache) Get(key string) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	value, ok := c.values[key]
	if !ok {
		return 0, fmt.Errorf("no value for %q", key)
	}
	switch {
	case value > 10:
		value = 10
		fmt.Println("cut off")
	default:
		fmt.Println(`
	x := notCode(1)
`)
	}
	return value, nil // found
}

func (c *Cache) Each(do func(string, int)) {
	for key, value := range c.values {
		do(key, value)
	}
}
"""

RUST = """//! Counts words.
use std::collections::HashMap;

/// How often: let x = not_code(1);
#[derive(Debug, Default)]
pub struct Counts {
    total: usize,
    words: HashMap<String, usize>,
}

impl Counts {
    pub fn add(&mut self, text: &str) -> usize {
        let before = self.total;
        for word in text.split_whitespace() {
            *self.words.entry(word.to_string()).or_insert(0) += 1;
            self.total += 1;
        }
        let kind = match self.total {
            0 => "none",
            1..=9 => "some",
            _ => "many",
        };
        println!("{kind}: {}", self.total);
        let help = r"
            let y = not_code(2);
        ";
        self.total - before
    }
}

#[test]
fn adds() {
    let mut counts = Counts::default();
    assert_eq!(counts.add("a b"), 2);
}
"""

C = """#ifndef LIST_H
#define LIST_H

#include <stdlib.h>
#include "util.h"

#define EACH(node, list) \\
  for (struct node *node = (list)->first; node; node = node->next)

struct node {
  int value;
  struct node *next;
};

/* Frees all:
   int x = not_code(1); */
static void clear(struct list *list) {
  struct node *node = list->first;
  while (node) {
    struct node *next = node->next;
    free(node);
    node = next;
  }
  switch (list->kind) {
  case KIND_FIXED:
    list->size = 0;
    break;
  default:
    abort();
  }
}

int sum(const struct list *list) {
  int total = 0;
  for (const struct node *node = list->first; node; node = node->next)
    total += node->value;
  return total; // all
}

#endif
"""

JAVA = """package org.example.cache;

import java.util.HashMap;
import java.util.Map;

/** Keeps values: int x = notCode(1); */
public class Cache<K, V> extends Base {
  private final Map<K, V> values = new HashMap<>();
  private int hits = 0;

  public Cache(int limit) {
    super(limit);
    this.hits = limit / 2;
  }

  @Override
  public V get(K key) {
    V value = values.get(key);
    if (value == null) {
      throw new IllegalStateException("no value for " + key);
    }
    switch (hits) {
      case 0:
        hits = 1;
        break;
      default:
        hits++;
    }
    String help = \"\"\"
        int y = notCode(2);
        \"\"\";
    return value; // found
  }
}

enum Kind {
  FIRST,
  SECOND,
}
"""

CASES = {
    "python": Case(
        source=PYTHON,
        lines={"total = sum(values) + len(values)", "if flag:", "continue", "LIMIT = 10"},
        few="self.running = False\n        self.names = []",
        more="if flag:\n        total = total * LIMIT\n"
        "        values = [value + 1 for value in values]\n        print(values)",
        block='for name in os.listdir(path):\n            if name.startswith("."):\n'
        "                continue\n            yield name, sys.getsizeof(name)",
        rests={"sum(values) + len(values)", '("."):'},
        never={"import os", "import sys", '"""Says', "return total"},
        functions={"def first(values, flag):", "def run(self, path):", "def stop(self):"},
    ),
    "javascript": Case(
        source=JAVASCRIPT,
        lines={
            "const found = new Map();",
            "if (!name) {",
            "names.forEach((name) => {",
            "class Cache {",
            "#size = 0;",
            "this.#size += 1;",
            "switch (typeof key) {",
        },
        few="this.#size += 1;\n        break;",
        more="names.forEach((name) => {\n    if (!name) {\n      return;\n    }\n"
        "    found.set(name, path.join(options.root, name));\n  });",
        block="if (!name) {\n      return;\n    }\n"
        "    found.set(name, path.join(options.root, name));",
        rests={"new Map();", "'a key must be text: ' + key);", "(!name) {"},
        never={"'use strict'", "const path = require", "import {", "export *", "return found"},
        functions={"exports.lookup = function lookup(names, options) {", "get(key) {"},
    ),
    "typescript": Case(
        source=TYPESCRIPT,
        lines={
            "root: string;",
            "Folder,",
            "private readonly seen: Set<string> = new Set();",
            "while (todo.length > 0) {",
            "export interface Options {",
            "walk(start: string): string[] {",
        },
        few="const next = todo.pop() as string;\n      this.seen.add(next);",
        more="const todo: string[] = [start];\n    while (todo.length > 0) {\n"
        "      const next = todo.pop() as string;\n      this.seen.add(next);\n    }",
        block="root: string;\n  depth?: number;",
        rests={"todo.pop() as string;", ": string[] = [start];", "?? 0;"},
        never={"import {", "export { Other", "@Memo"},
        functions={
            "constructor(private options: T) {}",
            "walk(start: string): string[] {",
            "export const depth = (options?: Options): number => {",
        },
    ),
    "typescriptreact": Case(
        source=TSX,
        lines={"items: string[];", "setPicked(item);", "const pick = (item: string) => {"},
        few="setPicked(item);\n    onPick(item);",
        more="const pick = (item: string) => {\n    setPicked(item);\n    onPick(item);\n  };",
        block="items: string[];\n  onPick: (item: string) => void;",
        rests={
            "React.useState('');",
            'className="list">',
            "onClick={() => pick(item)}>{item}</li>",
        },
        never={"import React"},
        functions={"export const List = ({ items, onPick }: Props) => {"},
    ),
    "go": Case(
        source=GO,
        lines={
            "mu     sync.Mutex",
            "defer c.mu.Unlock()",
            "if !ok {",
            "switch {",
            "type Cache struct {",
            "Put(key string, value int)",
            "value = 10",
        },
        few='value = 10\n\t\tfmt.Println("cut off")',
        more="c.mu.Lock()\n\tdefer c.mu.Unlock()\n\tvalue, ok := c.values[key]\n\tif !ok {\n"
        '\t\treturn 0, fmt.Errorf("no value for %q", key)\n\t}',
        block="for key, value := range c.values {\n\t\tdo(key, value)\n\t}",
        rests={'fmt.Errorf("no value for %q", key)', ":= range c.values {"},
        never={"package cache", "import (", '"fmt"', "return value, nil"},
        functions={
            "func (c *Cache) Get(key string) (int, error) {",
            "func (c *Cache) Each(do func(string, int)) {",
        },
    ),
    "rust": Case(
        source=RUST,
        lines={
            "total: usize,",
            "let before = self.total;",
            "self.total - before",
            "impl Counts {",
            "let kind = match self.total {",
            '1..=9 => "some",',
        },
        few='0 => "none",\n            1..=9 => "some",',
        more='let kind = match self.total {\n            0 => "none",\n'
        '            1..=9 => "some",\n            _ => "many",\n        };\n'
        '        println!("{kind}: {}", self.total);',
        block="total: usize,\n    words: HashMap<String, usize>,",
        rests={"self.total;", "= match self.total {", 'counts.add("a b"), 2);'},
        never={"use std", "#[derive", "#[test]", "///", "//!"},
        functions={"pub fn add(&mut self, text: &str) -> usize {", "fn adds() {"},
    ),
    "c": Case(
        source=C,
        lines={
            "#define LIST_H",
            "int value;",
            "while (node) {",
            "list->size = 0;",
            "int total = 0;",
            "struct node {",
        },
        few="free(node);\n    node = next;",
        more="while (node) {\n    struct node *next = node->next;\n    free(node);\n"
        "    node = next;\n  }",
        block="int value;\n  struct node *next;",
        rests={"= list->first;", "(list->kind) {", "->value;"},
        never={"#include", "return total", "/*"},
        functions={"static void clear(struct list *list) {", "int sum(const struct list *list) {"},
    ),
    "java": Case(
        source=JAVA,
        lines={
            "private int hits = 0;",
            "V value = values.get(key);",
            "if (value == null) {",
            "super(limit);",
            "public Cache(int limit) {",
            "hits = 1;",
            "FIRST,",
        },
        few="super(limit);\n    this.hits = limit / 2;",
        more="switch (hits) {\n      case 0:\n        hits = 1;\n        break;\n"
        "      default:\n        hits++;\n    }",
        block="FIRST,\n  SECOND,",
        rests={"values.get(key);", '"no value for " + key);'},
        never={"package org", "import java", "/**", "return value"},
        functions={"public Cache(int limit) {", "@Override"},
    ),
}
every_case = pytest.mark.parametrize("language", CASES)


def spans(source, language):
    encoded = source.encode()
    tree = grammars.parse(encoded, language)
    assert not tree.root_node.has_error
    found = list(syntax.spans(tree, encoded, LANGUAGES[language]))
    return [(span, encoded[span.start : span.end].decode()) for span in found]


def texts(language, split):
    return {text for span, text in spans(CASES[language].source, language) if span.split == split}


def test_every_language_has_a_case_here():
    assert {*CASES, "javascriptreact"} == set(LANGUAGES)


@every_case
def test_whole_lines_are_statements_or_the_heads_of_compound_ones(language):
    assert CASES[language].lines - texts(language, ONE_LINE) == set()


@every_case
def test_runs_of_lines_have_as_many_lines_as_their_split_says(language):
    for split, least, most in ((ONE_LINE, 1, 1), (FEW_LINES, 2, 3), (MORE_LINES, 4, 8)):
        found = texts(language, split)
        assert found
        assert all(least <= text.count("\n") + 1 <= most for text in found)
    assert CASES[language].few in texts(language, FEW_LINES)
    assert CASES[language].more in texts(language, MORE_LINES)


@every_case
def test_a_block_is_a_whole_body_without_its_docstring(language):
    assert CASES[language].block in texts(language, BLOCK)
    assert all(2 <= text.count("\n") + 1 <= 20 for text in texts(language, BLOCK))


@every_case
def test_the_rest_of_a_line_begins_at_a_token_of_code(language):
    found = texts(language, REST_OF_LINE)
    assert CASES[language].rests - found == set()
    assert not any("\n" in text or len(text.strip()) < 3 for text in found)


@every_case
def test_whole_lines_have_nothing_beside_them(language):
    encoded = CASES[language].source.encode()
    for span, text in spans(CASES[language].source, language):
        assert text == text.strip() or span.split == REST_OF_LINE
        if span.split != REST_OF_LINE:
            assert not encoded[: span.start].decode().split("\n")[-1].strip()
            assert encoded[span.end :].startswith(b"\n")


@every_case
def test_no_hole_begins_in_a_string_or_a_comment_or_asks_for_modules(language):
    source = CASES[language].source.encode()
    opaque = [place for word in (b"not_code", b"notCode") for place in places(source, word)]
    assert opaque or language in ("typescript", "typescriptreact")
    for span, text in spans(CASES[language].source, language):
        line = source.count(b"\n", 0, span.start)
        assert line not in {source.count(b"\n", 0, place) for place in opaque}, text
        if span.split != REST_OF_LINE:
            assert not text.startswith(tuple(CASES[language].never)), text


def places(source, word):
    return [i for i in range(len(source)) if source.startswith(word, i)]


@every_case
def test_holes_are_counted_by_the_outermost_function(language):
    lines = CASES[language].source.split("\n")
    found = {span.function for span, _ in spans(CASES[language].source, language)} - {"module"}
    assert {lines[int(line) - 1].strip() for line in found} == CASES[language].functions


def test_a_rest_of_line_may_not_be_the_whole_line_or_reach_into_a_string():
    found = texts("python", REST_OF_LINE)
    assert not any(text.startswith("total = ") for text in found), "the line would be whole"
    assert not any("code(in it)" in text for text in found)
    assert '"""' not in found


def test_a_comment_that_goes_on_below_is_not_torn():
    source = "int a(void) {\n  b(1, 2); /* begins\n  and ends */\n  return c(3);\n}\n"
    rests = {text for span, text in spans(source, "c") if span.split == REST_OF_LINE}
    assert not any("begins" in text for text in rests)
    assert "c(3);" in rests


def test_a_literal_is_no_block():
    source = "const a = {\n  b: 1,\n  c: 2,\n};\nconst d = [\n  1,\n  2,\n];\n"
    found = {(span.split, text) for span, text in spans(source, "javascript")}
    assert not any(split == BLOCK for split, _ in found)
    assert (ONE_LINE, "const a = {") not in found
