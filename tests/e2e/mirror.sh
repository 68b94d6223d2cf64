# limit: 480
# Mirrors through the real binaries: plexes attached, detached, off line and on line under load, a volume that grows under load,
# kill -9 under load; after each the plexes are compared, by the daemon and (unstriped) straight from the disks.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in nbdcopy fio; do command -v $p >/dev/null || skip "$p is not installed"; done
node_start a
disks a 4 200
v a vgcreate vg "$work"/a/disk{1,2,3,4} >/dev/null

load() { # lv seconds: verified random writes
    # fio does not always notice that its server has died: it would spin for ever.
    timeout -k 1 $(($2 + ${grace:-60})) fio --thread --name=w --ioengine=nbd --uri="$(uri a "vg/$1")" --rw=randwrite --bs=4k --size=48m --iodepth=16 --rate=12m \
        --verify=crc32c --verify_state_save=0 --verify_backlog=256 --time_based --runtime="$2" --output=/dev/null
}
begin_load() { load "$@" & fio_pid=$!; pids+=($fio_pid); sleep 0.7; }
end_load() { wait "$fio_pid" || die "fio saw an error or a difference: $1"; }
started() { # the daemon again, with all volumes served
    node_start a
    for _ in $(seq 100); do [ "$(v a lvs vg --noheadings -o lv_active | grep -cx ' *active *')" = 3 ] && return; sleep 0.1; done
    die "not all volumes are served: $(v a lvs vg -o +lv_active)"
}
in_step() { # lv what: waits, then compares both ways
    timeout 60 "$bin/volmgr" --socket "$work/a/volmgrd.sock" plexsync "vg/$1" >/dev/null || die "$1 does not get in step after $2"
    v a plexsync --verify "vg/$1" >/dev/null || die "the plexes of $1 differ after $2"
}
raw_equal() { # what: the plexes of vg/m, from the disks
    rm -f "$work"/raw-*
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/a/volmgrd.sock" vg/m "$work/raw-"
    local first f
    first=$(ls "$work"/raw-* | head -n 1)
    for f in "$work"/raw-*; do cmp "$first" "$f" || die "plexes differ on the disks after $1"; done
    [ "$(ls "$work"/raw-* | wc -l)" = "${2:-2}" ] || die "not ${2:-2} plexes after $1"
}

# Content in and out, striped and mirrored.
head -c 64M /dev/urandom >"$work/content"
v a lvcreate -n m -L 64m -m 1 vg "$work/a/disk1" "$work/a/disk2" >/dev/null
v a lvcreate -n s -L 64m -i 2 -I 64k vg >/dev/null
v a lvcreate -n sm -L 64m -i 2 -m 1 vg >/dev/null
for lv in m s sm; do
    nbdcopy --flush "$work/content" "$(uri a vg/$lv)"
    nbdcopy "$(uri a vg/$lv)" "$work/out"
    cmp "$work/content" "$work/out" || die "$lv gives back something else"
done
in_step m writing
in_step sm writing
raw_equal writing
if v a plexsync --verify vg/s >/dev/null 2>&1; then die "a volume with one plex was verified"; fi

# A third plex under load; the first goes under load; numbers are not given again.
begin_load m 4
v a plexattach vg/m "$work/a/disk3"
v a plexsync --verify vg/m >/dev/null || die "verify under load found a difference"
end_load "plexattach"
in_step m plexattach
raw_equal plexattach 3
begin_load m 3
v a plexdetach vg/m plex0
end_load "plexdetach"
v a plexdetach vg/m plex2
v a plexattach vg/m "$work/a/disk1"
in_step m "attach again"
raw_equal "attach again"
[ "$(ask a plexs vg/m -o plex_name | tr -d ' \n')" = plex1plex3 ] || die "plex numbers: $(ask a plexs vg/m -o plex_name)"

# Off line and on line under load; a kill while off line must not lose what the plex misses.
begin_load m 6
v a lvchange --offline plex3 vg/m
sleep 1
v a lvchange --online plex3 vg/m
end_load "off line and on line"
in_step m "off line and on line"
raw_equal "off line and on line"
v a lvchange --offline plex3 vg/m
load m 2
node_kill a
started
v a lvchange --online plex3 vg/m
in_step m "a kill while off line"
raw_equal "a kill while off line"

# Grows under load.
begin_load m 4
v a lvextend -L 96m vg/m >/dev/null
end_load lvextend
in_step m lvextend
raw_equal lvextend
[ "$(ask a lvs vg/m -o lv_size --units b --nosuffix)" = $((96 << 20)) ] || die "the size is not 96 MiB"
v a lvextend -L 96m vg/sm >/dev/null
in_step sm lvextend

# kill -9 under load, three times.
for round in 1 2 3; do
    for lv in m sm; do
        grace=4 load $lv 6 >/dev/null 2>&1 & fio_pid=$!
        pids+=($fio_pid)
    done
    sleep "1.$RANDOM"
    node_kill a
    wait
    started
    for lv in m sm; do in_step $lv "kill $round"; done
    raw_equal "kill $round"
done

# A difference is found and named.
IFS='|' read -r name segment < <(v a plexs vg/m --noheadings --separator '|' -o plex_name,plex_segments --units b --nosuffix | tail -n 1)
segment=${segment// /}
segment=${segment%%,*}
where=${segment##*:}
printf 'wrong' | dd of="${segment%:*}" bs=1 seek=$((${where%+*} + 1048576)) conv=notrunc status=none
status=0
v a plexsync --verify vg/m >"$work/out" 2>&1 || status=$?
[ $status = 5 ] || die "a difference in $name gave exit code $status"
grep -q 'byte 1048576, 4096 bytes' "$work/out" || die "the difference is not named: $(cat "$work/out")"
echo "ok"
