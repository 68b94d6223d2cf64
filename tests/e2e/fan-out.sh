# limit: 120
# One volume to two sinks, one of which feeds a third: each with a state of its own. Sinks die and come back while writes go on; a
# restore from one of them goes through to the others; each holds a point of its own.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy qemu-io; do command -v $p >/dev/null || skip "$p is not installed"; done
size=32
for n in a b c d; do
    node_start $n
    disks $n 1 $((size + 40))
    v $n vgcreate vg "$work/$n/disk1"
done
trust a b plaintext; trust a c plaintext; trust b d plaintext
v a lvcreate -n web -L ${size}m vg
head -c ${size}M /dev/urandom >"$work/one"
nbdcopy "$work/one" "$(uri a vg/web)"
write() { timeout 30 qemu-io -f raw "$(uri a vg/web)" -c "write -P $1 $2 64k" >"$work/io" 2>&1 && ! grep -qiE "error|failed" "$work/io" || die "cannot write: $(cat "$work/io")"; }
state() { ask "$1" feeds vg/web -o peer_name,feed_direction,feed_state | tr -s ' ' ; }
copied() { # node peer: payload bytes that left a node for a peer
    v "$1" feeds vg/web --noheadings --units b --nosuffix -o peer_name,payload_kernel_bytes,payload_copied_bytes | awk -v p="$2" '$1 == p { print $2 + $3 }'
}
v a feedattach vg/web b --create
v a feedattach vg/web c --create
v a feedwait vg/web b --timeout 60
v b feedattach vg/web d --create
v a feedwait vg/web c --timeout 60
v b feedwait vg/web d --timeout 60
write 1 0

# c is away: b and d go on, and what c misses is all that c gets.
node_kill c
for i in $(seq 2 9); do write "$i" "${i}m"; done
before=$(copied a c)
node_start c
v a feedwait vg/web c --timeout 60
got=$(($(copied a c) - before))
[ $got -le $((16 << 16)) ] || die "c got $got bytes for 8 regions"
# The middle of the chain dies: what it had not passed on goes on when it is back.
node_kill b
for i in $(seq 10 17); do write "$i" "${i}m"; done
node_start b
v a feedwait vg/web b --timeout 60
v b feedwait vg/web d --timeout 60
v a feedverify vg/web b; v a feedverify vg/web c
v b feedverify vg/web d
nbdcopy "$(uri a vg/web)" "$work/one"

# A point at each sink, of its own time.
v a feeddetach vg/web b --point at-b
write 33 20m
v a feeddetach vg/web c --point at-c
write 34 21m
[ "$(ask a points vg/web -o point_name,peer_name,point_changed --units b --nosuffix | tr -s ' ' | tr '\n' ';')" = "at-b b 131072;at-c c 65536;" ] ||
    die "points: $(ask a points vg/web -o point_name,peer_name,point_changed)"
# Back to b's: a is fed by b, which goes on feeding d; c gets what that changes, from a.
v a feedswap vg/web b --point at-b --discard-local -y
v a feedwait vg/web b --timeout 60
v a feedattach vg/web c
v a feedwait vg/web c --timeout 60
v b feedwait vg/web d --timeout 60
case $(state a) in *"b in live"*) ;; *) die "not fed by b: $(state a)" ;; esac
case $(state a) in *"c out live"*) ;; *) die "not feeding c: $(state a)" ;; esac
for n in a c d; do
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/$n/volmgrd.sock" vg/web "$work/plex-$n"
    cmp "$work/one" "$work/plex-${n}0" || die "$n does not hold what b held at its point"
done
v b feedverify vg/web d
v a feedverify vg/web c
echo "ok: fan-out and cascade"
