"""Tiny wheels made in code, as pip and the corpus read them."""

import zipfile

from engine.train.wheels import Package


def wheel(folder, name, files, version="1.0", licence="MIT"):
    """Writes a wheel of `files` (path -> text or bytes) into `folder` and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, content in files.items():
            archive.writestr(inner, content)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
            f"License-Expression: {licence}\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def cached(cache, name, files, licence="MIT"):
    """The same, where `fetch` keeps what it has fetched; returns the package."""
    wheel(cache / f"{name}-1.0", name, files, licence=licence)
    return Package(name, "1.0", licence)


def module(topic, functions=6):
    """Source text that parses, and shares no line of substance with that of another topic."""
    blocks = [
        f"def {topic}_step_{i}(value_of_{topic}, bound=None):\n"
        f'    """Takes step {topic} of the walk."""\n'
        f"    if value_of_{topic} is bound:\n"
        f"        raise LookupError('{topic} at its end')\n"
        f"    return {topic}_table.get(value_of_{topic}, '{topic}_{i}_alpha')\n"
        for i in range(functions)
    ]
    return "\n\n".join(blocks)
