#!/bin/sh
# Checks whether `make test-containers` can run on this machine: exit status 0, or 69 and one line that names what is missing.
set -u
unavailable() {
  echo "test-containers: $1" >&2
  exit 69 # EX_UNAVAILABLE, of sysexits.h
}
# Uses the tests' settings. The root file system is one program that needs no library.
one_container() {
  mkdir "$folder/root" && cp /sbin/ldconfig "$folder/root" &&
    printf '%s\n' '[containers]' 'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]' '[engine]' 'runtime = "runc"' \
      'cgroup_manager = "cgroupfs"' 'events_logger = "file"' >"$folder/containers.conf" &&
    CONTAINERS_CONF=$folder/containers.conf unshare --mount podman --root "$folder/storage" --runroot "$folder/run" \
      --tmpdir "$folder/state" --storage-driver overlay run --rm --network none --cpus 1 --memory 64m \
      --read-only --cap-drop all --rootfs "$folder/root" /ldconfig --version
}
[ "$(uname -s)" = Linux ] || unavailable "it needs Linux, and this is $(uname -s)"
[ "$(id -u)" -eq 0 ] || unavailable "it makes a base image with debootstrap: run it as root (sudo make test-containers)"
for tool in podman catatonit runc debootstrap iptables ip unshare; do
  command -v "$tool" >/dev/null || unavailable "$tool is missing: scripts/install_container_tools.sh installs it"
done
unshare --mount --net --pid --fork sh -c 'mount -t tmpfs tmpfs /mnt && ip link add ccr0 type bridge' 2>/dev/null ||
  unavailable "mounts or networks are not permitted: run it outside of a container"
[ -x /usr/lib/podman/netavark ] || unavailable "netavark is missing: scripts/install_container_tools.sh installs it"
folder=$(mktemp -d) || exit
reason=$(one_container 2>&1 >/dev/null)
status=$?
rm -rf "$folder"
[ "$status" -eq 0 ] || unavailable "podman cannot run a container on this machine: $(echo "$reason" | tail -n 1)"
