"""Tiny wheels and tarballs made in code, as pip, npm and the corpus read them."""

import io
import json
import tarfile
import zipfile

from engine.train.sources import Package


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


def member(name, content="", **changes):
    """One entry of a tarball: its header, changed as wished, and its content."""
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def tarball(path, members):
    """Writes entries made by `member` as a `.tgz` and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def npm_tarball(folder, name, files, version="1.0.0", licence="MIT"):
    """Writes a tarball as npm makes them, `files` being path -> text or bytes."""
    about = json.dumps({"name": name, "version": version, "license": licence})
    entries = [member("package/package.json", about)]
    entries += [member(f"package/{inner}", content) for inner, content in files.items()]
    return tarball(folder / f"{name.strip('@').replace('/', '-')}-{version}.tgz", entries)


def npm_cached(cache, name, files, licence="MIT"):
    """The same, where `fetch` keeps what it has fetched; returns the package."""
    folder = cache / f"{name.replace('/', '+')}-1.0.0"
    npm_tarball(folder, name, files, licence=licence)
    return Package(name, "1.0.0", licence, "npm")


def script(topic, functions=6):
    """The same as `module` in JavaScript that is TypeScript, too."""
    blocks = [
        f"/** Takes step {topic} of the walk. */\n"
        f"export function {topic}Step{i}(valueOf{topic}, bound = null) {{\n"
        f"  if (valueOf{topic} === bound) {{\n"
        f"    throw new RangeError('{topic} at its end');\n"
        f"  }}\n"
        f"  return {topic}Table.get(valueOf{topic}) ?? '{topic}_{i}_alpha';\n"
        f"}}\n"
        for i in range(functions)
    ]
    return "\n".join(blocks)


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
