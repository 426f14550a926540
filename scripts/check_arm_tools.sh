#!/bin/sh
# Checks whether `make test-arm` can run on this machine: exit status 0, or 69 and one line that names what is missing.
set -u
unavailable() {
  echo "test-arm: $1" >&2
  exit 69 # EX_UNAVAILABLE, of sysexits.h
}
[ "$(uname -s)" = Linux ] || unavailable "it needs Linux, and this is $(uname -s)"
[ "$(id -u)" -eq 0 ] || unavailable "it makes a root folder and mounts in it: run it as root (sudo make test-arm)"
for tool in debootstrap qemu-aarch64-static unshare setpriv chroot; do
  command -v "$tool" >/dev/null ||
    unavailable "$tool is missing: on Debian and Ubuntu, apt-get install debootstrap qemu-user-static util-linux"
done
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
  unavailable "Debian's keys are missing: apt-get install debian-archive-keyring"
unshare --mount --pid --fork sh -c \
  '[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc' 2>/dev/null ||
  unavailable "mounts or binfmt_misc are not permitted: run it outside of a container, with binfmt_misc in the kernel"
