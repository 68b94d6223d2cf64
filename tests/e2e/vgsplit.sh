# limit: 120
# vgsplit and vgmerge: volumes keep their content and their identity, others stay in use meanwhile, what cannot be is refused with the
# next step, and a daemon that is killed in between finishes what it began (each write of it is cut off in tools/src/daemon/groups).
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v qemu-img >/dev/null || skip "qemu-img is not installed"
node_start a
disks a 4 64
d=$work/a
v a vgcreate -s 1m --addtag rack4 vg0 "$d/disk1" "$d/disk2" "$d/disk3" >/dev/null
v a lvcreate -n web -L 8m vg0 "$d/disk1" >/dev/null
v a lvcreate -n db -L 8m -m 1 vg0 "$d/disk2" "$d/disk3" >/dev/null
v a vgcreate -s 1m vg1 "$d/disk4" >/dev/null
v a lvcreate -n mail -L 8m vg1 >/dev/null
for lv in vg0/web vg0/db; do
    head -c 8M /dev/urandom >"$work/${lv#*/}"
    qemu-img convert -n -f raw -O raw "$work/${lv#*/}" "$(uri a $lv)"
done
same() { qemu-img compare -q -f raw -F raw "$work/${1#*/}" "$(uri a "$1")" || die "$1 is something else"; }
uuid=$(ask a lvs -o lv_uuid vg0/db)
refused() { # what it says, verb...
    local says=$1; shift
    v a "$@" >"$work/out" 2>&1 && die "not refused: $*"
    grep -qE "$says" "$work/out" || die "$*: $(cat "$work/out")"
}
refused 'vg0/db.*active.*lvchange -an vg0/db' vgsplit -n db vg0 new
v a lvchange -an vg0/db
refused 'db also lies on .*disk3.*name that disk' vgsplit vg0 new "$d/disk2"
v a vgsplit -n db vg0 new | grep -q 'New volume group "new" successfully split from "vg0"' || die "it says something else"
[ "$(ask a pvs -o pv_name -S vg_name=new -O pv_name | tr '\n' ' ')" = "$d/disk2 $d/disk3 " ] || die "$(v a pvs)"
[ "$(ask a vgs -o vg_tags new)" = rack4 ] || die "a new group has the tags of the old one"
[ "$(ask a lvs -o lv_uuid new/db)" = "$uuid" ] || die "another volume"
same vg0/web # in use all the while
v a lvchange -ay new/db >/dev/null
same new/db
node_kill a
node_start a
same new/db
same vg0/web

v a lvchange -an new/db
v a vgsplit new vg1 "$d/disk2" "$d/disk3" 2>"$work/err" && die "a group without disks"
grep -q 'last disk.*vgremove' "$work/err" || die "$(cat "$work/err")"
refused 'mail is active|vg1/mail.*active' vgmerge new vg1
v a vgmerge vg1 new | grep -q 'Volume group "new" successfully merged into "vg1"' || die "it says something else"
[ "$(ask a vgs -o vg_name -O vg_name | tr '\n' ' ')" = "vg0 vg1 " ] || die "$(v a vgs)"
v a lvchange -ay vg1/db >/dev/null
same vg1/db
v a plexsync --verify vg1/db >/dev/null
[ "$(ask a lvs -o lv_active vg1/mail)" = active ] || die "a volume of the group that stays was taken away"

# Killed at any moment: afterwards it is in one group or in the other.
v a lvchange -an vg1/db
at=vg1
for round in $(seq 6); do
    to=part$round
    { v a vgsplit -n db $at $to || v a vgmerge $to $at; } >/dev/null 2>&1 & verb=$!
    sleep "0.0$((round * 3 % 10))"
    node_kill a
    wait $verb 2>/dev/null || true
    node_start a
    [ -z "$(ask a vgs -o vg_trouble | tr -d '\n')" ] || die "$(v a vgs -o +vg_trouble)"
    at=$(ask a lvs -o vg_name -S "lv_uuid=$uuid")
    case $at in vg1 | part*) ;; *) die "the volume is nowhere, or twice: $at" ;; esac
    [ "$(ask a pvs -o pv_name | wc -l)" = 4 ] && [ -z "$(ask a pvs -o vg_name -S pv_attr=--- )" ] || die "$(v a pvs)"
done
v a lvchange -ay "$at/db" >/dev/null
cp "$work/db" "$work/db.kept"
qemu-img compare -q -f raw -F raw "$work/db.kept" "$(uri a "$at/db")" || die "the content after the kills"

# Tags of disks.
v a pvchange --addtag fast "$d/disk1" >/dev/null
v a lvcreate -n quick -L 4m vg0 @fast >/dev/null
[ "$(ask a pvs -o pv_name,pv_tags @fast)" = "$d/disk1 fast" ] || die "$(v a pvs -o +pv_tags)"
refused 'no disk has this tag.*pv_tags' lvcreate -n x -L 4m vg0 @slow
