#!/bin/sh
# The first process of the guest: mounts what a machine has, runs the command, writes its status down, switches off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TMPDIR=/tmp RUST_BACKTRACE=1 TERM=dumb
export LONGSHORE_GUEST=uml

mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
    case $word in scratch=*) scratch=${word#scratch=} ;; esac
done

mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null || mount -t tmpfs dev /dev
[ -e /dev/null ] || {
    for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 console:5:1 ptmx:5:2 kmsg:1:11; do
        IFS=: read -r name major minor <<END
$node
END
        mknod -m 666 "/dev/$name" c "$major" "$minor"
    done
}
ln -sf /proc/self/fd /dev/fd
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue 2>/dev/null
[ -e /sys/block/ubda ] && [ ! -e /dev/ubda ] && mknod -m 600 /dev/ubda b 98 0
[ -e /dev/ubda ] && export LONGSHORE_DISK=/dev/ubda
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
for directory in /tmp /run /var/tmp; do
    # The scratch directory is in /var/tmp: keep it in reach.
    [ $directory = /var/tmp ] && exec 3<"$scratch/command"
    mount -t tmpfs -o mode=1777 tmpfs $directory
done
mkdir -p "$scratch"
mount -t hostfs -o "$scratch" none "$scratch"
while read -r path; do
    [ -z "$path" ] || [ -e "$path" ] || { mkdir -p "$path" && mount -r -t hostfs -o "$path" none "$path"; }
done <"$scratch/visible"

for module in fs/overlayfs/overlay drivers/net/veth drivers/net/tun; do
    # No package of Debian's base installs insmod; busybox has one.
    busybox insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko" 2>/dev/null
done
ip link set lo up 2>/dev/null
hostname guest 2>/dev/null

cd "$(cat "$scratch/directory")" || cd /
xargs -0 sh -c '"$@" </dev/null; echo $? >/run/status' sh <"$scratch/command"
cp /run/status "$scratch/out/status"
sync
poweroff -f 2>/dev/null || echo o >/proc/sysrq-trigger
