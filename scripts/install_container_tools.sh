#!/bin/sh
# Installs Debian's packages for `make test-containers`, as root; exit status 69 and one line if it cannot.
set -u
tools='podman catatonit runc debootstrap iptables iproute2 netavark'
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "test-containers: installing $tools needs root on Debian or Ubuntu: run it as root, or install them yourself" >&2
  exit 69
fi
# shellcheck disable=SC2086 # several words
dpkg --status $tools >/dev/null 2>&1 && exit 0
# shellcheck disable=SC2086
{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $tools; } >/dev/null || {
  echo "test-containers: apt-get could not install $tools" >&2
  exit 69
}
