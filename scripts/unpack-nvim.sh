#!/usr/bin/env bash
# unpack-nvim.sh SUITE DIR: unpacks the Neovim of a Debian suite (trixie: 0.10; forky: 0.12 or later) and its libraries
# into DIR, beside and without touching what is installed. Prints the program's path. Needs a Debian with apt.
set -euo pipefail
suite=${1:?which suite}
directory=$(realpath -m "${2:?where to}")
apt=$directory/apt
root=$directory/root
program=$directory/nvim

if [ ! -x "$program" ]; then
    mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial "$root"
    : > "$apt/status"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 'debian/*$')
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/sources.list"
    options=(-qq -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
        -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$apt/lists"
        -o APT::Install-Recommends=false -o Debug::NoLocking=true -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update >&2
    apt-get "${options[@]}" --yes --download-only install neovim >&2
    for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$root"; done

    loader=$(find "$root" -name 'ld-linux*.so*' -type f | head -1)
    libraries=$(dirname "$loader")
    elf=$(find "$root/usr/bin" -name 'nvim*' -type f | head -1)
    cat > "$program" <<WRAPPER
#!/bin/sh
export VIMRUNTIME='$root/usr/share/nvim/runtime'
export LUA_PATH='$root/usr/share/lua/5.1/?.lua;;' LUA_CPATH='$libraries/lua/5.1/?.so;;'
exec '$loader' --library-path '$libraries:$libraries/lua/5.1' '$elf' "\$@"
WRAPPER
    chmod +x "$program"
fi
echo "$program"
