# limit: 120
# What changed since a point in time: listed, told to NBD clients as a dirty bitmap, and enough to bring a copy of that point up to
# date; for several points of one feed, while the feed goes on, and after a crash.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in fio nbdcopy qemu-io qemu-img nbdinfo jq; do command -v $p >/dev/null || skip "$p is not installed"; done
size=64
node_start a; node_start b
disks a 2 $((size + 40)); disks b 1 $((size + 40))
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"; v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L ${size}m -m 1 vga
head -c ${size}M /dev/urandom >"$work/monday"
nbdcopy "$work/monday" "$(uri a vga/web)"
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
v a feeddetach vga/web b --point monday

io() { timeout 60 qemu-io -f raw "$(uri a vga/web)" "$@" >"$work/io" 2>&1 && ! grep -qiE "error|failed" "$work/io"; }
point() { v a points vga/web --reportformat json -o point_name,point_changed,point_held --units b --nosuffix | jq -r ".report[0].point[] | select(.point_name == \"$1\") | .$2"; }
dirty() { nbdinfo --json --map="qemu:dirty-bitmap:$1" "$(uri a vga/web)" | jq -r '.[] | select(.type % 2 == 1) | "\(.offset) \(.length)"'; }
is() { [ "$2" = "$3" ] || die "$1: $2, not $3"; }
# A copy of a point, brought up to date with what its bitmap says, is what the volume holds.
incremental() { # point image
    local offset length
    cp "$2" "$work/copy"
    nbdcopy "$(uri a vga/web)" "$work/now"
    while read -r offset length; do
        dd if="$work/now" of="$work/copy" bs=64K iflag=skip_bytes,count_bytes oflag=seek_bytes skip="$offset" seek="$offset" count="$length" conv=notrunc status=none
    done < <(dirty "$1")
    cmp "$work/copy" "$work/now" || die "an incremental backup since $1 is not what the volume holds"
}

is "changed before anything was written" "$(point monday point_changed)" 0
is "dirty before anything was written" "$(dirty monday)" ""
io -c "write -P 1 0 4k" -c "write -P 2 1m 65k" -c "write -P 3 $((size * 1024 - 4))k 4k" -c flush || die "cannot write"
is "changed since monday" "$(point monday point_changed)" $((4 * 65536))
is "dirty since monday" "$(dirty monday)" "0 65536
1048576 131072
$(((size << 20) - 65536)) 65536"
incremental monday "$work/monday"
# Both contexts in one answer, and the tool that most others are built on.
nbdinfo --list "$(uri a vga/web)" | grep -q "qemu:dirty-bitmap:monday" || die "the context is not listed"
tool=$(qemu-img map --output=json --image-opts "driver=nbd,server.type=unix,server.path=$work/a/nbd.sock,export=vga/web,x-dirty-bitmap=qemu:dirty-bitmap:monday" |
    jq '[.[] | select(.data == false) | .length] | add')
is "what qemu-img calls dirty" "$tool" $((4 * 65536))
if nbdinfo --map=qemu:dirty-bitmap:never "$(uri a vga/web)" >/dev/null 2>&1; then die "told what changed since a point that never was"; fi

# The feed goes on: the copy over there is not monday any more, but what changed since is known, through a second point.
v a feedattach vga/web b
v a feedwait vga/web b --timeout 60
is "monday held" "$(point monday point_held)" no
io -c "write -P 4 10m 64k" || die "cannot write"
v a feeddetach vga/web b --point tuesday
nbdcopy "$(uri a vga/web)" "$work/tuesday"
io -c "write -P 5 20m 128k" -c "discard 10m 64k" || die "cannot write"
is "changed since tuesday" "$(point tuesday point_changed)" $((3 * 65536))
is "changed since monday" "$(point monday point_changed)" $((7 * 65536))
is "tuesday held" "$(point tuesday point_held)" yes
incremental monday "$work/monday"
incremental tuesday "$work/tuesday"

# A daemon that is killed says too much rather than too little: what its dirty-region log still has, so that has to be empty first.
for _ in $(seq 200); do
    "$bin/volmgr" pvck --dump dirty "$work/a/disk1" | grep 'dirty-region log: 0 of' >/dev/null && break
    sleep 0.1
done
io -c "write -P 6 30m 64k" || die "cannot write"
node_kill a
node_start a
for _ in $(seq 100); do nbdinfo --size "$(uri a vga/web)" >/dev/null 2>&1 && break; sleep 0.1; done
incremental monday "$work/monday"
incremental tuesday "$work/tuesday"
[ "$(point monday point_changed)" -le $((16 * 65536)) ] || die "after a crash $(point monday point_changed) bytes count as changed"

# The point that comes back was changed everywhere it had been changed; so says the bitmap of the one before.
v a feedswap vga/web b --point tuesday --discard-local -y
v a feedwait vga/web b --timeout 60
v a feedswap vga/web b -y
v a feedwait vga/web b --timeout 60
nbdcopy "$(uri a vga/web)" "$work/now"
cmp "$work/tuesday" "$work/now" || die "not tuesday"
incremental monday "$work/monday"
incremental tuesday "$work/tuesday"

# The oldest make way.
for n in 1 2 3 4 5; do
    v a feeddetach vga/web b --point "p$n"
    io -c "write -P $n ${n}m 4k" || die "cannot write"
    v a feedattach vga/web b
    v a feedwait vga/web b --timeout 60
done
is "points" "$(ask a points vga/web -o point_name | tr '\n' ' ')" "p2 p3 p4 p5 "
is "changed since p2" "$(point p2 point_changed)" $((4 * 65536))
is "changed since p5" "$(point p5 point_changed)" 65536
# A restore is refused while somebody writes, and who writes sees no error because somebody has asked, on either side.
timeout 60 fio --thread --name=w --ioengine=nbd --uri="$(uri a vga/web)" --rw=randwrite --bs=4k --size=8m --offset=40m --iodepth=4 --time_based --runtime=5 \
    --output="$work/fio" & writer=$!
pids+=($writer)
for _ in $(seq 100); do [ "$(ask a lvs vga/web -o lv_open)" = 0 ] || break; sleep 0.05; done
for i in 1 2 3; do
    v a feedswap vga/web b 2>"$work/refused" && die "swapped under a writer"
    grep -q "the volume is open" "$work/refused" || die "$(cat "$work/refused")"
done
v b feedswap vgb/web a >/dev/null 2>"$work/refused" && die "the sink took over under a writer"
wait $writer || die "a client that wrote saw an error: $(cat "$work/fio")"
v a feedwait vga/web b --timeout 60
v a feeddetach vga/web b --force -y
is "points of a feed that is forgotten" "$(ask a points vga/web -o point_name)" ""
echo "ok: what changed since a point is known"
