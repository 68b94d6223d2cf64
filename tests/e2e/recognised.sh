# limit: 180
# Disks and nodes that are not what they seem: a side that went back to an older copy of its disks, in the same session or in an earlier
# one; a copied disk at another node; a state directory that is there twice. Each is refused, in words that say what happened and what to
# do next; and that way out works.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
command -v qemu-io >/dev/null || skip "qemu-io is not installed"
node_start a; node_start b
disks a 1 64; disks b 1 64
v a vgcreate -s 1m vga "$work/a/disk1" >/dev/null; v b vgcreate -s 1m vgb "$work/b/disk1" >/dev/null
trust a b plaintext
v a lvcreate -n web -L 8m vga >/dev/null
write() { qemu-io -f raw -c "write -q -P $2 $3 64k" "$(uri a "$1")"; }
reads() { qemu-io -r -f raw -c "read -q -P $3 $4 64k" "$(uri "$1" "$2")" >"$work/io" && ! grep -q "verification failed" "$work/io"; }
reason() { ask "$1" feeds "$2" -o feed_reason; }
says() { # node LV words...: refused, and these words are among the reason
    local node=$1 lv=$2 word
    shift 2
    for _ in $(seq 200); do [ "$(ask "$node" feeds "$lv" -o feed_state)" = refused ] && break; sleep 0.1; done
    [ "$(ask "$node" feeds "$lv" -o feed_state)" = refused ] || die "$1: not refused: $(v "$node" feeds)"
    for word in "$@"; do [[ $(reason "$node" "$lv") == *"$word"* ]] || die "no '$word' in: $(reason "$node" "$lv")"; done
    echo "$(reason "$node" "$lv")"
}
snapshot() { sync "$work/$1/disk1"; cp --sparse=always "$work/$1/disk1" "$work/$1.then"; }
go_back() { node_kill "$1"; cp --sparse=always "$work/$1.then" "$work/$1/disk1"; node_start "$1"; }

v a feedattach vga/web b:vgb/web --create >/dev/null
v a feedwait vga/web b --timeout 60
write vga/web 1 0
sleep 2

# The source goes back to an earlier moment of the session that goes on.
snapshot a
write vga/web 2 1m
sleep 3.5
go_back a
says a vga/web "the source's disks are older" "feedswap --discard-local" "feedattach --discard-peer"
reads b vgb/web 2 1m || die "the copy lost what it had: $(cat "$work/io")"
# Nothing has flowed: the copy has what the source lost, and brings it back.
v a feedswap vga/web b --discard-local >/dev/null
v a feedwait vga/web b --timeout 60
v a feedswap vga/web b >/dev/null
v a feedwait vga/web b --timeout 60
reads a vga/web 2 1m || die "what only the copy had was not brought back: $(cat "$work/io")"
[ "$(ask a feeds vga/web -o feed_direction)" = out ] || die "a is not the source again"
write vga/web 3 2m
sleep 2

# A cut, a crash of either side: none of that is an older copy.
node_kill b; node_start b; node_kill a; node_start a
v a feedwait vga/web b --timeout 60
write vga/web 4 3m
sleep 2

# The sink goes back within the session.
snapshot b
write vga/web 5 4m
sleep 3.5
go_back b
says a vga/web "the target's disks are older" "feedattach --discard-peer"
v a feedattach vga/web b --discard-peer >/dev/null
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b >/dev/null

# The sink goes back to an earlier session.
snapshot b
v a feedpause vga/web b; write vga/web 6 5m; v a feedresume vga/web b
v a feedwait vga/web b --timeout 60
go_back b
says a vga/web "older" "feedattach --discard-peer"
v a feedattach vga/web b --discard-peer >/dev/null
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b >/dev/null

# A copy of the source's disk at another node.
node_start d
sync "$work/a/disk1"; cp --sparse=always "$work/a/disk1" "$work/d/disk1"
fd=$(ask d nodeshow -o node_fingerprint) fb=$(ask b nodeshow -o node_fingerprint)
v d peeradd b "127.0.0.1:${port_of[b]}" --fingerprint "$fb" --plaintext
v b peeradd d "127.0.0.1:${port_of[d]}" --fingerprint "$fd" --allow all --plaintext
v d vgscan "$work/d/disk1" >/dev/null
v d vgchange -ay vga >/dev/null
says d vga/web "is that of peer a" "are a copy" "feeddetach --force"
v a feedwait vga/web b --timeout 30

# The same disk twice at one node.
v d vgscan "$work/a.then" >"$work/out" 2>&1 || true
grep -q "several disks carry the PV UUID" "$work/out" || die "a second copy of a disk was taken in: $(cat "$work/out")"
node_stop d

# A state directory that is there twice: the copy gets through once, then one of the two is told.
sync "$work/a/disk1"
mkdir -p "$work/e"
node_kill a
cp -r "$work/a/state" "$work/e/state"
cp --sparse=always "$work/a/disk1" "$work/e/disk1"
sed -i "s|$work/a/|$work/e/|g" "$work/e/state/devices.json"
node_start a
v a feedwait vga/web b --timeout 60
"$bin/volmgrd" --foreground --config /dev/null --state-dir "$work/e/state" --socket "$work/e/volmgrd.sock" --listen "127.0.0.1:$(free_port)" \
    --nbd "unix:$work/e/nbd.sock" >>"$work/e.log" 2>&1 &
pids+=($!); twin=$!
told=
for _ in $(seq 200); do
    told=$(v b events | grep -m 1 "two daemons run with the key" || true)
    [ -n "$told" ] && break
    sleep 0.1
done
[ -n "$told" ] || die "a node that is there twice went unnoticed: $(v a feeds; v e feeds)"
echo "$told"
end_process "$twin"

# Without its key the copy is another node, with a copied disk.
rm "$work/e/state/node.pem"
node_stop a
"$bin/volmgrd" --foreground --config /dev/null --state-dir "$work/e/state" --socket "$work/e/volmgrd.sock" --listen "127.0.0.1:$(free_port)" \
    --nbd "unix:$work/e/nbd.sock" >>"$work/e.log" 2>&1 &
pids+=($!); twin=$!
for _ in $(seq 100); do v e nodeshow >/dev/null 2>&1 && break; sleep 0.1; done
v b peeradd e 127.0.0.1:1 --fingerprint "$(ask e nodeshow -o node_fingerprint)" --allow all --plaintext
v e feedresume vga/web b 2>/dev/null || true
says e vga/web "is that of peer a"
end_process "$twin"
echo "ok: each was recognised"
