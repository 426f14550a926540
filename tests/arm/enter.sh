#!/bin/sh
# Runs a command in a root folder. It is started in mount and process namespaces of its own: what it mounts, and
# every process that it starts, is gone with them.
#   enter.sh ROOT PROCESSOR [SOURCE TARGET ro|rw]... -- COMMAND...
# PROCESSOR is a folder with cpuinfo and cpu/, which stand in for /proc/cpuinfo and /sys/devices/system/cpu.
set -eu
root=$1 processor=$2
shift 2
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount --bind "$processor/cpuinfo" "$root/proc/cpuinfo"
mount --bind "$processor/cpu" "$root/sys/devices/system/cpu"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then
    mkdir -p "$root$2"
  else
    mkdir -p "$(dirname "$root$2")"
    [ -e "$root$2" ] || : >"$root$2"
  fi
  mount --bind -o "$3" "$1" "$root$2"
  shift 3
done
shift
# Not by exec: the first process of a namespace outlives its own fatal signals, so that a crash would hang.
chroot "$root" "$@"
