#!/bin/sh
# Takes code out of this project's own files and has it filled again: scripts/demo.sh DG-LSP
set -eu
cd "$(dirname "$0")/.."
dg_lsp=$1

# fill LINE [FROM]: the first line of the engine with the text LINE loses all from FROM on (default: all but its
# indentation). Looked up by its text, so that the demo never points at another line or file.
fill() {
    found=$(grep -rnFm1 --include='*.py' -- "$1" engine | head -n 1)
    file=$(echo "$found" | cut -d: -f1)
    number=$(echo "$found" | cut -d: -f2)
    line=$(sed -n "${number}p" "$file")
    blanks=${line%%[! ]*}
    before=${2:+${line%%"$2"*}}
    before=${before:-$blanks}
    "$dg_lsp" complete --line "$file:$number:$((${#before} + 1))-$((${#line} + 1))"
    echo
}

echo "The rest of a line is taken out and filled again:"
fill 'self.up_proj = Projection' 'Projection('
echo "A whole line is taken out and filled again:"
fill 'return "silu"'
