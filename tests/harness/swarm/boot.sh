# First process of a machine (`machine.rs`): makes its file systems, then stays until its input ends.
# Arguments: directory of the machine, host name, address of the name server; then for each hierarchy of control
# groups: where below /sys/fs/cgroup (`.` for that itself), type, options.
set -eu
directory=$1 name=$2 nameserver=$3
shift 3
# The process id as the outside knows it: this /proc is still the outside's.
read -r pid rest </proc/self/stat
hostname "$name"
mount -t proc proc /proc
# A limit of the whole kernel, which dockerd would raise.
mount --bind /proc/sys/kernel/keys /proc/sys/kernel/keys
mount -o remount,bind,ro /proc/sys/kernel/keys

# What is written here stays here.
mount -t tmpfs -o mode=755 tmpfs "$directory/scratch"
for top in etc opt root var; do
    mkdir "$directory/scratch/$top" "$directory/scratch/$top.work"
    mount -t overlay \
        -o "lowerdir=/$top,upperdir=$directory/scratch/$top,workdir=$directory/scratch/$top.work" overlay "/$top"
done
mkdir -p /var/lib/docker
mount --bind "$directory/docker" /var/lib/docker
mount --bind "$directory/run" /run
echo "$name" >/etc/hostname
# Docker asks these for every image before it takes the one that it has; here it is refused without delay.
printf '%s\n' '127.0.0.1 localhost' "127.0.1.1 $name" '127.0.0.1 registry-1.docker.io index.docker.io' >/etc/hosts
rm -f /etc/resolv.conf
echo "nameserver $nameserver" >/etc/resolv.conf

# /sys shows the network namespace in which it was mounted.
mount -t sysfs sysfs /sys
mount -t bpf -o mode=700 bpf /sys/fs/bpf
[ "$1" = . ] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while [ $# -gt 0 ]; do
    mkdir -p "/sys/fs/cgroup/$1"
    mount -t "$2" -o "$3" "$2" "/sys/fs/cgroup/$1"
    if [ "$1" = . ]; then
        # Processes are in the leaves only, or controllers cannot be handed on.
        mkdir -p /sys/fs/cgroup/init
        echo 0 >/sys/fs/cgroup/init/cgroup.procs
        sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    fi
    shift 3
done
echo "$pid"
# Whoever holds the other end of the input is gone for whatever reason: so is the machine.
exec tini -s -- cat
