"""What parses and does something is code; the rest has its reason."""

import pytest

from engine.train.languages import language_of
from engine.train.syntax import python_complaint
from tests.engine.train.packed import module, script

CODE = {
    "a.py": module("walk"),
    "a.js": script("walk"),
    "a.mjs": "import x from 'x'\nexport default class A { #b = 1; static async *c() {} }\n",
    "a.cjs": "#!/usr/bin/env node\n'use strict'\nmodule.exports = (a) => a ?? 1\n",
    "a.jsx": "export const A = ({ b }) => <p className='c'>{b} &amp; <B {...b} /></p>\n",
    "a.ts": "export interface A<T extends string = 'b'> { readonly [key: string]: T }\n",
    "a.mts": "export abstract class A { private b?: number; declare c: unknown }\n",
    "a.tsx": "const A = <T,>(b: T): JSX.Element => <p>{b as string}</p>\n",
}


@pytest.mark.parametrize("path", CODE)
def test_code_of_every_language_is_good(path):
    assert language_of(path).complaint(CODE[path]) == ""


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "print 'old'\n"),
        ("a.js", "function f( { return 1 }\n"),
        ("a.js", "function f(x: number) { return x }\n"),
        ("a.ts", "const a = <p>b</p>;\nfunction f() {}\n"),
        ("a.tsx", "const a = <p>b</q>;\nfunction f( {}\n"),
    ],
)
def test_what_does_not_parse_is_no_code(path, text):
    assert language_of(path).complaint(text) == "does not parse"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "import os\nname = os.sep\n"),
        ("a.js", "import a from 'a'\nexport * from 'b'\nexport const c = { d: [1, 'e'] }\n"),
        ("a.cjs", "'use strict'\nmodule.exports = { a: require('./a'), b: [1, 2] }\n"),
        ("a.ts", "export { A, type B } from './a.js'\nexport const c: number = 1\n"),
    ],
)
def test_imports_and_data_alone_are_no_code(path, text):
    assert language_of(path).complaint(text) == "imports and data only"


def test_deep_nesting_is_no_crash():
    assert python_complaint("(" * 5000 + ")" * 5000) == "does not parse"
    deep = "x = " + "[" * 5000 + "]" * 5000 + "\n"
    assert language_of("a.js").complaint(deep) == "imports and data only"
