"""Ghost text says nothing that stands below already, and nothing twice."""

import pytest

from tests.dg_lsp.drawn import check

CASES = {
    # near copies
    "near copy of the next line": (
        "python",
        "║\nself.assertEqual(response.status_code, 200, response)\n",
        "├self.assertEqual(response.status_code, 201, response)┤",
        "├┤\nself.assertEqual(response.status_code, 200, response)\n",
    ),
    "short neighbours are no copies": (
        "python",
        "║\nassert f(2) == 4\n",
        "├assert f(1) == 3┤",
        "├assert f(1) == 3┤\nassert f(2) == 4\n",
    ),
    "near copy of two lines": (
        "python",
        "a = 1\n║\nresult = compute(first)\nprint(result, flush=True)\n",
        "├b = 2\nresult = compute(first)\nprint(result, flush=true)┤",
        "a = 1\n├b = 2┤\nresult = compute(first)\nprint(result, flush=True)\n",
    ),
    "half-copies stay": (
        "python",
        "║\nresult = compute(first)\nprint(result)\n",
        "├result = derive(other, 1)\nshow(result)┤",
        "├result = derive(other, 1)\nshow(result)┤\nresult = compute(first)\nprint(result)\n",
    ),
    # loops
    "line again and again": (
        "python",
        "║\n",
        "├print(abc)\nprint(abc)\nprint(abc)\nprint(abc)┤",
        "├print(abc)┤\n",
    ),
    "two lines again and again": (
        "python",
        "║\n",
        "├aaaa = 1\nbbbb = 2\naaaa = 1\nbbbb = 2\naaaa = 1\nbbbb = 2┤",
        "├aaaa = 1\nbbbb = 2┤\n",
    ),
    "the document's line again and again": (
        "python",
        "print(abc)\n║\n",
        "├print(abc)\nprint(abc)┤",
        "print(abc)\n├┤\n",
    ),
    "twice is no loop": ("python", "║\n", "├print(abc)\nprint(abc)┤", "├print(abc)\nprint(abc)┤\n"),
    "words again and again": (
        "",
        "It is ║\n",
        "├a very very very very very very┤",
        "It is ├a very┤\n",
    ),
    "closing brackets are no loop": (
        "javascript",
        "f({a: {b: {║\n",
        "├\n  c: 1,\n}\n}\n}\n);┤",
        "f({a: {b: {├\n  c: 1,\n}┤\n",
    ),
    "a ruler is no loop": (
        "python",
        "# ║\n",
        "├------------------------------┤",
        "# ├------------------------------┤\n",
    ),
}


@pytest.mark.parametrize(("language", "drawn", "completion", "expected"), CASES.values(), ids=CASES)
def test_nothing_is_said_again(language, drawn, completion, expected):
    check(drawn, completion, expected, language)
