# limit: 700
# memory: 3072
# Payload never enters the daemon where the kernel can: two plexes and a plaintext live feed from the same request pages.
# The daemon's own counters say so, and the kernel is asked, too: its trace of the lane's ring, and a probe on the calls with
# which user copy would fetch the bytes. Where the kernel cannot, the mode is another one and says why.
. /job/guest.sh
need fio
modprobe ublk_drv
ram_disks 3 192
mkdir -p /run/conf
printf '[ublk]\nmode = "user-copy"\n' >/run/conf/user-copy
bytes() { value a "$@" --units b --nosuffix; }
node_start a
node_start b
trust a b
v a vgcreate va /dev/ram0 /dev/ram1
v b vgcreate vb /dev/ram2
v a lvcreate -n lv -L 64m -m 1 va
disk=/dev/volmgr/va/lv

mode=$(value a lvs va/lv -o lv_io_mode)
reason=$(value a lvs va/lv -o lv_io_reason)
t=/sys/kernel/tracing
load() { # seed
    fio --name=w --filename=$disk --rw=randwrite --bsrange=512-256k --size=48m --io_size=12m --ioengine=libaio --iodepth=16 --direct=1 \
        --randseed="$1" --output-format=terse >/tmp/fio || die "fio write"
}
case $(uname -r) in
6.1[0-5].*)
    [ "$mode" = user-copy ] || die "mode $mode"
    grep -q 6.16 <<<"$reason" || die "no reason for the fallback: '$reason'"
    v a events | grep -q ublk-fallback || die "no event of the fallback"
    load 1
    [ "$(bytes lvs va/lv -o lv_copied_bytes)" -ge $((12 << 20)) ] || die "copies are not counted"
    echo "figure: $mode: $reason"
    exit 0 ;;
esac
[ "$mode" = zero-copy ] || die "mode $mode: $reason"
[ -z "$reason" ] || die "a reason for the best mode: $reason"

v b lvcreate -n lv -L 64m vb --frontend nbd
v a feedattach va/lv b:vb/lv --discard-peer
v a feedwait va/lv b --timeout 120
echo 'p:usercopy/read ublk_ch_read_iter' >$t/kprobe_events
echo 'p:usercopy/write ublk_ch_write_iter' >>$t/kprobe_events
probes() { awk "{n += \$2} END {print n + 0}" $t/kprobe_profile; }
echo 1 >$t/events/usercopy/enable
echo 32768 >$t/buffer_size_kb
echo 1 >$t/events/io_uring/io_uring_submit_req/enable
before=$(bytes lvs va/lv -o lv_copied_bytes)
[ "$before" = 0 ] || die "$before bytes copied before anyone used the volume"
kernel=$(bytes feeds va/lv -o payload_kernel_bytes)
copied=$(bytes feeds va/lv -o payload_copied_bytes)
load 2
sync
v a feedwait va/lv b --timeout 60
echo 0 >$t/events/io_uring/io_uring_submit_req/enable
[ "$(bytes lvs va/lv -o lv_copied_bytes)" = 0 ] || die "$(bytes lvs va/lv -o lv_copied_bytes) bytes copied"
[ "$(probes)" = 0 ] || die "$(cat $t/kprobe_profile)"
live=$(($(bytes feeds va/lv -o payload_kernel_bytes) - kernel))
[ "$(bytes feeds va/lv -o payload_copied_bytes)" = "$copied" ] || die "the feed copied payload"
[ $live -ge $((11 << 20)) ] || die "only $live bytes went out live"
grep -F 'lane va/lv' $t/trace | grep -o 'opcode [A-Z_0-9]*' | sort | uniq -c >/job/out/opcodes
cat /job/out/opcodes
grep -Eq 'opcode (WRITE|READ|WRITEV|READV|SEND|SENDMSG|SEND_ZC|SENDMSG_ZC|RECV|RECVMSG)$' /job/out/opcodes && die "payload moves by other operations"
grep -q 'opcode WRITE_FIXED' /job/out/opcodes || die "no trace"
echo "figure: live feed $((live >> 10)) KiB, copied 0,$(tr -s '\n ' ' ' </job/out/opcodes | sed 's/opcode //g')"
v a feedverify va/lv b || die "the sides differ"
[ "$(bytes lvs va/lv -o lv_copied_bytes)" = 0 ] || die "verification copies"

# Reads and everything else, with verification by fio.
fio --name=v --filename=$disk --rw=randrw --bsrange=512-256k --size=32m --io_size=8m --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --fsync=32 --output-format=terse >/tmp/fio || die "fio verify"
[ "$(bytes lvs va/lv -o lv_copied_bytes)" = 0 ] || die "reads copy"

# The daemon dies under load: the pages are registered with the next one's ring, no error reaches the client.
fio --name=k --filename=$disk --rw=randwrite --bsrange=4k-128k --size=32m --io_size=24m --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --do_verify=1 --output-format=terse >/tmp/fio 2>&1 & client=$!
for _ in 1 2; do
    sleep 1.5
    kill -KILL "$pid_a"; wait "$pid_a" || true
    node_start a
    wait_for 90 sh -c "$bin/volmgr --socket /run/a/sock lvs --noheadings -o lv_path va/lv | grep -q /dev/volmgr"
done
wait $client || die "fio under kill: $(tail -n 3 /tmp/fio)"
[ "$(value a lvs va/lv -o lv_io_mode)" = zero-copy ] || die "after recovery: $(value a lvs va/lv -o lv_io_mode)"
[ "$(bytes lvs va/lv -o lv_copied_bytes)" = 0 ] || die "copies after recovery"
v a feedwait va/lv b --timeout 120
v a feedverify va/lv b || die "the sides differ after recovery"
v a plexsync --verify va/lv || die "the plexes differ after recovery"
v a lvchange -an va/lv
v a vgs >/dev/null

# Forced to the older way: the probes see it (so they would have seen it above), and the counter does.
kill -TERM "$pid_a"; wait "$pid_a" || die "volmgrd ended badly"
config_of[a]=/run/conf/user-copy
node_start a
v a lvchange -ay va/lv
[ "$(value a lvs va/lv -o lv_io_mode)" = user-copy ] || die "not forced: $(value a lvs va/lv -o lv_io_mode)"
[ "$(value a lvs va/lv -o lv_io_reason)" = configured ] || die "reason: $(value a lvs va/lv -o lv_io_reason)"
load 3
[ "$(bytes lvs va/lv -o lv_copied_bytes)" -ge $((12 << 20)) ] || die "copies are not counted"
[ "$(probes)" -gt 0 ] || die "the probes see nothing"
v a lvchange -an va/lv
dmesg | grep -E "BUG|WARNING|Oops|hung task" && die "the kernel complains" || true
