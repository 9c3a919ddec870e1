"""WHICH files no model is shown: those that look like secrets, and those that the user names.

The rule is for the file one types in and for everything that is retrieved. Pure: paths in, reasons
out. Knows nothing of settings or of what a file is wanted for.
"""

from __future__ import annotations

from collections.abc import Iterable

from pathspec import GitIgnoreSpec

_SECRETS = (  # as in a .gitignore, in small letters
    "*.env",
    ".env*",
    ".ssh/",
    ".aws/",
    ".gnupg/",
    ".kube/",
    ".docker/config.json",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.ppk",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.gpg",
    "*.asc",
    "*.crt",
    "*.cer",
    "*.der",
    "*.p7b",
    "*.ovpn",
    "*.tfvars",
    "*.tfstate",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".htpasswd",
    ".git-credentials",
    ".vault-token",
)


class Exclusions:
    """The built-in rules with the user's globs; a glob `!NAME` takes a file out of them again."""

    def __init__(self, globs: Iterable[str] = ()) -> None:
        self._secrets = GitIgnoreSpec.from_lines(_SECRETS)
        self._globs: list[str] = []
        self.messages: list[str] = []
        for glob in filter(None, map(str.strip, globs)):
            try:
                GitIgnoreSpec.from_lines([glob])
                self._globs.append(glob)
            except ValueError:
                self.messages.append(f"excludedFiles: {glob!r} is no pattern of a .gitignore")
        self._user = GitIgnoreSpec.from_lines(self._globs)

    def reason(self, path: str, folder: str = "") -> str:
        """Why the file is left alone, in words for the user; empty if it is not.

        `path` is below the workspace's `folder` and what the user's globs are about; the built-in
        rules look at the whole. Both with forward slashes.
        """
        name = path.rpartition("/")[2]
        verdict = self._user.check_file(path)
        if verdict.index is not None:
            glob = self._globs[verdict.index]
            return f"{name} is excluded by your glob {glob}" if verdict.include else ""
        verdict = self._secrets.check_file(f"{folder}/{path}".lstrip("/").lower())
        if verdict.include and verdict.index is not None:
            rule = _SECRETS[verdict.index]
            return f"{name} may hold secrets ({rule}): no model is shown it"
        return ""
