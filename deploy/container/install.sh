#!/bin/sh
# Installs ccr-deploy into an environment of its own.
#   install.sh WHEELS REQUIREMENTS     the folder with ccr-deploy's wheel; what it needs, with hashes
# The environment sees the image's own packages: TensorRT's images bring TensorRT's.
set -eu
wheels=$1 requirements=$2
prefix=${PREFIX:-/opt/ccr-deploy}

python3 -m venv --system-site-packages "$prefix"
pip() { "$prefix/bin/python" -m pip "$@"; }
pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$requirements"
pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index "$wheels"/ccr_deploy-*.whl
# Nothing is installed later. Python 3.12 makes environments without setuptools.
pip uninstall --quiet --yes setuptools
pip uninstall --quiet --yes pip
"$prefix/bin/ccr-deploy" --version
