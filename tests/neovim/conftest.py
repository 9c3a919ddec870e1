"""Neovims with the plugin, over the real language server with a scripted engine."""

import pytest

from tests.neovim.driver import program, running


@pytest.fixture(scope="session", autouse=True)
def _neovim():
    if program() is None:
        pytest.skip("no Neovim: set DG_LSP_TEST_NVIM")


@pytest.fixture(scope="package")
def one_for_all(tmp_path_factory):
    with running(tmp_path_factory.mktemp("neovim")) as nvim:
        yield nvim


@pytest.fixture
def nvim(one_for_all, tmp_path):
    """With the plugin's own ghost text, which every version can draw."""
    one_for_all.start_over(tmp_path)
    one_for_all.setup(backend="own")
    return one_for_all


@pytest.fixture
def fresh(tmp_path):
    """A process of the test's own, not yet set up."""
    with running(tmp_path) as nvim:
        yield nvim


@pytest.fixture
def typed(nvim):
    """An empty second line of three, in which was typed what the engine is to say."""

    def typed(script, text="one\n\nthree\n", keys="ji"):
        nvim.open(f"{nvim.files.name}.txt", text)
        nvim.type(keys + script)
        return nvim

    return typed
