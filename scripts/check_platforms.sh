#!/bin/sh
# Asks the package index, by uv, whether every extra resolves to wheels on the Pythons and platforms that it is for,
# and prints a table. Exit status 1 if one does not that has to.
set -u
cd "$(dirname "$0")/.." || exit

arm=aarch64-unknown-linux-gnu
failed=0
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

resolves() { # PYTHON PLATFORM EXTRAS [OPTION ...]
    python=$1 platform=$2 extras=$3
    shift 3
    set -- "$@" --python-version "$python" --python-platform "$platform"
    for extra in $(echo "$extras" | tr , ' '); do set -- "$@" --extra "$extra"; done
    # NVIDIA gives the packages below as sources that only name, or fetch, their wheels.
    for package in tensorrt-rtx tensorrt-rtx-cu13; do set -- "$@" --no-binary "$package"; done
    uv pip compile -q --no-header --no-annotate --only-binary :all: "$@" pyproject.toml -o /dev/null 2>"$answer"
}

row() { printf '%-8s %-28s %-18s %s\n' "$1" "$2" "$3" "$4"; }

row Python platform extra wheels
constrained=onnx,openvino,export,precision,rtx,train,video,serve,kubernetes,report
