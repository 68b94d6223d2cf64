# limit: 600
# needs: fio mkfs.ext4 fsck.ext4
# An upgrade: the daemon is stopped in good order and another program takes its place, five times under fio's verify load,
# with a mounted file system on a second volume. I/O pauses and goes on; nothing fails.
. /job/guest.sh
modprobe ublk_drv
ram_disks 2 160
cp -r "$bin" /tmp/programs-0
bin=/tmp/programs-0
node_start a
v a vgcreate vg /dev/ram0 /dev/ram1
v a lvcreate -n raw -L 64m -m 1 vg
v a lvcreate -n files -L 48m -m 1 vg
device=$(readlink /dev/volmgr/vg/raw)
# In use also between two rounds of fio: a device that nobody uses ends with its daemon and is made anew by the next one, and
# meanwhile fio would make a file of its name.
exec 9<"$device"
mkfs.ext4 -q -E lazy_itable_init=0 /dev/volmgr/vg/files
mkdir -p /mnt/f
mount /dev/volmgr/vg/files /mnt/f
served() { value a lvs vg -o lv_path | grep -c /dev/volmgr | grep -qx 2; }

touch /tmp/go
(while [ -e /tmp/go ]; do
    fio --name=v --filename="$device" --rw=randwrite --bsrange=4k-64k --size=48m --io_size=16m --ioengine=libaio --iodepth=16 --direct=1 \
        --verify=crc32c --verify_fatal=1 --randrepeat=0 --output-format=terse >/tmp/fio.out 2>/tmp/fio.err || exit 1
    echo round >>/tmp/rounds
done) & load=$!
(i=0; while [ -e /tmp/go ]; do i=$((i + 1)); head -c 300000 /job/bin/volmgr >/mnt/f/$((i % 30)) && sync -f /mnt/f || exit 1; done) & writer=$!

longest=0
for i in $(seq 5); do
    sleep 1
    cp -r "$bin" /tmp/programs-"$i"
    began=$(date +%s%N)
    kill -TERM "$pid_a"; wait "$pid_a" || die "volmgrd ended badly at upgrade $i"
    rm -r "$bin"
    bin=/tmp/programs-$i
    node_start a
    wait_for 90 served
    took=$((($(date +%s%N) - began) / 1000000))
    [ $took -gt $longest ] && longest=$took
    [ "$(readlink "/proc/$pid_a/exe")" = "$bin/volmgrd" ] || die "not the new program"
    kill -0 $load 2>/dev/null || { cat /tmp/fio.err; die "fio has failed at upgrade $i"; }
done
rm /tmp/go
wait $load || { cat /tmp/fio.err; die "fio found an error"; }
wait $writer || die "a write to the file system failed"
[ "$(v a events | grep -c ublk-recovered)" -ge 10 ] || die "not taken over each time"
exec 9<&-
umount /mnt/f
fsck.ext4 -fn /dev/volmgr/vg/files >/dev/null || die "fsck"
for lv in raw files; do
    plexes a vg/$lv /tmp/$lv-plex
    cmp /tmp/$lv-plex0 /tmp/$lv-plex1 || die "the plexes of $lv differ"
done
dmesg | grep "I/O error" && die "an error has reached the kernel"
echo "figure: 5 upgrades under $(wc -l </tmp/rounds) rounds of fio verify; longest from SIGTERM until served again $longest ms"
