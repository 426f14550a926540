#!/bin/sh
# Installs ccr-deploy into an environment of its own, and makes what an unprivileged user needs.
#   install.sh WHEELS EXTRAS     the folder with ccr-deploy's wheel; extras with commas between
# The environment sees the image's own packages: TensorRT's images bring TensorRT's.
set -eu
wheels=$1 extras=$2
prefix=${PREFIX:-/opt/ccr-deploy} engines=${ENGINES:-/engines}

python3 -m venv --system-site-packages "$prefix"
set -- "$wheels"/ccr_deploy-*.whl
"$prefix/bin/pip" install --no-cache-dir --disable-pip-version-check "$1[$extras]"
"$prefix/bin/ccr-deploy" --version
install -d -m 0700 -o 10001 -g 10001 "$engines"
