#!/usr/bin/env bash
# Runs a test binary inside a user-mode Linux with cgroup v2 alone, and ends as it ends.
#
#   .ci/uml/run.sh TESTBINARY [ARGS...]
#
# The kernel (Debian's user-mode-linux, 6.1) is an ordinary process that sees this machine's files read-only; what the test
# writes goes to memory and is gone afterwards. It has an empty disk of 64 MiB, whose name is in LONGSHORE_DISK.
# Environment: UML_TIMEOUT in seconds (600), UML_MEMORY (2G), UML_APPEND (more words for the kernel's command line).
# Exit status: the test's; 124 when the time is over; 125 when the kernel did not get as far as the test.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 125; }
command -v linux.uml >/dev/null || { echo "SKIPPED: no linux.uml (install user-mode-linux)" >&2; exit 0; }
[ "$(id -u)" = 0 ] || { echo "SKIPPED: needs root, so that the tests inside have it" >&2; exit 0; }

here=$(cd "$(dirname "$0")" && pwd)
# Not below /tmp, which is hidden inside.
scratch=$(mktemp -d /var/tmp/longshore-uml.XXXXXX)
guest=
finish() {
    # The kernel's own processes end with it; this is for the case that it is stuck.
    [ -z "$guest" ] || kill -KILL -- "-$guest" 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir "$scratch/out"
binary=$(realpath "$1")
shift
printf '%s\0' "$binary" "$@" >"$scratch/command"
printf '%s\n' "$PWD" >"$scratch/directory"
# What stays in reach, should it lie where the guest has memory of its own: the sources, and what was built.
printf '%s\n' "$(realpath "$here/../..")" "${CARGO_TARGET_DIR:-}" >"$scratch/visible"
install -m 755 "$here/init.sh" "$scratch/init"

truncate -s 64M "$scratch/out/disk"

# The kernel says goodbye, and its console ends lines as terminals do.
mkfifo "$scratch/console"
sed -u -e 's/\r$//' -e '/^reboot: System halted$/d' <"$scratch/console" &
reader=$!

# The guest's memory is an unlinked file.
memory=/dev/shm
[ -d $memory ] && [ -w $memory ] || memory=$scratch

# A session of its own: one group to signal, and no terminal for the kernel to change.
TMPDIR=$memory setsid timeout --kill-after=5 "${UML_TIMEOUT:-600}" \
    linux.uml umid=guest uml_dir="$scratch/out/" mem="${UML_MEMORY:-2G}" \
    root=/dev/root rootfstype=hostfs rootflags=/ ro init="$scratch/init" scratch="$scratch" ubd0="$scratch/out/disk" ${UML_APPEND:-} \
    con=null con0=null,fd:1 ssl=null quiet loglevel=2 panic=-1 </dev/null >"$scratch/console" 2>&1 &
guest=$!
ended=0
wait $guest || ended=$?
kill -KILL -- "-$guest" 2>/dev/null || true
guest=
wait $reader || true

if [ -s "$scratch/out/status" ]; then
    exit "$(cat "$scratch/out/status")"
fi
if [ $ended = 124 ] || [ $ended = 137 ]; then
    echo "out of time after ${UML_TIMEOUT:-600} s" >&2
    exit 124
fi
echo "the kernel ended before the test did (status $ended)" >&2
exit 125
