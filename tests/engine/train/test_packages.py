"""The fixed lists: permissive, pinned, and without anything that is kept for the evaluation."""

import pytest

from engine.train.npm_packages import NPM_HELD_OUT, NPM_PACKAGES
from engine.train.packages import HELD_OUT, HELD_OUT_IMPORTS, PACKAGES
from engine.train.sources import refusal

PYTHON = "httpx rich starlette attrs click tqdm jinja2 packaging tomlkit boltons more-itertools"
SCRIPTS = "express commander lodash"


def test_every_package_is_pinned_and_named_once():
    every = (*PACKAGES, *NPM_PACKAGES, *HELD_OUT, *NPM_HELD_OUT)
    assert all(p.name and p.version[0].isdigit() for p in every)
    assert len({p.name for p in every}) == len(every)  # the manifest knows packages by name
    assert {p.client for p in (*PACKAGES, *HELD_OUT)} == {"pip"}
    assert {p.client for p in (*NPM_PACKAGES, *NPM_HELD_OUT)} == {"npm"}


@pytest.mark.parametrize("packages", [PACKAGES, NPM_PACKAGES])
def test_every_package_learned_from_is_permissive(packages):
    assert [p.requirement for p in packages if refusal(p.licence)] == []


def test_what_the_evaluation_keeps_is_held_out_whatever_its_licence():
    assert {p.name for p in HELD_OUT} == set(PYTHON.split())
    assert {name.replace("-", "_") for name in PYTHON.split()} <= HELD_OUT_IMPORTS
    assert {p.name for p in NPM_HELD_OUT} == set(SCRIPTS.split())
    assert [p.name for p in HELD_OUT if refusal(p.licence)] == ["tqdm"]  # MPL: only to exclude


def test_no_copy_of_what_is_held_out_is_learned_from():
    copies = (*SCRIPTS.split(), "underscore")
    names = [p.name.rpartition("/")[2] for p in NPM_PACKAGES]
    assert [name for name in names if name.startswith(copies)] == []
