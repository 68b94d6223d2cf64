# limit: 840
# kill -9 of either daemon in the middle of full sync, of live replication, of detach, of swap: each time it comes back, goes on
# incrementally and ends equal. Writers check what they wrote; the sinks are compared byte by byte.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in nbdcopy fio; do command -v $p >/dev/null || skip "$p is not installed"; done
size=256
node_start a
node_start b
disks a 2 $((size + 40))
disks b 3 $((size + 40))
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"
v b vgcreate vgb "$work/b/disk1" "$work/b/disk2"
trust a b plaintext
v a lvcreate -n web -L ${size}m -m 1 vga
head -c ${size}M /dev/urandom >"$work/content"
nbdcopy --flush "$work/content" "$(uri a vga/web)"
sent_by_a() { echo $(($(ask a feeds vga/web -o payload_kernel_bytes --units b --nosuffix) + $(ask a feeds vga/web -o payload_copied_bytes --units b --nosuffix))); }

equal() { same_at_point a vga/web b vgb/web "$1"; } # what
load() { # seconds of random writes on the source, verified as it goes; survives nothing: the source must stay up
    # fio does not always notice that its server has died, and a forked job would outlive it.
    timeout -k 1 $(($1 + 10)) fio --thread --name=w --ioengine=nbd --uri="$(uri a vga/web)" --rw=randwrite --bs=16k --size=${size}m --iodepth=8 --time_based \
        --runtime="$1" --rate=16m --output=/dev/null
}
point=0
detach_and_compare() { # what
    point=$((point + 1))
    v a feedwait vga/web b --timeout 60
    v a feeddetach vga/web b --point "p$point"
    equal "$1"
}

# 1. full sync, slowed down so that the kill hits it; first the sink dies, then the source
v a feedattach vga/web b:vgb/web --create --rate 60m
sleep 1
node_kill b
sleep 1
node_start b
sleep 1
# What was acknowledged is taken off the map on the disk within seconds.
for _ in $(seq 100); do
    missing=$("$bin/volmgr" pvck --dump dirty "$work/a/disk1" | sed -n 's/.*feed with b misses: .*, \([0-9]*\) bytes/\1/p')
    [ "$missing" -eq $((size << 20)) ] || break
    sleep 0.1
done
before=$(sent_by_a)
node_kill a
node_start a
v a feedwait vga/web b --timeout 60
again=$(sent_by_a)
echo "figure: full sync of $size MiB, killed twice: $((before >> 20)) MiB before the source died, $((again >> 20)) MiB after"
[ "$again" -lt $((missing + (8 << 20))) ] && [ "$missing" -lt $((size << 20)) ] || die "the killed full sync began again from the start"
detach_and_compare "kills during full sync"

# 2. live, under load: the sink dies and comes back
v a feedattach vga/web b:vgb/web
v a feedwait vga/web b --timeout 60
load 5 & fio_pid=$!; pids+=($fio_pid)
sleep 1.5
v b pvcreate "$work/b/disk3" >/dev/null
node_kill b
sleep 1
# It waits for a disk that is late, and its peer calls meanwhile: that must not be told that the group is not there.
mv "$work/b/disk3" "$work/late"
printf '[scan]\nwait = 3\n' >"$work/b.toml"
config_of[b]=$work/b.toml
node_start b
unset "config_of[b]"
mv "$work/late" "$work/b/disk3"
wait $fio_pid || die "the load saw an error when the sink died"
detach_and_compare "kill of the sink while live"

# 3. live, under load: the source dies; what was acknowledged and flushed must be on both sides
v a feedattach vga/web b:vgb/web
v a feedwait vga/web b --timeout 60
load 5 >/dev/null 2>&1 & fio_pid=$!; pids+=($fio_pid)
sleep 2
node_kill a
wait $fio_pid 2>/dev/null || true
node_start a
before=$(sent_by_a)
detach_and_compare "kill of the source while live"
[ "$before" -lt $(((size / 2) << 20)) ] || die "the source sent everything again"

# 4. detach: either side dies at once after the command was given; it ends split or goes on, and can be detached
for victim in a b; do
    v a feedattach vga/web b:vgb/web
    v a feedwait vga/web b --timeout 60
    load 3 >/dev/null 2>&1 & fio_pid=$!; pids+=($fio_pid)
    sleep 1
    point=$((point + 1))
    v a feeddetach vga/web b --point "p$point" >/dev/null 2>&1 & detach=$!
    pids+=($detach)
    sleep 0.0$((RANDOM % 10))
    node_kill $victim
    wait $detach 2>/dev/null || true
    wait $fio_pid 2>/dev/null || true
    node_start $victim
    # The intent was committed or it was not; both are fine, and both converge.
    # A node that has just started may answer before it serves the volume: asked once more, it knows.
    v a feedwait vga/web b --state split --timeout 20 >/dev/null 2>&1 || v a feedwait vga/web b --timeout 20 >/dev/null 2>&1 ||
        v a feedwait vga/web b --state split --timeout 20 >/dev/null
    if [ "$(ask a feeds vga/web -o feed_state)" = split ]; then
        [ "$(ask b points vgb/web -o point_name | tail -n 1)" = "p$point" ] || die "split here, but the sink has no point p$point"
        v a feedattach vga/web b:vgb/web
        v a feedwait vga/web b --timeout 60
    fi
    detach_and_compare "kill of $victim during detach"
done

# 5. swap: either side dies in the middle of the restore
for victim in a b; do
    cp "$work/source.img" "$work/want.img"
    head -c 64M /dev/urandom | nbdcopy --flush -- - "$(uri a vga/web)" 2>/dev/null ||
        fio --thread --name=g --ioengine=nbd --uri="$(uri a vga/web)" --rw=write --bs=1m --size=64m --end_fsync=1 --output=/dev/null
    v a feedswap vga/web b --point "p$point" --discard-local >/dev/null 2>&1 & swap=$!
    sleep 0.$((RANDOM % 4))
    node_kill $victim
    wait $swap 2>/dev/null || true
    node_start $victim
    # Once more where the kill came before the decision; a node that has just started may answer before it serves the volume.
    for _ in $(seq 40); do
        [ "$(ask a feeds vga/web -o feed_direction)" != in ] || break
        v a feedswap vga/web b --point "p$point" --discard-local >/dev/null 2>&1 && break
        sleep 0.5
    done
    v a feedwait vga/web b --timeout 60
    [ "$(ask a feeds vga/web -o feed_direction)" = in ] || die "the swap did not happen"
    v a feedswap vga/web b # back again: nothing to send
    v a feedwait vga/web b --timeout 60
    [ "$(ask a feeds vga/web -o feed_direction)" = out ] || die "the swap back did not happen"
    detach_and_compare "kill of $victim during swap"
    cmp "$work/want.img" "$work/source.img" || die "the restore after the kill of $victim is not what the point was"
done
