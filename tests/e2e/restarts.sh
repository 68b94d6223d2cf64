# limit: 180
# A peer calls again and again while a node starts, and gets through in the very moment in which the node brings its volumes up: a
# volume has one lane all the same, and both sides are equal in the end. What the log of a node that was killed has not heard of is no change.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in nbdcopy; do command -v $p >/dev/null || skip "$p is not installed"; done
size=32 restarts=6
node_start a; node_start b
disks a 1 $((size + 40)); disks b 2 $((size + 40))
v a vgcreate vga "$work/a/disk1"; v b vgcreate vgb "$work/b/disk1" "$work/b/disk2"
trust a b plaintext
v a lvcreate -n web -L ${size}m vga
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
# It waits a second for a disk that does not come; meanwhile its peer's calls pile up.
truncate -s 40M "$work/b/late"
v b pvcreate "$work/b/late"
printf '[scan]\nwait = 1\n' >"$work/b.toml"
config_of[b]=$work/b.toml
rm "$work/b/late"
for i in $(seq $restarts); do
    node_kill b
    head -c 2M /dev/urandom | nbdcopy --flush -- - "$(uri a vga/web)"
    node_start b
    v a feedwait vga/web b --timeout 60 2>/dev/null
done
starts=$(grep -c ': ready node=' "$work/b.log") served=$(grep -c 'volume is served kind="lv-activated"' "$work/b.log")
[ "$starts" = $((restarts + 1)) ] || die "$starts starts in the log"
[ "$served" = "$starts" ] || die "started $starts times, brought its volume up $served times"
v a feeddetach vga/web b --point end
same_at_point a vga/web b vgb/web "the restarts"

# While it was the source b has tracked, for longer than its log takes to hold that. It is killed as soon as it is the sink again, so that its
# log may hold it still: that passes for no change of its own, when it has ended at a point and the feed goes on.
v a feedattach vga/web b
v a feedwait vga/web b --timeout 60
v a feedswap vga/web b
v a feedwait vga/web b --timeout 60
v a feedpause vga/web b
head -c 2M /dev/urandom | nbdcopy --flush -- - "$(uri b vgb/web)"
sleep 3
v a feedresume vga/web b
v a feedwait vga/web b --timeout 60
v a feedswap vga/web b
node_kill b
node_start b
v a feedwait vga/web b --timeout 60
v a feeddetach vga/web b --point later
[ "$(ask b feeds vgb/web -o feed_dirty --units b --nosuffix)" = 0 ] || die "b, which nobody has written since, has changed: $(v b feeds)"
head -c 2M /dev/urandom | nbdcopy --flush -- - "$(uri a vga/web)"
v a feedattach vga/web b
v a feedwait vga/web b --timeout 60
v a feeddetach vga/web b --point end
same_at_point a vga/web b vgb/web "a log that was behind"

# Nor is what the feed has filled just before the point, when the sink, a mirror, is killed right behind it.
v b lvchange -ay vgb/web
v b lvconvert -m 1 vgb/web
v b plexsync vgb/web
for i in 1 2 3; do
    v a feedattach vga/web b
    v a feedwait vga/web b --timeout 60
    head -c 2M /dev/urandom | nbdcopy --flush -- - "$(uri a vga/web)"
    began=$(now_ms)
    v a feeddetach vga/web b --point "mirror$i"
    echo "figure: the point took $(($(now_ms) - began)) ms"
    node_kill b
    node_start b
    [ "$(ask b feeds vgb/web -o feed_dirty --units b --nosuffix)" = 0 ] || die "b, which nobody has written since the point, has changed: $(v b feeds)"
    head -c 2M /dev/urandom | nbdcopy --flush -- - "$(uri a vga/web)"
done
