"""The import rules: who may know whom, read from the sources and seen at run time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for folder in ("dg_lsp", "engine") for path in (ROOT / folder).rglob("*.py"))
HEAVY = {"torch", "numpy", "safetensors", "tokenizers", "gguf", "transformers", "triton"}


def imports(source, module):
    """(line, full name) of everything that the source imports, at any depth and by any name.

    `from a import b` may name a module or not, so both `a` and `a.b` are listed.
    """
    package = module.rpartition(".")[0].split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the module's own package, each further dot the one around it.
            outer = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*outer, *filter(None, [node.module])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, node.args[0].value


def is_in(name, package):
    return name == package or name.startswith(package + ".")


def complaint(name, module):
    """Which rule the import of `name` in `module` breaks; empty for none."""
    server_side = is_in(module, "dg_lsp")
    if not server_side and is_in(name, "dg_lsp"):
        return "engine never imports dg_lsp"
    if is_in(name, "bench"):
        return "what is installed never imports bench"
    if server_side and is_in(name, "engine") and not is_in(name, "engine.request"):
        return "dg_lsp imports only engine.request of engine"
    if server_side and name.partition(".")[0] in HEAVY:
        return "dg_lsp never imports torch or what comes with it"
    if name.partition(".")[0] in ("pygls", "lsprotocol") and not is_in(module, "dg_lsp.lsp"):
        return "only dg_lsp.lsp knows pygls and lsprotocol"
    if is_in(name, "triton") and not is_in(module, "engine.kernels"):
        return "triton is imported in engine.kernels only"
    if module == "engine.sampler" and any(
        is_in(name, f"engine.{part}") for part in ("model", "attention", "modules")
    ):
        return "engine.sampler never imports engine.model"
    if module == "engine.request" and name.partition(".")[0] not in sys.stdlib_module_names:
        return "engine.request imports the standard library only"
    return ""


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_it_may(path):
    module = module_name(path)
    broken = [
        f"{path.name}:{line}: {name}: {rule}"
        for line, name in imports(path.read_text(encoding="utf-8"), module)
        if (rule := complaint(name, module))
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dg_lsp.client", "from engine import runtime"),
        ("dg_lsp.client", "import engine.config"),
        ("dg_lsp.client", "def f():\n    from engine.errors import ConfigError"),
        ("dg_lsp.client", "import importlib\nimportlib.import_module('engine.pull')"),
        ("dg_lsp.cli", "import torch.nn"),
        ("dg_lsp.cli", "from lsprotocol import types"),
        ("dg_lsp.session", "import pygls"),
        ("engine.infill", "from dg_lsp.settings import Settings"),
        ("engine.infill", "from bench import metrics"),
        ("dg_lsp.cli", "import bench.quality"),
        ("engine.server", "import pygls"),
        ("engine.model", "import triton.language as tl"),
        ("engine.sampler", "from engine.model import Model"),
        ("engine.sampler", "from . import model"),
        ("engine.sampler", "from .model import Model"),
        ("engine.sampler", "from engine.attention import Pass"),
        ("engine.request", "import torch"),
    ],
)
def test_each_rule_is_seen_when_it_is_broken(module, source):
    assert any(complaint(name, module) for _, name in imports(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dg_lsp.client", "from engine.request import InfillRequest"),
        ("dg_lsp.client", "import engine.request, engineering, os"),
        ("dg_lsp.lsp.server", "from pygls.lsp.server import LanguageServer"),
        ("engine.kernels.moe", "import triton"),
        ("engine.infill", "from engine import model\nfrom .sampler import step"),
    ],
)
def test_what_is_allowed_is_allowed(module, source):
    assert not any(complaint(name, module) for _, name in imports(source, module))


def test_torch_stays_out_of_the_language_servers_process():
    names = map(module_name, MODULES)
    ours = ", ".join(name for name in names if is_in(name, "dg_lsp"))
    assert "dg_lsp.lsp.server" in ours
    code = f"import sys, {ours}; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
