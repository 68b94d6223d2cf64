# limit: 900
# needs: fio
# kill -9 of the daemon 20 times under fio's verify load, with a feed attached: no I/O error, nothing lost that was
# acknowledged, the plexes are equal in the end, and the feed has sent what it missed, not everything.
. /job/guest.sh
kills=20
modprobe ublk_drv
ram_disks 4 160
node_start a
node_start b
trust a b
v a vgcreate vga /dev/ram0 /dev/ram1
v b vgcreate vgb /dev/ram2 /dev/ram3
v a lvcreate -n lv -L 128m -m 1 vga
v a feedattach vga/lv b:vgb/lv --create
v a feedwait vga/lv b --timeout 120
link=/dev/volmgr/vga/lv
device=$(readlink $link)
served() { [ "$(value a lvs vga/lv -o lv_path)" = $link ]; }
sent() { # bytes that the feed has sent since this daemon started
    echo $(($(value a feeds vga/lv -o payload_kernel_bytes --units b --nosuffix) + $(value a feeds vga/lv -o payload_copied_bytes --units b --nosuffix)))
}

# Writes 24 MiB again and again within the first 96, each round checked by reading it back; it ends when it is told to.
touch /tmp/go
(while [ -e /tmp/go ]; do
    fio --name=v --filename=$device --rw=randwrite --bsrange=512-64k --size=96m --io_size=24m --ioengine=libaio --iodepth=16 --direct=1 \
        --verify=crc32c --verify_fatal=1 --fsync=64 --randrepeat=0 --output-format=terse >/tmp/fio.out 2>/tmp/fio.err || exit 1
    echo round >>/tmp/rounds
done) & load=$!

longest=0
for i in $(seq $kills); do
    sleep "0.$((RANDOM % 9 + 1))"
    kill -0 $load 2>/dev/null || { cat /tmp/fio.err; die "fio has failed before kill $i"; }
    kill -KILL "$pid_a"; wait "$pid_a" 2>/dev/null || true
    began=$(date +%s%N)
    node_start a
    wait_for 90 served
    took=$((($(date +%s%N) - began) / 1000000))
    [ $took -gt $longest ] && longest=$took
    [ "$(readlink $link)" = "$device" ] || die "another device after kill $i"
    [ $((i % 5)) = 0 ] && echo "kill $i: $(wc -l </tmp/rounds 2>/dev/null || echo 0) rounds of fio"
done
rm /tmp/go
wait $load || { cat /tmp/fio.err; die "fio found an error"; }
[ "$(wc -l </tmp/rounds)" -gt 0 ] || die "fio did nothing"
v a feedwait vga/lv b --timeout 120

# The last kill without load but for one known write: what the feed sends then is what the log names, not the volume.
dd if=/dev/urandom of=$device bs=64k count=8 seek=1600 oflag=direct conv=notrunc status=none
kill -KILL "$pid_a"; wait "$pid_a" 2>/dev/null || true
node_start a
wait_for 90 served
v a feedwait vga/lv b --timeout 120
again=$(sent)
[ "$again" -le $((64 << 20)) ] || die "the feed sent $again bytes again: as good as everything"
[ "$(v a events | grep -c ublk-recovered)" -ge $((kills + 1)) ] || die "not taken over each time"

v a feeddetach vga/lv b --point end
cat $device >/tmp/device
plexes a vga/lv /tmp/a-plex
for p in 0 1; do cmp /tmp/device /tmp/a-plex$p || die "plex$p differs"; done
plexes b vgb/lv /tmp/b-plex
cmp /tmp/device /tmp/b-plex0 || die "the sink differs"
dmesg | grep "I/O error" && die "an error has reached the kernel"
echo "figure: $kills kills under $(wc -l </tmp/rounds) rounds of fio verify; longest pause until served again $longest ms; sent again after the last kill: $again bytes of $((128 << 20))"
