#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# build.sh TREE OUT [NAME=VALUE ...]: build Linux 4.0 from the sources in TREE with gcc 12 or its like and our driver in it;
# OUT gets bzImage, vmlinux, layout.json and symbols.json.  Further arguments are lines for .config (CONFIG_SMP=n).
# TREE is changed: give it a copy.  JOBS: how many compilers run at a time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
shift 2

cd "$tree"
# Compilers of today: the kernel knows them up to gcc 5, and relies on what C was before 2011 and 2020.
major=$(gcc -dumpversion | cut -d. -f1)
[ -e "include/linux/compiler-gcc$major.h" ] || cp include/linux/compiler-gcc5.h "include/linux/compiler-gcc$major.h"
# An undefined function that older compilers proved to be never called.
sed -i 's/____ilog2_NaN()\s*:/0 :/; s/____ilog2_NaN()\(\s*\\\)$/0\1/' include/linux/log2.h
# Entries of a table, which newer assemblers would make shorter than its reader thinks.
sed -i 's/^\tjmp early_idt_handler$/\t.byte 0xe9\n\t.long early_idt_handler - . - 4/' arch/x86/kernel/head_64.S
# The driver.
cp "$here/driver.c" mm/oracle_driver.c
grep -q oracle_driver mm/Makefile || echo 'obj-y += oracle_driver.o' >> mm/Makefile

fragment=$(mktemp)
trap 'rm -f "$fragment"' EXIT
cat "$here/config" > "$fragment"
for line in "$@"; do
	sed -i "/^${line%%=*}=/d" "$fragment"
	echo "$line" >> "$fragment"
done
export ARCH=x86_64
make -s allnoconfig KCONFIG_ALLCONFIG="$fragment"
while IFS= read -r line; do
	case $line in
	*=n) ! grep -q "^${line%=n}=" .config || echo "warning: $line is not so" >&2 ;;
	CONFIG_*) grep -qxF "$line" .config || echo "warning: no $line" >&2 ;;
	esac
done < "$fragment"

cc=gcc
command -v ccache > /dev/null && cc="ccache gcc"
nice -n 10 make -s -j"${JOBS:-2}" CC="$cc" HOSTCC="$cc" \
	KCFLAGS="-fno-pie -fcf-protection=none -gdwarf-4 -w" KAFLAGS=-fno-pie bzImage
cp arch/x86/boot/bzImage vmlinux "$out"
cd "$here/../.."
python3 -m tools.oracle.kernel "$out"
