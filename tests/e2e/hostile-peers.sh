# limit: 600
# when: asked
# Peers and strangers that mean harm: a thousand connections that say nothing, connections that say a byte now and then, a known peer that
# sends nonsense, writes where it must not, gives back what is over, acknowledges what it has not got. A feed beside them stays live, clients
# beside them go on, memory stays bounded, and everyone who does harm is hung up on.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v nbdcopy >/dev/null || skip "nbdcopy is not installed"
enemy=$bin/examples/hostile-peer load=$bin/examples/checked-load
for p in "$enemy" "$load"; do [ -x "$p" ] || die "$p is missing: make e2e builds it"; done
ulimit -n 8192 2>/dev/null || skip "no more than $(ulimit -n) files may be open"

nbd_port=$(free_port)
node_start a
node_start b --nbd "tcp:127.0.0.1:$nbd_port"
node_start m # makes the enemy's key
node_stop m
disks a 1 300
disks b 1 300
v a vgcreate vga "$work/a/disk1" >/dev/null
v b vgcreate vgb "$work/b/disk1" >/dev/null
trust a b
key() { ask "$1" nodeshow -o node_fingerprint; }
node_start m
enemy_key=$(key m)
node_stop m
v b peeradd m "127.0.0.1:${port_of[m]}" --fingerprint "$enemy_key" --allow 'all:vgb/evil*'
v a peeradd m "127.0.0.1:${port_of[m]}" --fingerprint "$enemy_key" --allow all
v a lvcreate -n web -L 32m vga >/dev/null
v a lvcreate -n bait -L 8m vga >/dev/null
v b lvcreate -n own -L 32m vgb >/dev/null
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
b_key=$(key b) b_port=127.0.0.1:${port_of[b]}
"$load" "$work/a/nbd.sock" vga/web 45 1 >"$work/fed.out" 2>&1 & fed=$!
"$load" "$work/b/nbd.sock" vgb/own 45 2 >"$work/own.out" 2>&1 & own=$!
pids+=("$fed" "$own")

rss() { awk '/^VmRSS/ {print $2}' "/proc/${pid_of[$1]}/status"; }
before=$(rss b)
well() { # what
    kill -0 "${pid_of[b]}" 2>/dev/null || die "the victim died of $1"
    kill -0 "${pid_of[a]}" 2>/dev/null || die "the other node died of $1"
    timeout 10 "$bin/volmgr" --socket "$work/b/volmgrd.sock" lvs vgb >/dev/null || die "the victim does not answer after $1"
    local now volumes
    now=$(rss b)
    # A volume that is served has a lane with buffers of its own, and the enemy may have volumes made.
    volumes=$(v b lvs vgb --noheadings | wc -l)
    [ $((now - before)) -lt $(((64 + volumes * 16) << 10)) ] || die "the victim has grown from $before to $now KiB, with $volumes volumes, after $1"
}

# 1. strangers, a thousand of them, at the port of feeds and at that of NBD
for kind in crowd slow; do
    for port in "$b_port" "127.0.0.1:$nbd_port"; do
        "$enemy" $kind "$port" 1000 6 >"$work/$kind.out" 2>&1 & crowd=$!
        pids+=("$crowd")
        sleep 3
        well "a $kind at $port"
        # Who has business gets in beside them.
        began=$(now_ms)
        timeout 20 nbdinfo --size "nbd+unix:///vgb/own?socket=$work/b/nbd.sock" >/dev/null || die "no NBD client gets in beside a $kind at $port"
        echo "figure: a client gets in beside 1000 idle connections ($kind at port ${port##*:}) in $(($(now_ms) - began)) ms"
        wait "$crowd" || die "the $kind failed: $(cat "$work/$kind.out")"
    done
done
[ "$(ask a feeds vga/web -o feed_state)" = live ] || die "the feed is $(ask a feeds vga/web -o feed_state) after the crowd"

# 2. a known peer that sends nonsense, then one that feeds what it must not
timeout 150 "$enemy" control "$b_port" "$work/m/state" "$b_key" >"$work/control.out" 2>&1 || die "control: $(cat "$work/control.out")"
well "nonsense on the control stream"
timeout 200 "$enemy" data "$b_port" "$work/m/state" "$b_key" vgb >"$work/data.out" 2>&1 || die "data: $(cat "$work/data.out")"
well "a source that lies"
echo "figure: $(grep -c 'hung up on' "$work/control.out") and $(grep -c 'hung up on' "$work/data.out") attacks, each hung up on"
v b events | grep -q 'evil' || die "no event tells of the enemy's feeds"

# 3. a sink that acknowledges what it has not got
"$enemy" sink "127.0.0.1:${port_of[m]}" "$work/m/state" "$(key a)" >"$work/sink.out" 2>&1 & sink=$!
pids+=("$sink")
for _ in $(seq 50); do grep -q listening "$work/sink.out" && break; sleep 0.1; done
printf 'something' | dd of="$work/bait" bs=1M conv=sync status=none
nbdcopy "$work/bait" "$(uri a vga/bait)" 2>/dev/null || true
v a feedattach vga/bait m:vgm/bait --create >/dev/null || true
wait "$sink" || die "sink: $(cat "$work/sink.out")"
state=$(ask a feeds vga/bait -o feed_state)
[ "$state" != live ] || die "a feed to a liar is live"
[ "$(ask a feeds vga/bait -o feed_dirty --units b --nosuffix)" -gt 0 ] || die "what a liar acknowledged is not tracked any more"
well "a sink that lies"

# Everything beside it went on.
wait "$fed" || die "the fed volume: $(cat "$work/fed.out")"
wait "$own" || die "the victim's own volume: $(cat "$work/own.out")"
v a feedwait vga/web b --timeout 60
v a feeddetach vga/web b --point after
same_at_point a vga/web b vgb/web "the attacks"
echo "figure: the victim has $(($(rss b) >> 10)) MiB, $((before >> 10)) before"
