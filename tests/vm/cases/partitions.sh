# limit: 700
# disks: 200 200
# needs: sfdisk partx mkfs.ext4 fsck.ext4 mkswap udevadm blockdev
# A partition table on a mirror, with udev running: nodes and names of the partitions, filesystem and swap on them, after a
# reactivation they are there by themselves; a volume with a used partition is in use.
. /job/guest.sh
modprobe ublk_drv
udev_start
node_start a
v a vgcreate vg /dev/vda /dev/vdb
v a lvcreate -n disk -L 128m -m 1 vg
dev=/dev/volmgr/vg/disk
io_mode a vg/disk
disk=$(readlink $dev)
name=${disk##*/}

step "a table"
printf 'label: gpt\nsize=48MiB, type=L, name=data\nsize=32MiB, type=S, name=swap\ntype=L, name=rest\n' | sfdisk -q --wipe always $dev || die "sfdisk"
udevadm settle -t 30
for n in 1 2 3; do wait_for 20 test -b "${disk}p$n"; done
[ "$(blockdev --getsize64 "${disk}p1")" = $((48 << 20)) ] || die "size of the first partition"
[ "$(cat "/sys/class/block/${name}p1/start")" = 2048 ] || die "start of the first partition"
wait_for 60 test -e /dev/disk/by-partlabel/data
[ "$(readlink -f /dev/disk/by-partlabel/data)" = "${disk}p1" ] || die "udev's name of the partition"
[ "$(partx -g -o NR $dev | wc -l)" = 3 ] || die "partx"

step "what is on them"
mkfs.ext4 -q -E lazy_itable_init=0 "${disk}p1"
mkdir -p /mnt/p
mount "${disk}p1" /mnt/p
fill /mnt/p
sums /mnt/p >/tmp/sums
mkswap -q "${disk}p2" >/dev/null
head -c 1M /dev/urandom >/tmp/raw
dd if=/tmp/raw of="${disk}p3" bs=64k oflag=direct status=none
fstrim /mnt/p || die "fstrim"

step "in use through a partition"
[ "$(value a lvs vg/disk -o lv_open)" != 0 ] || die "lv_open does not see the mounted partition"
v a lvchange -an vg/disk 2>/tmp/refused && die "deactivated under a mounted partition"
grep -q open /tmp/refused || die "$(cat /tmp/refused)"
umount /mnt/p
swapon "${disk}p2" || die "swapon"
v a lvchange -an vg/disk 2>/tmp/refused && die "deactivated under swap"
swapoff "${disk}p2"

step "the last one is deleted, and a new one made beside the others"
sfdisk -q --delete $dev 3 || die "sfdisk --delete"
udevadm settle -t 30
wait_for 60 test ! -e "${disk}p3"
echo 'size=16MiB, type=L, name=late' | sfdisk -q --append $dev || die "sfdisk --append"
udevadm settle -t 30
wait_for 60 test -b "${disk}p3"

step "activated again"
wait_for 60 v a lvchange -an vg/disk
udevadm settle -t 30
[ ! -e "${disk}p1" ] && [ ! -e /dev/disk/by-partlabel/data ] || die "partitions are left: $(ls /dev/ublk* /dev/disk/by-partlabel 2>/dev/null)"
v a lvchange -ay vg/disk >/dev/null
disk=$(readlink $dev)
udevadm settle -t 30
for n in 1 2 3; do wait_for 20 test -b "${disk}p$n"; done
wait_for 60 test -e /dev/disk/by-partlabel/data
fsck.ext4 -fn "${disk}p1" >/dev/null || die "fsck"
mount -o ro /dev/disk/by-partlabel/data /mnt/p
same_files /mnt/p /tmp/sums
umount /mnt/p
dd if="${disk}p3" bs=64k count=16 iflag=direct status=none | cmp - /tmp/raw || die "content of the last partition"
sfdisk -q --verify $dev || die "sfdisk --verify"
plexes_equal a vg/disk
wait_for 60 v a lvchange -an vg/disk
