# limit: 120
# Disks that come back in the wrong order: a disk that was given up, alone, is not taken for the volume; with the others it catches up;
# an admin may go on with it by a word that says so, and two sides that were both written are not put together. A group that is
# not whole and new to a node is not activated by itself.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 2 80
d() { echo "$work/a/disk$1"; }
for n in 1 2 3 4; do head -c 40M /dev/urandom >"$work/content$n"; done
write() { nbdcopy --flush "$work/content$1" "$(uri a vg/web)"; }
holds() { nbdcopy "$(uri a vg/web)" "$work/out" && cmp "$work/content$1" "$work/out" || die "the volume is not content $1"; }
within() { # seconds what command...
    local n=$(($1 * 5)) what=$2
    shift 2
    for _ in $(seq "$n"); do "$@" && return; sleep 0.2; done
    die "not within time: $what; $(v a vgs; v a plexs; v a events | tail -n 5)"
}
served() { [ "$(v a lvs vg --noheadings -S lv_active=active 2>/dev/null | wc -l)" = 1 ]; }
plexes() { [ "$(v a plexs vg/web -S plex_state=active --noheadings | wc -l)" = "$1" ]; }
events() { v a events | grep -c "$1" || true; }
event() { [ "$(events "$1")" -gt "$2" ]; }
v a vgcreate -s 1m vg "$(d 1)" "$(d 2)" >/dev/null
v a lvcreate -n web -L 40m -m 1 vg >/dev/null
write 1

# Disk 2 is pulled, the volume goes on; then only disk 2 is there.
mv "$(d 2)" "$work/away2"
within 20 "the plex is missed" plexes 1
write 2
node_stop a
mv "$(d 1)" "$work/away1"; mv "$work/away2" "$(d 2)"
node_start a
within 10 "the trouble is said" event vg-trouble 0
served && die "a stale side is served"
v a lvchange -ay vg/web >"$work/out" 2>&1 && die "a stale side was activated"
grep -q 'older.*disk1' "$work/out" || die "$(cat "$work/out")"

# The other one comes: nothing is lost, and disk 2 gets what it missed.
mv "$work/away1" "$(d 1)"
within 20 "the volume is served again" served
within 40 "both plexes are in step" plexes 2
holds 2
v a plexsync --verify vg/web >/dev/null
v a vgchange --accept-older vg >"$work/out" 2>&1 && die "an older state was accepted where there is none"

# Disk 1 will never come, says the admin. Then it does.
mv "$(d 2)" "$work/away2"
within 20 "the plex is missed" plexes 1
write 3
node_stop a
mv "$(d 1)" "$work/away1"; mv "$work/away2" "$(d 2)"
node_start a
within 10 "the trouble is said" event vg-trouble 1
v a vgchange -t --accept-older vg >/dev/null
served && die "--test changes"
v a vgchange --accept-older vg >/dev/null
v a vgchange -ay vg >/dev/null
holds 2
write 4
node_stop a
mv "$work/away1" "$(d 1)"
node_start a
within 10 "two sides that were written are refused" event vg-trouble 2
served && die "one of two sides was taken without a word"
v a lvchange -ay vg/web >"$work/out" 2>&1 && die "one of two sides was activated"
node_stop a
mv "$(d 1)" "$work/away1"
node_start a
within 20 "the accepted side is served" served
holds 4

# The daemon's death in between does not make it forget.
node_kill a
node_start a
within 20 "the accepted side is served" served

# Another machine: it does not know what the missing disk has. (It does not say so itself: it was whole when it was last used.)
node_stop a
rm -r "$work/a"
node_start a
disks a 2 80
v a vgcreate -s 1m vg "$(d 1)" "$(d 2)" >/dev/null
v a lvcreate -n web -L 40m -m 1 vg >/dev/null
write 1
node_stop a
rm -r "$work/a/state" "$(d 2)"
node_start a
v a vgscan "$(d 1)" >"$work/out" 2>&1 || die "$(cat "$work/out")"
within 10 "it waits for a word" event activation-held 0
served && die "half a group that is new here was activated"
v a vgchange -ay vg >/dev/null
holds 1
node_stop a
node_start a
within 20 "it is known now" served
node_stop a
