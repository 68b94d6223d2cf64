# limit: 400
# The kernel's own NBD client on the daemon's socket: a file system through it.
. /job/guest.sh
need nbd-client; need mkfs.ext4
modprobe nbd nbds_max=1
ram_disks 2 128
node_start a
v a vgcreate vg /dev/ram0 /dev/ram1
v a lvcreate -n lv -L 64m -m 1 --frontend nbd vg
nbd-client -unix /run/a/nbd -name vg/lv /dev/nbd0 -b 4096
mkfs.ext4 -q -E lazy_itable_init=0 /dev/nbd0
mkdir -p /mnt/n
mount /dev/nbd0 /mnt/n
head -c 9000000 /job/bin/volmgr >/tmp/file; cp /tmp/file /mnt/n/volmgr
[ "$(value a lvs vg/lv -o lv_open)" = 1 ] || die "lv_open"
v a lvchange -an vg/lv 2>/dev/null && die "deactivated while open"
umount /mnt/n
fsck.ext4 -fn /dev/nbd0 >/dev/null || die "fsck"
mount /dev/nbd0 /mnt/n
cmp /tmp/file /mnt/n/volmgr || die "content"
umount /mnt/n
nbd-client -d /dev/nbd0
wait_for 60 v a lvchange -an vg/lv
