# limit: 180
# Data off a disk while it is being written to: with a client at work, over the daemon's death, given up, and to a disk of
# the admin's choice. What was written is there afterwards, on all plexes, and nothing is left on the disk.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 4 420
d() { echo "$work/a/disk$1"; }
v a vgcreate -s 1m vg "$(d 1)" "$(d 2)" "$(d 3)" "$(d 4)" >/dev/null
v a lvcreate -n web -L 300m -m 1 vg "$(d 1)" "$(d 2)" >/dev/null
v a lvcreate -n db -L 10m vg "$(d 1)" >/dev/null
head -c 40M /dev/urandom >"$work/web" && truncate -s 300M "$work/web"
head -c 10M /dev/urandom >"$work/db"
nbdcopy --flush "$work/web" "$(uri a vg/web)"
nbdcopy --flush "$work/db" "$(uri a vg/db)"
on() { v a plexs vg -S "devices=~'disk$1[(]'" --noheadings | wc -l; }
moving() { v a lvs vg -S 'lv_moving!=""' --noheadings | wc -l; }
same() { # volume
    nbdcopy "$(uri a "vg/$1")" "$work/out" && cmp "$work/$1" "$work/out" || die "$1 is not what was written"
}
again() { # the daemon, and the volumes that were active
    node_start a
    for _ in $(seq 200); do
        [ "$(v a lvs vg --noheadings -S lv_active=active | wc -l)" = 2 ] && return
        sleep 0.1
    done
    die "the volumes are not served again: $(v a lvs)"
}
refused() { # pattern command...
    local pattern=$1
    shift
    if "$@" >"$work/out" 2>&1; then die "done: $*"; fi
    grep -qi "$pattern" "$work/out" || die "'$(cat "$work/out")' does not say '$pattern'"
}

# What is not to be.
refused 'not a disk' v a pvmove "$work/nowhere"
refused 'nothing' v a pvmove "$(d 4)"
refused 'itself' v a pvmove "$(d 1)" "$(d 1)"
refused 'nothing there' v a pvmove -n vg/none "$(d 1)"
refused 'disk' v a pvmove -n web "$(d 1)" "$(d 2)" # the other copy is there
[ "$(moving)" = 0 ] && [ "$(v a plexs vg --noheadings | wc -l)" = 3 ] || die "a refused move has begun"
v a pvmove --test "$(d 1)" >/dev/null
[ "$(moving)" = 0 ] || die "--test has begun a move"
v a pvmove | grep -q 'No move' || die "moves are under way"

# Both volumes, with a writer on one of them. It writes what is there, so the content stays what it was.
(while :; do nbdcopy "$work/web" "$(uri a vg/web)" 2>/dev/null || sleep 0.1; done) & writer=$!
v a pvmove "$(d 1)" >"$work/moved"
kill "$writer"; wait "$writer" 2>/dev/null || true
grep -q '100.00%' "$work/moved" || die "$(cat "$work/moved")"
[ "$(on 1)" = 0 ] || die "something is still on disk 1: $(v a plexs)"
same web; same db
v a plexsync --verify vg/web >/dev/null
v a vgreduce vg "$(d 1)" >/dev/null
v a vgextend vg "$(d 1)" >/dev/null

# Begun, killed, come up again: it ends by itself, and who asks again only waits.
from=2 to=1
for try in 1 2 3 4 5; do
    v a pvmove -b -n web "$(d $from)" "$(d $to)"
    node_kill a
    "$bin/volmgr" pvck --dump metadata "$(d 4)" >"$work/dump"
    grep -q '"replaces"' "$work/dump" && break
    [ "$try" != 5 ] || die "the move was always done before the daemon was killed"
    again
    read -r from to <<<"$to $from"
done
again
v a pvmove >/dev/null
[ "$(moving)" = 0 ] || die "pvmove has not waited"
[ "$(v a plexs vg/web -S "devices=~'disk$from[(]'" --noheadings | wc -l)" = 0 ] || die "the move did not go on after the daemon's death: $(v a plexs)"
[ "$(v a plexs vg/web -S "devices=~'disk$to[(]'" --noheadings | wc -l)" = 1 ] || die "it went elsewhere: $(v a plexs)"
same web
v a plexsync --verify vg/web >/dev/null

# A plex that has just come when the daemon dies, in the slot that another one left: it has nothing, and is not taken for one
# that misses nothing.
v a plexattach vg/db "$(d 3)" >/dev/null
v a plexsync vg/db >/dev/null
v a plexdetach vg/db "$(ask a plexs vg/db -S "devices=~'disk3[(]'" -o plex_name)" >/dev/null
head -c 10M /dev/urandom >"$work/db"
nbdcopy --flush "$work/db" "$(uri a vg/db)"
v a plexattach vg/db "$(d 3)" >/dev/null
node_kill a
again
v a plexsync vg/db >/dev/null
v a plexsync --verify vg/db >/dev/null
v a plexdetach vg/db "$(ask a plexs vg/db -S "devices=~'disk3[(]'" -o plex_name)" >/dev/null

# Given up in the middle, or just done: never something in between.
for try in 1 2 3 4 5; do
    read -r from to <<<"$to $from"
    v a pvmove -b -n web "$(d $from)" "$(d $to)"
    v a pvmove --abort "$(d $from)" | grep -q 'given up' && break
    [ "$try" != 5 ] || die "nothing was given up"
    v a pvmove >/dev/null
done
[ "$(moving)" = 0 ] || die "it still moves"
[ "$(v a plexs vg/web --noheadings | wc -l)" = 2 ] || die "not two plexes: $(v a plexs)"
same web

# Inactive: nobody copies.
v a lvchange -an vg/db
pv=$(v a plexs vg/db --noheadings -o devices | tr -d ' ' | sed 's/(.*//')
refused 'not active' v a pvmove -n db "$pv"
v a lvchange -ay vg/db >/dev/null

# lvconvert: the same under LVM's name for it.
v a lvconvert -m +1 vg/db >/dev/null
v a plexsync vg/db >/dev/null
[ "$(ask a lvs vg/db -o plex_count)" = 2 ] || die "lvconvert -m +1"
v a lvconvert -m 0 vg/db "$pv" >/dev/null
[ "$(v a plexs vg/db --noheadings -S "devices=~$pv" | wc -l)" = 0 ] || die "lvconvert kept the named disk"
refused 'plex' v a lvconvert -m -1 vg/db
same db
node_stop a
for n in 1 2 3 4; do "$bin/volmgr" pvck "$(d $n)" >/dev/null || die "disk $n is damaged"; done
