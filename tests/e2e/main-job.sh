# limit: 480
# The main job: a 1 GiB ext4 written by nbdcopy, fio verifying on the volume during full sync and live, a named point, the
# restore; the sink equal to the source at the point, and every plex equal, each compared by itself.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in nbdcopy fio mke2fs; do command -v $p >/dev/null || skip "$p is not installed"; done

node_start a
node_start b
disks a 2 1200
disks b 2 1200
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"
v b vgcreate vgb "$work/b/disk1" "$work/b/disk2"
trust a b plaintext
v a lvcreate -n web -L 1g -m 1 vga

truncate -s 1G "$work/fs.img"
mke2fs -q -F -t ext4 -d /usr/share/doc "$work/fs.img" 700M # the rest of the volume is fio's
nbdcopy "$work/fs.img" "$(uri a vga/web)"

writer() { # seconds: writes and verifies beyond the filesystem
    fio --thread --name=w --ioengine=nbd --uri="$(uri a vga/web)" --rw=randwrite --bs=4k --offset=704m --size=200m --iodepth=16 \
        --verify=crc32c --verify_state_save=0 --verify_backlog=256 --time_based --runtime="$1" --rate=8m --output=/dev/null
}
writer 12 &
fio_pid=$!
pids+=($fio_pid)
sleep 1
began=$(now_ms)
v b lvcreate -n web -L 1g -m 1 vgb
v a feedattach vga/web b:vgb/web
v a feedwait vga/web b --timeout 100
echo "figure: full sync of 1 GiB under fio: $(($(now_ms) - began)) ms"
wait $fio_pid || die "fio found a difference during full sync"
writer 3 || die "fio found a difference while live"

writer 6 &
fio_pid=$!
pids+=($fio_pid)
sleep 2
v a feeddetach vga/web b --point one # while writes go on
wait $fio_pid || die "fio found a difference around the point"
[ "$(ask b points vgb/web -o point_name)" = one ] || die "the sink does not know the point"

# A second point, with nothing going on, can be compared byte by byte.
v a feedattach vga/web b:vgb/web
v a feedwait vga/web b --timeout 100
nbdcopy "$(uri a vga/web)" "$work/two.img"
v a feeddetach vga/web b --point two
plexes() { # node vg: raw content of each plex, by subdisk, straight from the disk files
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/$1/volmgrd.sock" "$2/web" "$work/$1-plex"
}
plexes b vgb
for p in 0 1; do cmp "$work/two.img" "$work/b-plex$p" || die "plex$p of the sink differs from the source at the point"; done
rm -f "$work"/b-plex*

v a feeds vga/web # incremental so far: only what fio changed
head -c 1G /dev/urandom >"$work/garbage"
nbdcopy "$work/garbage" "$(uri a vga/web)"
rm "$work/garbage"
if v a feedswap vga/web b --point two 2>"$work/refusal"; then die "local changes were thrown away without being named"; fi
grep -q discard-local "$work/refusal" || die "the refusal does not name --discard-local: $(cat "$work/refusal")"
began=$(now_ms)
v a feedswap vga/web b --point two --discard-local
v a feedwait vga/web b --timeout 100
echo "figure: restore of 1 GiB: $(($(now_ms) - began)) ms"
v a feedswap vga/web b # this side is the source again; nobody writes
v a feedwait vga/web b --timeout 100
plexes a vga
for p in 0 1; do cmp "$work/two.img" "$work/a-plex$p" || die "plex$p differs after the restore"; done
