# limit: 120
# Resync yields to applications: with a client at work it has a limit, shown in the listing; without one, or where the admin does not want
# that, it has none. Limits change while it runs.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 2048 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy fio; do command -v $p >/dev/null || skip "$p is not installed"; done
size=256
node_start a; node_start b
disks a 1 $((size + 40)); disks b 1 $((size + 40))
v a vgcreate vga "$work/a/disk1" >/dev/null; v b vgcreate vgb "$work/b/disk1" >/dev/null
trust a b plaintext
v a lvcreate -n web -L ${size}m vga >/dev/null
head -c ${size}M /dev/urandom >"$work/content"
nbdcopy --flush "$work/content" "$(uri a vga/web)"
field() { ask a feeds vga/web -o "$1" --units b --nosuffix; }
work_on() { # seconds -> "IOPS p99-in-us"
    fio --thread --name=w --ioengine=nbd --uri="$(uri a vga/web)" --rw=randwrite --bs=4k --size=16m --iodepth=2 --rate_iops=400 --time_based \
        --runtime="$1" --output-format=json | python3 -c 'import json,sys; t=sys.stdin.read(); j=json.loads(t[t.index("{"):])["jobs"][0]["write"]; print(int(j["iops"]), int(j["clat_ns"]["percentile"]["99.000000"]/1000))'
}
calm=$(work_on 3)

# A limit of the admin's, changed while the copy runs.
v a feedattach vga/web b:vgb/web --create --rate 10m >/dev/null
sleep 1
[ "$(field feed_state)" = full-sync ] || die "256 MiB at 10 MiB/s are done after a second: $(v a feeds)"
[ "$(field feed_limit)" = $((10 << 20)) ] || die "limit: $(field feed_limit)"
v a feedset vga/web b --rate none >/dev/null
v a feedwait vga/web b --timeout 30
[ -z "$(field feed_limit)" ] || die "limit after none: $(field feed_limit)"

again() { # everything is dirty once more, and copied while an application works
    v a feedpause vga/web b >/dev/null
    nbdcopy "$work/content" "$(uri a vga/web)"
    work_on 6 >"$work/worked" & worker=$!
    sleep 1
    began=$(now_ms)
    v a -q feedresume vga/web b
    # Each command costs a processor some milliseconds, which the application feels: one look, and one wait.
    { sleep 0.7; field feed_limit >"$work/limit"; } & local look=$!
    v a -q feedwait vga/web b --timeout 60
    took=$(($(now_ms) - began))
    wait $look
    seen=$(cat "$work/limit")
    wait $worker
}
v a feedset vga/web b --adaptive n >/dev/null
again
[ -z "$seen" ] || die "limited to $seen though it is not to yield"
echo "figure: 4k writes, IOPS and p99 in us: alone $calm; beside a resync that does not yield $(cat "$work/worked") (done in $took ms)"
v a feedset vga/web b --adaptive y >/dev/null
again
[ -n "$seen" ] || die "not limited beside an application"
[ "$seen" -ge $((16 << 20)) ] || die "limited to $seen, below the floor"
echo "figure: beside one that yields: $(cat "$work/worked") (done in $took ms; limit after 0.7 s $((seen >> 20)) MiB/s)"
# Nobody there, no limit.
for _ in $(seq 60); do [ -z "$(field feed_limit)" ] && break; sleep 0.1; done
[ -z "$(field feed_limit)" ] || die "still limited to $(field feed_limit) with nobody there"
v a feedverify vga/web b
echo "ok: it yields"
