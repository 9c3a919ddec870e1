import pytest

from dg_lsp.exclusions import Exclusions


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.local",
        "deploy/.ENV.production",
        "prod.env",
        "certs/server.pem",
        "server.key",
        "a/b/Root-CA.CRT",
        "id_rsa",
        "keys/id_ed25519.pub",
        ".ssh/config",
        "backup/.aws/credentials",
        ".npmrc",
        "infra/prod.tfvars",
    ],
)
def test_what_looks_like_a_secret_is_excluded(path):
    assert "may hold secrets" in Exclusions().reason(path)


@pytest.mark.parametrize(
    "path",
    [
        "a.py",
        "src/environment.py",
        "keys.py",
        "ssh/client.go",
        "docs/pem.md",
        "tests/test_env.py",
        "",
    ],
)
def test_code_is_not_excluded(path):
    assert Exclusions().reason(path) == ""


def test_the_folder_around_the_workspace_counts_too():
    assert (
        Exclusions().reason("config", "/home/me/.ssh").startswith("config may hold secrets (.ssh/)")
    )
    assert Exclusions().reason("config", "/home/me/ssh") == ""


def test_the_users_globs_are_about_the_path_in_the_workspace():
    rules = Exclusions(["private/*.py", "*.sql"])
    assert rules.reason("private/a.py", "/w") == "a.py is excluded by your glob private/*.py"
    assert "*.sql" in rules.reason("db/dump.sql", "/w")
    assert rules.reason("public/private/a.py", "/w") == ""
    assert rules.reason("a.py", "/w/private") == ""


def test_the_user_may_take_a_file_out_of_the_rules():
    rules = Exclusions(["!.env.example"])
    assert rules.reason(".env.example") == ""
    assert rules.reason(".env") != ""


def test_a_glob_that_is_none_is_named_and_the_others_count():
    rules = Exclusions(["!", "*.sql"])
    assert rules.messages == ["excludedFiles: '!' is no pattern of a .gitignore"]
    assert rules.reason("a.sql") != "" and rules.reason("a.py") == ""


def test_empty_globs_exclude_nothing():
    rules = Exclusions(["", " ", "*.sql"])
    assert rules.messages == [] and rules.reason("a.py") == ""
    assert rules.reason("a.sql") == "a.sql is excluded by your glob *.sql"
