# limit: 3600
# memory: 3072
# needs: fio drbdmeta
# A volume with a feed beside the kernel's DRBD, both ends of both in one kernel: RAM disks of one kind, loopback, in the clear, no
# scheduler anywhere, in interleaved rounds. Full syncs, resyncs of what changed while the two sides were apart, writes that are
# acknowledged at once (async, protocol A) and when the other side has them (sync, protocol C).
# ROUNDS, EACH (seconds) and WRITES (patterns) may be set. Only the ratios mean anything: the processor is emulated.
. /job/guest.sh
. /job/figures.sh
[ ! -e /job/vars ] || . /job/vars
rounds=${ROUNDS:-3} each=${EACH:-2} size=128
writes=${WRITES:-"randwrite,4k,1 randwrite,4k,32 randwrite,64k,8 write,1024k,4"}
modprobe ublk_drv
modprobe drbd usermode_helper=/bin/true || { echo "skipped: this kernel has no DRBD"; exit 77; }
# drbd-utils 9 keeps what speaks to a driver of version 8.4 apart.
mkdir -p /run/lock /var/lib/drbd # drbdmeta locks there
setup=$(ls /lib/drbd/drbdsetup-84 /usr/lib/drbd/drbdsetup-84 2>/dev/null | head -n 1 || true)
[ -n "$setup" ] || { echo "skipped: drbdsetup-84 is not installed on the host"; exit 77; }
ram_disks 4 $((size + 32))

node_start a
node_start b
trust a b
v a -q vgcreate va /dev/ram0
v b -q vgcreate vb /dev/ram1
v a -q lvcreate -n lv -L ${size}m va
v b -q lvcreate -n lv -L ${size}m vb --frontend nbd
add volmgr "$(readlink /dev/volmgr/va/lv)" "$pid_a $pid_b"

# DRBD: minor 0 is the primary, minor 1 its peer. Unthrottled: no controller of the resync's rate, buffers as large as may be.
drbd() { "$setup" "$@" >>/job/out/drbd.log 2>&1; }
network() { # protocol
    echo --protocol="$1" --max-buffers=16000 --max-epoch-size=16000 --sndbuf-size=10M --rcvbuf-size=10M
}
for n in 0 1; do
    # Of the same size as our volume, so that both have the same to send.
    drbdmeta --force $n v08 /dev/ram$((n + 2)) internal create-md >>/job/out/drbd.log 2>&1 </dev/null || die "drbdmeta: $(tail -n 2 /job/out/drbd.log)"
    drbd new-resource r$n
    drbd new-minor r$n $n 0
    drbd attach $n /dev/ram$((n + 2)) /dev/ram$((n + 2)) internal --size=$((size << 11)) --resync-rate=4194304 --c-plan-ahead=0 --c-min-rate=0 \
        --al-extents=1237 || die "drbd attach: $(tail -n 2 /job/out/drbd.log)"
done
# shellcheck disable=SC2046
together() { # protocol
    drbd connect r1 127.0.0.1:7801 127.0.0.1:7800 $(network "$1") || die "drbd connect: $(tail -n 2 /job/out/drbd.log)"
    drbd connect r0 127.0.0.1:7800 127.0.0.1:7801 $(network "$1") || die "drbd connect: $(tail -n 2 /job/out/drbd.log)"
}
apart() { drbd disconnect 127.0.0.1:7800 127.0.0.1:7801; drbd disconnect 127.0.0.1:7801 127.0.0.1:7800 || true; }
equal() { grep -q '^ 0: cs:Connected ro:[A-Za-z]*/[A-Za-z]* ds:UpToDate/UpToDate' /proc/drbd; }
nothing_under_way() { equal && grep -A1 '^ 0:' /proc/drbd | grep -q 'pe:0 ua:0 ap:0'; }
drbd primary 0 --force || die "drbd primary: $(tail -n 2 /job/out/drbd.log)"
[ "$(blockdev --getsize64 /dev/drbd0)" = $((size << 20)) ] || die "DRBD has made $(blockdev --getsize64 /dev/drbd0) bytes of it"
add drbd /dev/drbd0 ""
no_schedulers

