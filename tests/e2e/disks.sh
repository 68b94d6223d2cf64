# limit: 480
# Disks that fail, go and come back: writes go on, the plex that misses them is marked first, and it catches up when the disk is
# back; groups that start without a disk; groups that move.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in nbdcopy fio; do command -v $p >/dev/null || skip "$p is not installed"; done
node_start a
disks a 4 200
d() { echo "$work/a/disk$1"; }
v a vgcreate vg "$(d 1)" "$(d 2)" >/dev/null
v a lvcreate -n m -L 96m -m 1 vg >/dev/null

load() { timeout -k 1 $(($1 + 60)) fio --thread --name=w --ioengine=nbd --uri="$(uri a vg/m)" --rw=randwrite --bs=4k --size=96m --iodepth=8 --rate=8m \
    --verify=crc32c --verify_state_save=0 --verify_backlog=256 --time_based --runtime="$1" --output=/dev/null; }
begin_load() { load "$1" & fio_pid=$!; pids+=($fio_pid); sleep 1; }
end_load() { wait "$fio_pid" || die "the load saw an error: $1"; }
state() { ask a plexs vg/m -o plex_state | sort | tr -d ' ' | tr '\n' ' '; }
become() { # states seconds what
    for _ in $(seq $(($2 * 5))); do [ "$(state)" = "$1 " ] && return; sleep 0.2; done
    v a events | tail -n 12 >&2
    die "plexes are '$(state)' instead of '$1' after $3"
}
served() { # after a start
    for _ in $(seq 100); do [ "$(ask a lvs vg/m -o lv_active)" = active ] && return; sleep 0.1; done
    die "the volume is not served: $(v a lvs vg/m -o +lv_active)"
}
equal() { # what
    become 'active active' 40 "$1"
    v a plexsync --verify vg/m >/dev/null || die "plexes differ after $1"
    rm -f "$work"/raw-*
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/a/volmgrd.sock" vg/m "$work/raw-"
    cmp "$work"/raw-0 "$work"/raw-1 || die "plexes differ on the disks after $1"
    echo "ok: $1"
}
load 2
equal "the start"

# Moved away under load, and back: the same file, so only what it misses is copied.
begin_load 9
mv "$(d 2)" "$work/away"
become 'active stale' 10 "a disk that went"
mv "$work/away" "$(d 2)"
end_load "a disk that went"
equal "a disk that went and came back"

# Deleted under load; an old copy takes its place: nothing on it is believed.
cp --sparse=always "$(d 2)" "$work/copy"
begin_load 9
rm "$(d 2)"
mv "$work/copy" "$(d 2)"
end_load "an old copy"
equal "an old copy in the place of a disk"

# Cut short under load: I/O fails, the plex fails, writes go on; with its length back it is tried again.
begin_load 5
truncate -s 60M "$(d 2)"
end_load "a disk that was cut short"
[ "$(state)" != 'active active ' ] || die "nobody noticed that the disk was cut short"
truncate -s 200M "$(d 2)"
become 'active active' 5 "x" 2>/dev/null || true
v a plexsync vg/m >/dev/null || v a vgscan >/dev/null
equal "a disk that was cut short"

# The same, with a restart in between: what was committed stands.
begin_load 4
truncate -s 60M "$(d 2)"
end_load "a disk that was cut short, again"
node_kill a
truncate -s 200M "$(d 2)"
node_start a
served
nbdcopy "$(uri a vg/m)" "$work/out"
v a plexsync vg/m >/dev/null || true
equal "a restart with a failed plex"
nbdcopy "$(uri a vg/m)" "$work/again"
cmp "$work/out" "$work/again" || die "the content changed by the resync"

# Starts without a disk; it returns outdated.
node_stop a
mv "$(d 1)" "$work/away"
node_start a
served
head -c 8M /dev/urandom >"$work/new"
nbdcopy --flush "$work/new" "$(uri a vg/m)" 2>/dev/null || fio --thread --name=g --ioengine=nbd --uri="$(uri a vg/m)" --rw=write --bs=1m \
    --size=8m --end_fsync=1 --output=/dev/null
become 'active stale' 5 "a start without a disk"
nbdcopy "$(uri a vg/m)" "$work/out"
mv "$work/away" "$(d 1)"
equal "a disk that was away at the start"
nbdcopy "$(uri a vg/m)" "$work/again"
cmp "$work/out" "$work/again" || die "the outdated disk was believed"

# Scribbled over while the daemon is down; the group comes up, the disk is taken out, another one takes its place.
node_stop a
dd if=/dev/urandom of="$(d 2)" bs=1M count=200 conv=notrunc status=none
node_start a
served
nbdcopy "$(uri a vg/m)" "$work/again"
cmp "$work/out" "$work/again" || die "the content is not what it was"
bad=$(v a plexs vg/m --noheadings -o plex_name,plex_state | awk '$2 != "active" {print $1}')
v a plexdetach vg/m "$bad" >/dev/null
v a vgreduce --removemissing vg >/dev/null 2>&1 || v a vgreduce vg "$(d 2)" >/dev/null
v a vgextend vg "$(d 3)" >/dev/null
v a plexattach vg/m "$(d 3)" >/dev/null
v a plexsync vg/m >/dev/null
v a plexsync --verify vg/m >/dev/null || die "plexes differ after a disk was replaced"
echo "ok: a scribbled disk was replaced"

# Groups move: away, exported, imported by another node, back again.
v a vgchange -an vg >/dev/null
[ -z "$(ask a lvs vg/m -o lv_active)" ] || [ "$(ask a lvs vg/m -o lv_active)" != active ] || die "still active after vgchange -an"
v a vgexport vg >/dev/null
node_start b
v b vgscan "$(d 1)" "$(d 3)" >/dev/null
v b vgimport vg >/dev/null
v b vgchange -ay vg >/dev/null
nbdcopy "$(uri b vg/m)" "$work/again"
cmp "$work/out" "$work/again" || die "the other node sees other content"
v b vgchange -an vg >/dev/null
v b vgexport vg >/dev/null
v a vgimport vg >/dev/null
v a vgchange -ay vg >/dev/null
nbdcopy "$(uri a vg/m)" "$work/again"
cmp "$work/out" "$work/again" || die "the content is not what it was after the group came back"
v a vgextend vg "$(d 4)" >/dev/null
v a vgreduce vg "$(d 4)" >/dev/null
v a pvremove "$(d 4)" >/dev/null
v a lvremove -y vg/m >/dev/null
v a vgremove vg >/dev/null
v a pvremove "$(d 1)" "$(d 3)" >/dev/null
[ -z "$(v a pvs --noheadings)" ] || die "PVs are left: $(v a pvs)"
echo "ok: groups move and end"
