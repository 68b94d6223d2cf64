# limit: 1200
# disks: 320 320
# needs: fio blkdiscard
# fio's verification of the raw device: reads, writes, trims, flushes, FUA; mixed sizes, depths and jobs; then equal plexes.
. /job/guest.sh
modprobe ublk_drv
node_start a
v a vgcreate vg /dev/vda /dev/vdb
v a lvcreate -n raw -L 256m -m 1 vg
dev=/dev/volmgr/vg/raw
io_mode a vg/raw
device=$(basename "$(readlink $dev)")
stats() { awk '{print $'"$1"'}' "/sys/block/$device/stat"; } # field: 5 writes done, 12 discards done, 16 flushes done

f() { # what, fio's options: errors are errors, verification stops at the first difference
    local what=$1; shift
    step "$what"
    fio --filename=$dev --direct=1 --group_reporting --verify_fatal=1 --randrepeat=0 --output-format=terse --terse-version=3 "$@" \
        >/tmp/fio 2>&1 || { tail -n 20 /tmp/fio; die "fio: $what"; }
    ! grep -iE 'verify.*(fail|bad)|error=' /tmp/fio || die "fio: $what"
}

# Every block carries its offset and a number of the run, so that what is in another place or old is found.
verify=(--verify=crc32c --verify_backlog=64 --verify_interval=4096)
f "random writes, deep, sizes of 4 to 256 KiB" --name=v --rw=randwrite --bsrange=4k-256k --blockalign=4k --size=64m --io_size=48m \
    --ioengine=libaio --iodepth=64 "${verify[@]}"
f "sectors of 512 bytes, unaligned" --name=v --rw=randwrite --bsrange=512-8k --blockalign=512 --size=8m --io_size=6m \
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_interval=512
f "four jobs side by side, reads and writes" --name=v --rw=randrw --rwmixread=40 --bssplit=4k/50:16k/20:64k/20:1m/10 --size=40m \
    --io_size=16m --numjobs=4 --offset_increment=40m --ioengine=libaio --iodepth=16 --verify=crc32c --verify_interval=4096
f "sequential, large" --name=v --rw=write --bs=4m --size=96m --ioengine=io_uring --iodepth=4 --verify=md5 --verify_interval=64k

flushes=$(stats 16)
f "flushes among the writes" --name=v --rw=randwrite --bs=4k --size=16m --io_size=4m --fsync=8 --ioengine=libaio --iodepth=8 --verify=crc32c
[ $(($(stats 16) - flushes)) -gt 20 ] || die "few flushes reached the device: $(($(stats 16) - flushes))"
# FUA: a synchronous direct write of one block is a write with FUA on a device that announces it.
f "FUA" --name=v --rw=randwrite --bs=8k --size=16m --io_size=2m --sync=dsync --ioengine=psync --verify=crc32c

# Trims: nothing beside what was trimmed changes. (fio 3.33 crashes on trims that it verifies itself.)
trims=$(stats 12)
f "trims and writes in turn" --name=t --rw=randtrimwrite --bs=64k --size=32m --io_size=8m --ioengine=psync
head -c 8M /dev/urandom >/tmp/random
dd if=/tmp/random of=$dev bs=1M seek=64 oflag=direct status=none
for i in $(seq 0 31); do blkdiscard -o $(((64 << 20) + i * 262144 + 4096)) -l $((4096 + i * 4096)) $dev; done
dd if=$dev bs=1M skip=64 count=8 iflag=direct of=/tmp/trimmed status=none
for i in $(seq 0 31); do # the hole of each quarter of a MiB, which may read as anything, is taken from what was read
    dd if=/tmp/trimmed of=/tmp/random bs=4096 skip=$((i * 64 + 1)) seek=$((i * 64 + 1)) count=$((i + 1)) conv=notrunc status=none
done
cmp /tmp/trimmed /tmp/random || die "a trim changed what was beside it"
[ "$(stats 12)" -ge $((trims + 32)) ] || die "trims did not reach the device: $(($(stats 12) - trims))"

# Zeroes are zeroes, to the byte.
step zeroes
head -c 8M /dev/urandom >/tmp/random
dd if=/tmp/random of=$dev bs=1M seek=100 oflag=direct status=none
blkdiscard -z -o $(((100 << 20) + 12288)) -l $((3 << 20)) $dev
{ head -c 12288 /tmp/random; head -c 3M /dev/zero; tail -c +$((12288 + (3 << 20) + 1)) /tmp/random; } >/tmp/wanted
dd if=$dev bs=1M skip=100 count=8 iflag=direct status=none | cmp - /tmp/wanted || die "write zeroes"
blkdiscard -o $((200 << 20)) -l $((16 << 20)) $dev

step "the plexes, by the daemon and on the disks"
v a plexsync --verify vg/raw || die "plexsync --verify"
plexes_equal a vg/raw
[ "$(value a plexs vg/raw -o plex_state | sort -u)" = active ] || die "not every plex is active: $(v a plexs vg/raw)"
v a lvchange -an vg/raw
