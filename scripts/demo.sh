#!/bin/sh
# Takes code out of this project's own files and has it filled again: scripts/demo.sh DG-LSP
set -eu
cd "$(dirname "$0")/.."
dg_lsp=$1

# fill FILE LINE [FROM]: the first line of FILE with the text LINE loses all from FROM on (default:
# all but its indentation). Looked up by its text, so that the demo never points at another line.
fill() {
    number=$(grep -nFm1 -- "$2" "$1" | cut -d: -f1)
    line=$(sed -n "${number}p" "$1")
    blanks=${line%%[! ]*}
    before=${3:+${line%%"$3"*}}
    before=${before:-$blanks}
    "$dg_lsp" complete --line "$1:$number:$((${#before} + 1))-$((${#line} + 1))"
    echo
}

echo "The rest of a line is taken out and filled again:"
fill engine/modules.py 'self.up_proj = Projection' 'Projection('
echo "A whole line is taken out and filled again:"
fill engine/config.py 'return "silu"'
