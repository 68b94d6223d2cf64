# limit: 360
# A sink that stops (SIGSTOP: its sockets stay open and nobody reads them) does not stall the source's clients: writes go on at
# their speed, the feed falls behind or is cut off. When the sink goes on, the feed catches up and both sides are equal.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 2048 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy fio; do command -v $p >/dev/null || skip "$p is not installed"; done
size=256
node_start a
node_start b
continue_sink() { kill -CONT "${pid_of[b]}" 2>/dev/null || true; }
at_end continue_sink # a stopped process does not end on TERM
disks a 1 $((size + 40)); disks b 1 $((size + 40))
v a vgcreate vga "$work/a/disk1"; v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L ${size}m vga
head -c ${size}M /dev/urandom >"$work/content"
nbdcopy --flush "$work/content" "$(uri a vga/web)"

writes() { # seconds -> "IOPS longest-wait-in-ms"
    fio --thread --name=w --ioengine=nbd --uri="$(uri a vga/web)" --rw=randwrite --bs=16k --size=${size}m --iodepth=8 --time_based \
        --runtime="$1" --output-format=terse --terse-version=3 | awk -F';' '/^3;/ {printf "%d %d\n", $49, $56 / 1000}'
}
state() { ask a feeds vga/web -o feed_state; }

read -r none none_max <<<"$(writes 4)"
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
read -r live live_max <<<"$(writes 4)"
v a feedwait vga/web b --timeout 60
kill -STOP "${pid_of[b]}"
read -r stalled stalled_max <<<"$(writes 12)"
echo "figure: 16k writes: $none/s without a feed (longest $none_max ms), $live/s with one ($live_max ms), $stalled/s while its sink is stopped ($stalled_max ms); then: $(state)"
[ "$(state)" != live ] || die "the feed says it is live while nobody reads it"
# Bounds that no slow machine misses: a client that waits for the peer does nothing for as long as the peer is stopped.
[ $((stalled * 10)) -ge "$none" ] || die "clients are slowed down by a stopped sink"
[ "$stalled_max" -lt 15000 ] || die "a client waited $stalled_max ms for a stopped sink"
continue_sink
began=$(now_ms)
v a feedwait vga/web b --timeout 90
echo "figure: live again after $(($(now_ms) - began)) ms"
# A feed that is behind for a moment ends at its point by itself when it has caught up.
kill -STOP "${pid_of[b]}"
writes 3 >/dev/null
case $(state) in behind | resync) ;; *) die "after three seconds of a stopped sink the feed is $(state)" ;; esac
v a feeddetach vga/web b --point after &
detaching=$!
sleep 1
continue_sink
wait "$detaching" || die "a feed that is behind cannot be ended at a point"
same_at_point a vga/web b vgb/web "the stall"
