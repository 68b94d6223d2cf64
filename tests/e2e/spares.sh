# limit: 90
# Disks to spare: nothing is put there unasked; a plex that has lost its disk for longer than the admin allows goes to one, while
# the volume is written, also over the daemon's death; one that gets its disk back in time stays; a spare one that does not help is said.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
printf '[spares]\nafter = 4\n' >"$work/toml"
config_of[a]=$work/toml
node_start a
disks a 5 80
truncate -s 40M "$work/a/disk5"
d() { echo "$work/a/disk$1"; }
v a vgcreate -s 1m vg "$(d 1)" "$(d 2)" "$(d 3)" "$(d 4)" "$(d 5)" >/dev/null
[ "$(v a pvchange --spare y "$(d 1)" "$(d 5)" | wc -l)" = 2 ] || die "pvchange says something else"
spares() { v a pvs --noheadings -S 'pv_spare=spare' -o pv_name | awk '{print $1}' | sed "s|$work/a/||" | paste -sd' '; }
on() { v a plexs vg -S "devices=~'disk$1[(]'" --noheadings | wc -l; }
active() { v a plexs vg/web -S 'plex_state=active' --noheadings | wc -l; }
within() { # seconds what command...
    local n=$(($1 * 5)) what=$2
    shift 2
    for _ in $(seq "$n"); do "$@" && return; sleep 0.2; done
    die "not within time: $what; $(v a plexs; v a pvs; v a events | tail -n 5)"
}
event() { v a events | grep -q "$1"; }
[ "$(spares)" = "disk1 disk5" ] || die "spare: $(spares)"
[ "$(v a pvs --noheadings -S 'pv_spare=spare' -o pv_attr | awk 'NR==1{print $1}')" = s-- ] || die "$(v a pvs)"

# Left alone by what does not name them.
v a lvcreate -n web -L 60m -m 1 vg >/dev/null
v a lvcreate -n db -L 2m vg "$(d 4)" >/dev/null
[ "$(on 1) $(on 5)" = "0 0" ] || die "a spare disk was taken: $(v a plexs)"
v a pvchange --spare y "$(d 4)" >"$work/out" 2>&1 && die "a disk in use became spare"
grep -q 'db has data there' "$work/out" || die "$(cat "$work/out")"
v a pvchange --spare n "$work/nowhere" >"$work/out" 2>&1 && die "something became a disk"
v a pvchange -t --spare n "$(d 5)" >/dev/null && [ "$(spares)" = "disk1 disk5" ] || die "--test changes"

head -c 60M /dev/urandom >"$work/web"
nbdcopy --flush "$work/web" "$(uri a vg/web)"
first=
for n in 4 3 2; do [ "$(v a plexs vg/web -S "devices=~'disk$n[(]'" --noheadings | wc -l)" = 0 ] || first=$n; done

# Back in time: it stays where it is.
mv "$(d "$first")" "$work/away"
missed() { [ "$(active)" = 1 ]; }
within 20 "the plex is missed" missed
mv "$work/away" "$(d "$first")"
back() { [ "$(active)" = 2 ]; }
within 30 "the plex is back" back
if event spare-used; then die "a spare disk was used in haste"; fi

# Gone for good. The daemon dies once while the spare disk is being filled, or soon after.
mv "$(d "$first")" "$work/away"
within 30 "a spare disk is used" event spare-used
node_kill a
node_start a
replaced() { [ "$(active)" = 2 ] && [ "$(v a plexs vg/web --noheadings | wc -l)" = 2 ]; }
within 40 "the new plex has taken the lost one's place" replaced
[ "$(on 1)" = 1 ] && [ "$(spares)" = disk5 ] || die "on $(v a plexs), spare $(spares)"
v a plexsync --verify vg/web >/dev/null
nbdcopy "$(uri a vg/web)" "$work/out" && cmp "$work/web" "$work/out" || die "the volume is not what was written"

# The next disk goes; what is left to spare is too small: said once, and the volume goes on.
mv "$(d 1)" "$work/away1"
within 30 "it is said that nothing helps" event spare-unusable
sleep 3
[ "$(v a events | grep -c spare-unusable)" = 1 ] || die "said again and again: $(v a events | tail -n 5)"
nbdcopy "$(uri a vg/web)" "$work/out" && cmp "$work/web" "$work/out" || die "the volume is not what was written"
# A larger one comes.
truncate -s 80M "$work/a/disk6"
v a vgextend vg "$(d 6)" >/dev/null
v a pvchange --spare y "$(d 6)" >/dev/null
within 40 "the larger one takes over" replaced
v a plexsync --verify vg/web >/dev/null
nbdcopy "$(uri a vg/web)" "$work/out" && cmp "$work/web" "$work/out" || die "the volume is not what was written"
node_stop a
