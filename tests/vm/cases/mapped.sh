# limit: 400
# needs: fio mkfs.ext4
# The mode for kernels that have neither zero copy nor user copy: the kernel copies each request to and from memory of the daemon.
# Such a kernel boots no guest here, so the mode is configured. A mirror with a feed, verified; a filesystem; the daemon's death.
. /job/guest.sh
modprobe ublk_drv
ram_disks 3 96
printf '[ublk]\nmode = "mapped"\n' >/run/mapped
config_of[a]=/run/mapped
bytes() { value a "$@" --units b --nosuffix; }
node_start a
node_start b
trust a b
v a vgcreate va /dev/ram0 /dev/ram1
v b vgcreate vb /dev/ram2
v a lvcreate -n lv -L 48m -m 1 va
disk=/dev/volmgr/va/lv
[ "$(value a lvs va/lv -o lv_io_mode)" = mapped ] || die "mode $(value a lvs va/lv -o lv_io_mode)"
[ "$(value a lvs va/lv -o lv_io_reason)" = configured ] || die "reason $(value a lvs va/lv -o lv_io_reason)"
# Each write is copied before anyone reads it: the pages may change.
[ "$(cat "/sys/block/$(basename "$(readlink $disk)")/queue/stable_writes")" = 0 ] || die "stable_writes is set for nothing"
# The payload must not go through the character device.
echo 'p:usercopy/read ublk_ch_read_iter' >/sys/kernel/tracing/kprobe_events
echo 'p:usercopy/write ublk_ch_write_iter' >>/sys/kernel/tracing/kprobe_events
echo 1 >/sys/kernel/tracing/events/usercopy/enable

check() { # fio's options: writes, and reads back what it wrote
    fio --name=v --filename=$disk --ioengine=libaio --direct=1 --verify=crc32c --output-format=terse "$@" >/tmp/fio || die "fio $*"
}
step "one disk after the other: sizes, depths, zeroes"
before=$(bytes lvs va/lv -o lv_copied_bytes)
check --rw=randwrite --bsrange=512-256k --size=32m --io_size=8m --iodepth=32 --fsync=16
[ $(($(bytes lvs va/lv -o lv_copied_bytes) - before)) -ge $((16 << 20)) ] || die "copies are not counted"
check --rw=randrw --bs=4k --size=8m --iodepth=64 --numjobs=2 --offset_increment=8m
dd if=/dev/urandom of=/tmp/random bs=1M count=4 status=none
dd if=/tmp/random of=$disk bs=4M oflag=direct status=none
dd if=$disk bs=4M count=1 iflag=direct status=none | cmp - /tmp/random || die "a large transfer"
blkdiscard -z -o 1048576 -l 1048576 $disk
[ "$(dd if=$disk bs=1M skip=1 count=1 iflag=direct status=none | tr -d '\0' | wc -c)" = 0 ] || die "zeroes"
plexes_equal a va/lv

step "with a feed, and killed under load"
v b lvcreate -n lv -L 48m vb --frontend nbd
v a feedattach va/lv b:vb/lv --discard-peer
v a feedwait va/lv b --timeout 120
fio --name=k --filename=$disk --rw=randwrite --bsrange=4k-128k --size=32m --io_size=24m --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --do_verify=1 --output-format=terse >/tmp/fio 2>&1 & client=$!
sleep 2
kill -KILL "$pid_a"; wait "$pid_a" || true
node_start a
wait_for 30 sh -c "$bin/volmgr --socket /run/a/sock lvs --noheadings -o lv_path va/lv | grep -q /dev/volmgr"
wait $client || die "fio under kill: $(tail -n 3 /tmp/fio)"
[ "$(value a lvs va/lv -o lv_io_mode)" = mapped ] || die "after recovery: $(value a lvs va/lv -o lv_io_mode)"
sync
v a feedwait va/lv b --timeout 120
v a feedverify va/lv b || die "the sides differ"
v a plexsync --verify va/lv || die "the plexes differ"

step "a filesystem"
mkfs.ext4 -q -E lazy_itable_init=0 $disk
mkdir -p /mnt/lv
mount $disk /mnt/lv
head -c 9000000 "$bin/volmgr" >/mnt/lv/program
umount /mnt/lv
fsck.ext4 -fn $disk >/dev/null || die "fsck"
mount $disk /mnt/lv
head -c 9000000 "$bin/volmgr" | cmp - /mnt/lv/program || die "content"
umount /mnt/lv
[ "$(awk '{n += $2} END {print n + 0}' /sys/kernel/tracing/kprobe_profile)" = 0 ] || die "payload through the character device"
v a lvchange -an va/lv
