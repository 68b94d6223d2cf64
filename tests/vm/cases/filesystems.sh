# limit: 1500
# disks: 340 340
# needs: mkfs.ext4 fsck.ext4 mkfs.xfs xfs_repair mkfs.btrfs btrfs fstrim
# ext4, xfs and btrfs on a mirror: made, mounted, filled, trimmed, checked, mounted again: the same files; equal plexes.
. /job/guest.sh
modprobe ublk_drv
for fs in xfs btrfs; do modprobe $fs; done
node_start a
v a vgcreate vg /dev/vda /dev/vdb
dev=/dev/volmgr/vg/fs
at=/mnt/fs
mkdir -p $at

check() { # filesystem: reads only
    case $1 in
    ext4) fsck.ext4 -fn $dev ;;
    xfs) xfs_repair -n $dev ;;
    btrfs) btrfs check --readonly --check-data-csum $dev ;;
    esac >/tmp/check 2>&1 || { tail -n 20 /tmp/check; die "$1 has errors"; }
}

for fs in ext4 xfs btrfs; do
    step $fs
    case $fs in # as small as they like it
    ext4) size=128m ;;
    xfs) size=304m ;;
    btrfs) size=160m ;;
    esac
    v a lvcreate -n fs -L $size -m 1 vg
    io_mode a vg/fs
    case $fs in
    ext4) mkfs.ext4 -q -E lazy_itable_init=0 $dev ;;
    xfs) mkfs.xfs -q -f $dev ;;
    btrfs) mkfs.btrfs -q -f $dev 2>/tmp/mkfs || { cat /tmp/mkfs; die mkfs.btrfs; } ;;
    esac
    mount $dev $at
    fill $at
    # Several writers at once, with fsync, over what is there and beside it.
    writers=()
    for w in 1 2 3; do
        (for i in $(seq 12); do
            dd if="$bin/volmgr" of=$at/many/w$w-$((i % 4)) bs=$((4096 * w)) count=$((i * 9)) conv=fsync status=none || exit 1
            [ $((i % 5)) != 0 ] || rm $at/many/w$w-$((i % 4))
        done) & writers+=($!)
    done
    for w in "${writers[@]}"; do wait "$w" || die "a writer failed on $fs"; done
    sums $at >/tmp/sums
    [ "$(wc -l </tmp/sums)" -gt 65 ] || die "too few files: $(wc -l </tmp/sums)"
    # What is deleted is trimmed, and nothing else.
    head -c 30M /dev/urandom >$at/deleted
    sync -f $at
    rm $at/deleted
    trimmed=$(fstrim -v $at) || die "fstrim of $fs"
    echo "figure: $fs, $trimmed"
    [ "$(sed 's/.*(\([0-9]*\) bytes).*/\1/' <<<"$trimmed")" -gt $((30 << 20)) ] || die "fstrim trimmed little: $trimmed"
    same_files $at /tmp/sums
    umount $at
    check $fs
    mount $dev $at
    same_files $at /tmp/sums
    umount $at
    # Taken off and activated again: it is on the disks, not only in the daemon or in a cache.
    v a lvchange -an vg/fs
    v a lvchange -ay vg/fs >/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    mount -o ro $dev $at
    same_files $at /tmp/sums
    umount $at
    plexes_equal a vg/fs
    v a lvremove -y vg/fs
done
