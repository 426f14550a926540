#!/bin/sh
# Installs ccr-deploy into a virtual environment.
#   install.sh WHEELS REQUIREMENTS     the folder with ccr-deploy's wheel; a requirement file with hashes
# The environment includes the image's own packages: NVIDIA's images provide TensorRT's.
set -eu
wheels=$1 requirements=$2
prefix=${PREFIX:-/opt/ccr-deploy}

python3 -m venv --system-site-packages "$prefix"
pip() { "$prefix/bin/python" -m pip "$@"; }
pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$requirements"
pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index "$wheels"/ccr_deploy-*.whl
# A smaller image: nothing is installed later. Python 3.12 creates environments without setuptools.
pip uninstall --quiet --yes setuptools
pip uninstall --quiet --yes pip
"$prefix/bin/ccr-deploy" --version
