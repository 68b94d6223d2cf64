# limit: 800
# A volume as a block device: single plex and mirror, file systems on it, its name, in use, resize, verification.
. /job/guest.sh
need mkfs.ext4; need fsck.ext4; need fio
modprobe ublk_drv
ram_disks 2 192
node_start a
v a vgcreate vg /dev/ram0 /dev/ram1
link=/dev/volmgr/vg/one

fill() { # directory
    head -c 9000000 /job/bin/volmgr >"$1/program"; mkdir "$1/many"
    for i in $(seq 60); do head -c $((i * 997)) /job/bin/volmgr >"$1/many/$i"; done
}

round() { # link
    local at=/mnt/round
    mkdir -p $at
    mkfs.ext4 -q -E lazy_itable_init=0 "$1"
    mount "$1" $at
    fill $at
    (cd $at && find . -type f -print0 | xargs -0 sha256sum) >/tmp/sums
    umount $at
    fsck.ext4 -fn "$1" >/dev/null || die "fsck of $1"
    mount "$1" $at
    (cd $at && sha256sum --quiet -c /tmp/sums) || die "files differ"
    fstrim $at || die "fstrim"
    umount $at
}

said=$(v a lvcreate -n one -L 96m vg)
grep -qx "$link" <<<"$said" || die "lvcreate did not say where: $said"
[ -b $link ] || die "no $link"
[ "$(value a lvs vg/one -o lv_path)" = $link ] || die "lv_path"
io_mode a vg/one
[ "$(blockdev --getsize64 $link)" = $((96 << 20)) ] || die "size"
[ "$(blockdev --getro $link)" = 0 ] || die "read-only"
device=$(readlink $link)
[ "$(cat /sys/block/"${device##*/}"/queue/write_cache)" = "write back" ] || die "no write cache announced: flushes would not come"
round $link

# In use: refused, and still there.
mount $link /mnt/round
[ "$(value a lvs vg/one -o lv_open)" != 0 ] || die "lv_open says nothing"
v a lvchange -an vg/one 2>/tmp/refused && die "deactivated while mounted"
grep -q "open" /tmp/refused || die "$(cat /tmp/refused)"
sync -f /mnt/round/many/1 || die "the refusal harmed the mount"
umount /mnt/round
sleep 9 <$device & reader=$!
v a lvchange -an vg/one 2>/tmp/refused && die "deactivated while open"
kill $reader; wait $reader || true

# Larger while mounted.
mount $link /mnt/round
v a lvextend -L 128m vg/one
if [ "$(blockdev --getsize64 $link)" = $((128 << 20)) ]; then
    resize2fs $link >/dev/null 2>&1 || die "resize2fs"
    [ "$(df --output=size -BM /mnt/round | tail -n 1 | tr -dc 0-9)" -gt 100 ] || die "df"
else
    v a events | grep -q ublk-outdated || die "not resized and nothing said"
fi
umount /mnt/round
v a lvchange -an vg/one
[ ! -e $link ] && [ ! -e $device ] || die "still there: $(ls -l /dev/volmgr/vg /dev/ublk*)"
v a lvchange -ay vg/one
[ "$(blockdev --getsize64 $link)" = $((128 << 20)) ] || die "size after activation"
fsck.ext4 -fn $link >/dev/null || die "fsck after resize"
v a lvremove -y vg/one

# A mirror: the same, then both plexes compared.
v a lvcreate -n two -L 64m -m 1 vg
link=/dev/volmgr/vg/two
round $link
fio --name=v --filename=$link --rw=randwrite --bsrange=512-256k --size=48m --ioengine=libaio --iodepth=32 --direct=1 \
    --verify=crc32c --fsync=16 --output-format=terse >/tmp/fio || die "fio verify"
fio --name=t --filename=$link --rw=randtrimwrite --bs=64k --size=32m --io_size=8m --ioengine=psync --direct=1 --output-format=terse >/tmp/fio || die "fio trim"
blkdiscard -z -o 1048576 -l 1048576 $link
[ "$(dd if=$link bs=1M skip=1 count=1 status=none | tr -d '\0' | wc -c)" = 0 ] || die "zeroes"
fio --name=rate --filename=$link --rw=randwrite --bs=4k --size=32m --io_size=16m --ioengine=libaio --iodepth=32 --direct=1 \
    --output-format=json >/tmp/rate
echo "figure: mirror, 4 KiB random writes, depth 32: $(sed -n 's/ *"iops" : \([0-9]*\).*/\1/p' /tmp/rate | sort -n | tail -n 1) a second (emulated CPU)"
plexes a vg/two /tmp/plex
cmp /tmp/plex0 /tmp/plex1 || die "the plexes differ"
rm /tmp/plex?

# Stopped in good order: device and name go. The next daemon brings them back.
kill -TERM "$pid_a"; wait "$pid_a" || die "volmgrd ended badly"
[ ! -e $link ] && ! ls /dev/ublkb* 2>/dev/null || die "left behind"
before=$(wc -c </job/out/volmgrd-a.log)
node_start a
wait_for 60 test -b $link
[ "$before" -gt 0 ]
v a lvchange -an --force vg/two
dmesg | grep -E "BUG|WARNING|Oops|hung task" && die "the kernel complains" || true
