#!/bin/sh
# Has the kernel run 64-bit Arm programs by qemu until standard input ends, which it does however its owner ends.
# It is started in a mount namespace of its own. Every run has an entry of its own, so that none takes it away from
# another, and the newest entry counts, whatever others the machine has. Prints the entry's file.
set -eu
qemu=$(command -v qemu-aarch64-static)
binfmt=/proc/sys/fs/binfmt_misc entry=ccr-deploy-$$
[ -e "$binfmt/register" ] || mount -t binfmt_misc binfmt_misc "$binfmt"
# An ELF file of 64 bits, little-endian, an executable or a shared object, for AArch64. F: qemu is opened now, and
# need not be in a root folder.
magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":$entry:M::$magic:$mask:$qemu:F" >"$binfmt/register"
echo "$binfmt/$entry"
cat >/dev/null
echo -1 >"$binfmt/$entry"
