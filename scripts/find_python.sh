#!/bin/sh
# Prints the path of a Python for the environment (3.11, 3.12 or 3.13, with venv), and its version on stderr.
#   find_python.sh [PYTHON]      PYTHON: the one to use; default: the first on PATH, otherwise one that uv downloads
set -eu

# A command on PATH may not run: pyenv's shims exit with status 127.
usable() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

take() {
    "$1" -c 'import platform, sys; print(f"Python {platform.python_version()} ({sys.executable})")' >&2
    command -v "$1"
    exit
}

if [ -n "${1:-}" ]; then
    usable "$1" && take "$1"
    echo "$1: not a Python from 3.11 to 3.13 with venv: choose another one, such as make PYTHON=python3.12" >&2
    exit 1
fi
for python in python3.11 python3.12 python3.13 python3; do
    if usable "$python"; then take "$python"; fi
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv=uv
if ! uv --version >/dev/null 2>&1; then
    uv=$folder/bin/uv
    python3 -m pip install -q --disable-pip-version-check --target "$folder" uv >&2 || {
        echo "found neither a Python from 3.11 to 3.13 with venv nor uv, which can download one: install one of them" >&2
        exit 1
    }
fi
echo "found no Python from 3.11 to 3.13: uv downloads 3.12" >&2
"$uv" python install --no-bin 3.12 >&2
take "$("$uv" python find --managed-python 3.12)"
