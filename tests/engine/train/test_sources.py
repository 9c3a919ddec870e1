"""What packages are, whoever brings them: names, versions, and licences that are judged."""

import pytest

from engine.train import sources
from engine.train.sources import Package


def test_a_package_is_asked_for_in_its_clients_own_words():
    assert Package("tiny", "1.0", "MIT").requirement == "tiny==1.0"
    assert Package("@a/tiny", "1.0", "MIT", "npm").requirement == "@a/tiny@1.0"


def test_a_list_is_one_package_a_line_with_the_licence_last():
    assert sources.read_list("\na 1.0 MIT\nb 2 BSD License\n", "npm") == (
        Package("a", "1.0", "MIT", "npm"),
        Package("b", "2", "BSD License", "npm"),
    )


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("MIT", ""),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", ""),
        ("Apache Software License", ""),
        ("ISC License (ISCL)", ""),
        ("Permission is hereby granted, free of charge, to any person", ""),
        ("GPL-2.0-only", "copyleft or restricted licence (GPL)"),
        ("GNU Lesser General Public License v3", "copyleft or restricted licence (General Public)"),
        ("MPL-2.0 AND MIT", "copyleft or restricted licence (MPL)"),
        ("EPL-2.0 OR BSD-3-Clause", "copyleft or restricted licence (EPL)"),
        ("MIT; Other/Proprietary License", "copyleft or restricted licence (Proprietary)"),
        ("", "unknown licence"),
        ("see LICENSE", "unknown licence"),
        ("SEE LICENSE IN LICENSE.md", "unknown licence"),
        ("UNLICENSED", "unknown licence"),
        ("(MIT OR GPL-3.0-or-later)", "copyleft or restricted licence (GPL)"),
        ("MIT; Apache2", ""),
        ("LIMITED", "unknown licence"),
    ],
)
def test_a_licence_is_permissive_or_refused_with_a_reason(licence, reason):
    assert sources.refusal(licence) == reason
