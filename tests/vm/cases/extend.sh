# limit: 1200
# disks: 450 450
# needs: mkfs.ext4 resize2fs mkfs.xfs xfs_growfs cryptsetup udevadm blockdev
# A volume grows while it is used: ext4 and xfs mounted and being written, LUKS open; the device, udev and the filesystems see it.
. /job/guest.sh
modprobe ublk_drv
modprobe xfs
modprobe dm-crypt
udev_start
node_start a
v a vgcreate vg /dev/vda /dev/vdb
dev=/dev/volmgr/vg/lv
at=/mnt/lv
mkdir -p $at
mib() { echo $(($(blockdev --getsize64 "$1") >> 20)); }
# Kernels before 6.16 cannot change the size of a device: the daemon says so, and the next activation brings it.
live=yes
space() { df --output=size -BM $at | tail -n 1 | tr -dc 0-9; }

grown() { # wanted MiB: what must be so after an lvextend
    if [ "$(mib $dev)" = "$1" ]; then
        wait_for 60 test "$(cat "/sys/class/block/$(basename "$(readlink $dev)")/size")" = $(($1 << 11))
        return
    fi
    live=no
    v a events | grep -q ublk-outdated || die "not resized, and nothing said"
    umount $at
    [ ! -e /dev/mapper/grow ] || cryptsetup close grow
    v a lvchange -an vg/lv
    v a lvchange -ay vg/lv >/dev/null
    [ "$(mib $dev)" = "$1" ] || die "$(mib $dev) MiB after activation, not $1"
}

step ext4
v a lvcreate -n lv -L 64m -m 1 vg
io_mode a vg/lv
udevadm monitor --udev --subsystem-match=block >/tmp/uevents 2>&1 & monitor=$!
mkfs.ext4 -q -E lazy_itable_init=0 $dev
mount $dev $at
fill $at
sums $at >/tmp/sums
(for i in $(seq 400); do [ -e /tmp/enough ] && exit 0; head -c $((i * 1511 % 200000)) "$bin/volmgr" >/tmp/w && cp /tmp/w $at/busy && sync -f $at || exit 1; sleep 0.05; done) & writer=$!
sleep 0.5
: >/tmp/uevents
v a lvextend -L 96m vg/lv
if [ "$(mib $dev)" != 96 ]; then touch /tmp/enough; wait $writer || die "a write failed"; fi
grown 96
if [ $live = yes ]; then
    resize2fs $dev >/tmp/resize 2>&1 || die "resize2fs, mounted: $(cat /tmp/resize)"
    # And once more at once, by an amount that is not the same.
    v a lvextend -L +64m vg/lv
    grown 160
    resize2fs $dev >/tmp/resize 2>&1 || die "resize2fs, mounted: $(cat /tmp/resize)"
    [ "$(space)" -gt 135 ] || die "df says $(space) MiB"
    wait_for 60 grep -q "change.*ublkb" /tmp/uevents
    touch /tmp/enough
    wait $writer || die "a write failed"
    rm $at/busy
    # The new space can be used, to its end.
    head -c 80M /dev/urandom >$at/new || die "no space"
    sums $at >/tmp/sums
    umount $at
else
    rm -f /tmp/enough
    v a lvextend -L +64m vg/lv
    v a lvchange -an vg/lv
    v a lvchange -ay vg/lv >/dev/null
    fsck.ext4 -fy $dev >/dev/null || true # `resize2fs` wants it
    resize2fs $dev >/tmp/resize 2>&1 || die "resize2fs: $(cat /tmp/resize)"
    mount $dev $at
    rm $at/busy
    [ "$(space)" -gt 135 ] || die "df says $(space) MiB"
    sums $at >/tmp/sums
    umount $at
fi
kill $monitor; wait $monitor || true
fsck.ext4 -fn $dev >/dev/null || die "fsck"
# The device that is made next has the new size, too.
v a lvchange -an vg/lv
v a lvchange -ay vg/lv >/dev/null
[ "$(mib $dev)" = 160 ] || die "$(mib $dev) MiB after activation"
mount $dev $at
same_files $at /tmp/sums
umount $at
plexes_equal a vg/lv
v a lvremove -y vg/lv

step "LUKS, and ext4 in it"
v a lvcreate -n lv -L 64m -m 1 vg
echo -n key >/tmp/key
cryptsetup -q --key-file /tmp/key luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $dev
cryptsetup -q --key-file /tmp/key open $dev grow
mkfs.ext4 -q -E lazy_itable_init=0 /dev/mapper/grow
mount /dev/mapper/grow $at
fill $at
sums $at >/tmp/sums
v a lvextend -L 96m vg/lv
grown 96
if [ $live = yes ]; then
    cryptsetup -q --key-file /tmp/key resize grow || die "cryptsetup resize"
    [ "$(mib /dev/mapper/grow)" = 80 ] || die "the mapping has $(mib /dev/mapper/grow) MiB"
    resize2fs /dev/mapper/grow >/tmp/resize 2>&1 || die "resize2fs: $(cat /tmp/resize)"
    [ "$(space)" -gt 65 ] || die "df says $(space) MiB"
    same_files $at /tmp/sums
    umount $at
    fsck.ext4 -fn /dev/mapper/grow >/dev/null || die "fsck"
    cryptsetup close grow
fi
wait_for 60 v a lvremove -y vg/lv

step xfs
v a lvcreate -n lv -L 304m -m 1 vg
mkfs.xfs -q -f $dev
mount $dev $at
fill $at
sums $at >/tmp/sums
v a lvextend -L 400m vg/lv
grown 400
[ $live = yes ] || mount $dev $at
xfs_growfs $at >/dev/null || die "xfs_growfs"
[ "$(space)" -gt 310 ] || die "df says $(space) MiB"
same_files $at /tmp/sums
umount $at
xfs_repair -n $dev >/tmp/check 2>&1 || die "xfs_repair: $(tail -n 5 /tmp/check)"
echo "figure: grown while in use: $live"
v a lvchange -an vg/lv
