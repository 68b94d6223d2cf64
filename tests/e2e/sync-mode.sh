# limit: 120
# Sync mode: what is acknowledged is at the peer. While the peer is away writes go on (degrade), or wait (block): until it is back, or
# until the feed is paused.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy qemu-io; do command -v $p >/dev/null || skip "$p is not installed"; done
size=32
node_start a; node_start b
disks a 1 $((size + 40)); disks b 1 $((size + 40))
v a vgcreate vga "$work/a/disk1"; v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L ${size}m vga
write() { # pattern offset: ends when it is acknowledged
    timeout "${LIMIT:-30}" qemu-io -f raw "$(uri a vga/web)" -c "write -P $1 $2 4k" >"$work/io" 2>&1 && ! grep -qiE "error|failed" "$work/io"
}
at_peer() { # pattern offset
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/b/volmgrd.sock" vgb/web "$work/plex"
    qemu-io -r -f raw "$work/plex0" -c "read -P $1 $2 4k" >"$work/io" 2>&1 && ! grep -q "verification failed" "$work/io"
}
field() { ask a feeds vga/web -o "$1"; }
if v a feedattach vga/web b:vgb/web --create --on-disconnect block 2>"$work/why"; then die "an async feed that blocks"; fi
grep -q -- "--mode sync" "$work/why" || die "no way out is told: $(cat "$work/why")"
v a feedattach vga/web b:vgb/web --create --mode sync --on-disconnect degrade
v a feedwait vga/web b --timeout 60
write 1 0 || die "cannot write"
at_peer 1 0 || die "acknowledged in sync mode and not at the peer"
for pair in a:acks-web b:ack-web; do
    grep -qs "^${pair#*:}" /proc/"${pid_of[${pair%%:*}]}"/task/*/comm || die "nobody acknowledges on the live stream at ${pair%%:*}"
done

# Degrade: the peer stands still, then is away.
node_kill b
write 2 1m || die "a write waits for a peer that is away, though the feed degrades"
node_start b
v a feedwait vga/web b --timeout 60
at_peer 2 1m || die "not at the peer after it came back"

# The mode of a feed that goes on can be another one.
v a feeddetach vga/web b --point one
v a feedattach vga/web b --on-disconnect block
v a feedwait vga/web b --timeout 60
[ "$(field feed_on_disconnect)" = block ] || die "on disconnect: $(field feed_on_disconnect)"
write 3 2m || die "cannot write with the peer there"
at_peer 3 2m || die "acknowledged and not at the peer"
node_kill b
if LIMIT=4 write 4 3m; then die "acknowledged though the peer is away"; fi
case $(field feed_reason) in *"writes wait"*) ;; *) die "no word that writes wait: $(field feed_reason)" ;; esac
# Reads go on.
timeout 10 qemu-io -r -f raw "$(uri a vga/web)" -c "read -P 3 2m 4k" >"$work/io" || die "a read waits"
LIMIT=60 write 5 4m & waiting=$!
sleep 1
kill -0 $waiting 2>/dev/null || die "did not wait"
node_start b
wait $waiting || die "a write that waited failed: $(cat "$work/io")"
at_peer 5 4m || die "acknowledged after the wait and not at the peer"
v a feedwait vga/web b --timeout 60

# A daemon that starts without the peer blocks, too; feedpause lets writes go on.
node_kill b
node_kill a
node_start a
for _ in $(seq 100); do v a feeds vga/web -o feed_state --noheadings 2>/dev/null | grep -q disconnected && break; sleep 0.1; done
LIMIT=60 write 6 5m & waiting=$!
sleep 2
kill -0 $waiting 2>/dev/null || die "acknowledged before the peer was ever seen: $(cat "$work/io")"
v a feedpause vga/web b
wait $waiting || die "a write that waited for a paused feed failed"
v a feedresume vga/web b
LIMIT=60 write 7 6m & waiting=$!
sleep 1
# A daemon that ends in good order does not wait for the peer for ever, and says what it has not done.
began=$(now_ms)
node_stop a
[ $(($(now_ms) - began)) -lt 14000 ] || die "the daemon ended only after $(($(now_ms) - began)) ms"
if wait $waiting; then die "acknowledged by a daemon that ended without the peer"; fi
node_start a; node_start b
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b
at_peer 6 5m || die "what was written while paused is not at the peer"

# The choice holds after an exchange of roles, too.
v a feedswap vga/web b
v a feedwait vga/web b --timeout 60
[ "$(ask b feeds vgb/web -o feed_mode,feed_on_disconnect --separator ' ')" = "sync block" ] || die "after the swap: $(v b feeds -o +feed_on_disconnect)"
timeout 30 qemu-io -f raw "$(uri b vgb/web)" -c "write -q -P 8 7m 4k" || die "cannot write at the new source"
node_kill a
if timeout 4 qemu-io -f raw "$(uri b vgb/web)" -c "write -q -P 9 8m 4k" >/dev/null 2>&1; then die "the new source acknowledges what its peer has not"; fi
node_start a
v a feedwait vga/web b --timeout 60
echo "ok: sync mode keeps its word"
