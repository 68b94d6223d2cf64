# limit: 700
# memory: 700
# disks: 200 200 512
# needs: fio mkfs.ext4 fsck.ext4
# Hardly any memory, swap on a disk of its own, and a mounted volume under buffered load: what the kernel writes back to get
# memory goes through the daemon, which must not wait for memory itself. A deadlock would be a hang.
. /job/guest.sh
modprobe ublk_drv
mkswap /dev/vdc >/dev/null; swapon /dev/vdc
node_start a
v a vgcreate vg /dev/vda /dev/vdb
v a lvcreate -n lv -L 160m -m 1 vg
link=/dev/volmgr/vg/lv

# What keeps it from waiting: all its memory is locked, none of its threads starts I/O to get memory (PF_MEMALLOC_NOIO,
# PF_LOCAL_THROTTLE), and it is the last one to be killed.
kib() { awk -v what="$1:" '$1 == what {print $2}' "/proc/$pid_a/status"; }
[ "$(kib VmLck)" -ge "$(kib VmRSS)" ] || die "of $(kib VmRSS) KiB $(kib VmLck) are locked"
[ "$(kib VmSwap)" = 0 ] || die "swapped out already"
threads=0
for stat in /proc/"$pid_a"/task/*/stat; do
    flags=$(sed 's/.*) //' "$stat" | cut -d' ' -f7)
    [ $((flags & 0x180000)) = $((0x180000)) ] || die "flags of $stat: $(printf %x "$flags")"
    threads=$((threads + 1))
done
[ "$(cat "/proc/$pid_a/oom_score_adj")" = -1000 ] || die "may be killed"

mkfs.ext4 -q -E lazy_itable_init=0 $link
mkdir -p /mnt/m
mount $link /mnt/m
# Half of the memory again and again: it does not fit, so it goes out to swap and comes back.
mount -o remount,size=900m /dev/shm
touch /tmp/go
(while [ -e /tmp/go ]; do head -c 450M /dev/urandom >/dev/shm/hog || exit 1; cksum </dev/shm/hog >/dev/null; rm /dev/shm/hog; done) & hog=$!
swapped() { awk '$1 == "pswpout" {print $2}' /proc/vmstat; }
# Until memory has been short for a while: how soon that is depends on the machine.
(for round in 1 2 3 4 5 6; do
    [ "$(swapped)" -le 10000 ] || [ $round = 1 ] || exit 0
    fio --name=b --directory=/mnt/m --rw=randwrite --bsrange=4k-256k --size=60m --io_size=150m --nrfiles=4 --ioengine=psync --numjobs=2 \
        --verify=crc32c --verify_fatal=1 --time_based=0 --fsync=200 --output-format=terse >/tmp/fio.out 2>/tmp/fio.err || exit 1
done) & load=$!
longest=0
while kill -0 $load 2>/dev/null; do
    began=$(date +%s%N)
    timeout 60 "$bin/volmgr" --socket /run/a/sock lvs >/dev/null || die "the daemon does not answer within a minute"
    took=$((($(date +%s%N) - began) / 1000000))
    [ $took -le $longest ] || longest=$took
    sleep 1
done
wait $load || { cat /tmp/fio.err; die "fio"; }
rm /tmp/go
wait $hog || die "the other program"
out=$(swapped)
[ "$out" -gt 10000 ] || die "only $out pages were swapped: memory was not short"
[ "$(kib VmSwap)" = 0 ] || die "the daemon was swapped out"
umount /mnt/m
fsck.ext4 -fn $link >/dev/null || die "fsck"
# Both plexes are more than half of the memory, which is what /tmp may have: with swap they fit.
mount -o remount,size=600m /tmp
plexes_equal a vg/lv
swapoff /dev/vdc
echo "figure: $threads threads, $(kib VmLck) KiB locked; $((out / 256)) MiB swapped out meanwhile; slowest listing $longest ms"
