#!/bin/sh
# Tells whether `make test-containers` can run here: exit status 0 if so; 69 with one line of what is missing if not.
set -u
unavailable() {
  echo "test-containers: $1" >&2
  exit 69 # EX_UNAVAILABLE, of sysexits.h
}
[ "$(uname -s)" = Linux ] || unavailable "it needs Linux, and this is $(uname -s)"
[ "$(id -u)" -eq 0 ] || unavailable "it makes a base image by debootstrap: run it as root (sudo make test-containers)"
for tool in podman catatonit runc debootstrap iptables ip unshare; do
  command -v "$tool" >/dev/null || unavailable "$tool is missing: scripts/install_container_tools.sh installs it"
done
unshare --mount --net --pid --fork sh -c 'mount -t tmpfs tmpfs /mnt && ip link add ccr0 type bridge' 2>/dev/null ||
  unavailable "mounts or networks are not permitted: run it outside of a container"
[ -x /usr/lib/podman/netavark ] || unavailable "netavark is missing: scripts/install_container_tools.sh installs it"