feed() { value a feeds va/lv --units b --nosuffix -o "$1"; }
no_lag() { [ "$(feed feed_state)" = live ] && [ "$(feed feed_dirty)" = 0 ]; }
quick() { for _ in $(seq 6000); do "$@" && return 0; sleep 0.02; done; die "waited in vain for: $*"; } # command...
took() { # round what name start_ms
    echo "$1 time-$2 $3 $(($(milliseconds) - $4)) 0 0" >>/job/out/figures
}
head -c $((16 << 20)) /dev/urandom >/tmp/random
for name in volmgr drbd; do # nothing that could be left out
    for i in $(seq 0 $((size / 16 - 1))); do dd if=/tmp/random of="${device_of[$name]}" bs=1M seek=$((i * 16)) oflag=direct status=none; done
done

step "full syncs"
for round in $(seq "$rounds"); do
    if [ "$round" != 1 ]; then
        v a -q feeddetach --force va/lv b
        v b -q feeddetach --force vb/lv a
        apart
        drbd invalidate 1 || die "drbd invalidate: $(tail -n 2 /job/out/drbd.log)"
    fi
    start=$(milliseconds)
    v a -q feedattach va/lv b:vb/lv --discard-peer
    v a -q feedwait va/lv b --timeout 300
    took "$round" full-sync volmgr "$start"
    start=$(milliseconds)
    together A
    quick equal
    took "$round" full-sync drbd "$start"
done
[ "$(feed feed_path)" = kernel ] || die "the payload is $(feed feed_path): $(feed feed_reason)"

# resync ROUND NAME [fio's options...]: both sides apart, the same changes to both devices, together again.
resync() {
    local round=$1 what=$2 name; shift 2
    v a -q feedpause va/lv b
    apart
    if [ $# -gt 0 ]; then
        for name in volmgr drbd; do
            fio --name=d --filename="${device_of[$name]}" --rw=randwrite --size=${size}m --ioengine=libaio --iodepth=16 --direct=1 --randseed="$round" \
                "$@" --output=/dev/null </dev/null || die "fio on $name"
        done
    fi
    start=$(milliseconds)
    v a -q feedresume va/lv b
    v a -q feedwait va/lv b --timeout 300
    took "$round" "$what" volmgr "$start"
    start=$(milliseconds)
    together A
    quick equal
    took "$round" "$what" drbd "$start"
}
step resyncs
for round in $(seq "$rounds"); do
    resync "$round" nothing-changed
    resync "$round" 256x64k-changed --bs=64k --io_size=16m
    resync "$round" 1024x4k-changed --bs=4k --io_size=4m
done

# writes MODE: each pattern in turn, and how long it takes then until the other side has everything.
writes() {
    local mode=$1 round pattern rw bs depth name start
    for round in $(seq "$rounds"); do
        for pattern in $writes; do
            IFS=, read -r rw bs depth <<<"$pattern"
            pattern=$mode-$rw-$bs-qd$depth
            measure "$round" "$pattern" "$rw" "$bs" "$depth" volmgr
            start=$(milliseconds)
            [ "$(feed feed_state)" = live ] || echo "$pattern" >>/tmp/behind
            quick no_lag
            took "$round" "lag-$pattern" volmgr "$start"
            measure "$round" "$pattern" "$rw" "$bs" "$depth" drbd
            start=$(milliseconds)
            quick nothing_under_way
            took "$round" "lag-$pattern" drbd "$start"
        done
    done
}
touch /tmp/behind
step "writes, async and protocol A"
writes async
step "writes, sync and protocol C"
v a -q feeddetach va/lv b --point async
v a -q feedattach va/lv b:vb/lv --mode sync
v a -q feedwait va/lv b --timeout 300
apart
together C
quick equal
writes sync

echo "figure: $(uname -r), DRBD $(cat /sys/module/drbd/version), volmgr by $(value a lvs va/lv -o lv_io_mode); ${size} MiB of random data; $rounds rounds; windows of $each s"
for what in full-sync nothing-changed 256x64k-changed 1024x4k-changed; do table time-$what volmgr drbd; done
for mode in async sync; do
    for pattern in $writes; do
        IFS=, read -r rw bs depth <<<"$pattern"
        table "$mode-$rw-$bs-qd$depth" volmgr drbd
        table "time-lag-$mode-$rw-$bs-qd$depth" volmgr drbd
    done
done
echo "figure: windows at whose end our feed was behind, not live:$(sort /tmp/behind | uniq -c | tr -s ' \n' ' ')"

step "is it all there?"
v a -q feedverify va/lv b || die "the sides of our feed differ"
apart
cmp -n $((size << 20)) /dev/ram2 /dev/ram3 || die "the sides of DRBD differ"
