#!/bin/busybox sh
# First process of the guest: loads modules, puts a root file system together and runs the tests in it.
# The kernel's console is the first serial port; what is written here goes to the second.
B=/bin/busybox
$B mkdir -p /dev /proc /r
$B mount -t devtmpfs dev /dev
$B stty -F /dev/ttyS1 -onlcr
exec </dev/null >/dev/ttyS1 2>&1

stop() {
    echo "guest: $1"
    $B reboot -f
}

$B mount -t proc proc /proc
while read -r module; do
    $B insmod "/modules/$module.ko" || stop "module $module cannot be loaded"
done </order

# A file system in memory on which the host's directories are mounted. Not an overlay over them: that hides mounts below.
$B mount -t tmpfs -o mode=755 root /r
while read -r tag access path; do
    $B mkdir -p "/r$path"
    options=trans=virtio,version=9p2000.L,msize=512000,cache=loose
    $B mount -t 9p -o "$access,$options" "$tag" "/r$path" || stop "$path of the host cannot be mounted"
done </shares

cd /r
for name in bin sbin lib lib32 lib64; do
    [ -d "usr/$name" ] && $B ln -s "usr/$name" "$name"
done
$B mkdir -p dev etc proc root run/netns sys tmp var/lib
$B ln -s ../run var/run
$B ln -s ../tmp var/tmp
$B cp /etc/* etc/
$B mount -t devtmpfs dev dev
$B mount -t proc proc proc
$B mount -t sysfs sysfs sys
$B mount -t bpf bpf sys/fs/bpf
$B mount -t cgroup2 cgroup sys/fs/cgroup
$B chmod 1777 tmp
$B ip link set lo up
$B cp /suites tmp/suites

echo "guest: Linux $($B uname -r), ready after $($B cut -d ' ' -f 1 /proc/uptime) s"
$B chroot . /bin/sh /tmp/suites
echo "guest: done"
$B reboot -f
