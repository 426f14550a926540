#!/bin/sh
# The tools that the container tests need, from Debian's packages.
#   container_tools.sh check      says what is missing: status 1
#   container_tools.sh install    installs it, where this is permitted; else says so: status 1
set -eu
missing=''
for pair in podman:podman runc:runc debootstrap:debootstrap iptables:iptables; do
  command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
test -x /usr/lib/podman/netavark || missing="$missing netavark"
[ "$(id -u)" = 0 ] || { echo 'container tests: only root can make a base image by debootstrap' >&2; exit 1; }
[ -n "$missing" ] || exit 0
if [ "$1" = check ]; then
  echo "container tests: missing$missing: apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
# shellcheck disable=SC2086  # several words
{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $missing; } >/dev/null ||
  { echo "container tests: could not install$missing" >&2; exit 1; }
