# limit: 180
# Tags: put on and taken off, selected by, in place of names; they survive the daemon's death, and a backup of the metadata.
# Then every changing verb with --test: it says what it would do, and nothing has changed.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 4 64
d=$work/a
v a vgcreate -s 1m vga "$d/disk1" "$d/disk2" >/dev/null
v a vgcreate -s 1m vgb "$d/disk3" >/dev/null
v a lvcreate -n web -L 8m -m 1 --addtag prod --addtag host=a/b vga >/dev/null
v a lvcreate -a n -n old -L 8m vga >/dev/null
v a lvcreate -a n -n db -L 8m vgb >/dev/null
v a lvcreate -a n -n far -L 8m vgb >/dev/null
v a lvchange --addtag prod vgb/db >/dev/null
v a vgchange --addtag rack4 vgb >/dev/null
is() { # expected, command...
    local expected=$1 got
    shift
    got=$(v a "$@" --noheadings | awk '{$1=$1};1' | tr '\n' ';')
    [ "$got" = "$expected" ] || die "'$*' gives '$got', not '$expected'"
}
is 'web;db;' lvs -o lv_name @prod
is 'db;far;' lvs -o lv_name @rack4
is 'vgb rack4;' vgs -o vg_name,vg_tags @rack4
is 'web host=a/b,prod;' lvs -o lv_name,lv_tags -S 'lv_tags=~host'
v a lvchange -ay @rack4 >/dev/null
is 'db;far;web;' lvs -o lv_name -O lv_name -S lv_active=active
v a vgchange -an @rack4 >/dev/null
is 'web;' lvs -o lv_name -S lv_active=active
v a vgcfgbackup -f "$d/vga.txt" vga >/dev/null
v a lvchange --deltag prod --deltag host=a/b vga/web >/dev/null
is 'db;' lvs -o lv_name @prod
v a lvchange -an vga/web
v a vgcfgrestore -y --force -f "$d/vga.txt" vga >/dev/null
node_kill a
"$bin/volmgr" pvck --dump metadata "$d/disk3" >"$work/dump"
grep -q rack4 "$work/dump" || die "the disk does not have the group's tag"
node_start a
is 'web;db;' lvs -o lv_name @prod
is 'vgb rack4;' vgs -o vg_name,vg_tags -S 'vg_tags=rack4'

# --test.
v a lvchange -ay vga/web >/dev/null
v a vgcreate -s 1m vgx "$d/disk4" >/dev/null
v a vgexport vgx >/dev/null
truncate -s 64M "$d"/disk{5,6,7,8,9}
v a vgcreate -s 1m vgm "$d/disk7" "$d/disk8" >/dev/null
v a lvcreate -a n -n moves -L 8m vgm "$d/disk7" >/dev/null
v a vgcreate -s 1m vgx2 "$d/disk9" >/dev/null
v a pvcreate "$d/disk6" >/dev/null
v a vgcfgbackup vgb >/dev/null
state() {
    local kind
    for kind in pvs vgs lvs plexs peers; do v a $kind --reportformat json -o all --units b; done
    cksum "$d"/disk[4-9]
    find "$d/state" -path '*backup*' -o -name '*peer*'
}
before=$(state)
count=0
while read -ra words; do
    words=("${words[@]//\$d/$d}")
    v a --test "${words[@]}" >"$work/out" 2>"$work/err" || die "--test ${words[*]}: $(cat "$work/err")"
    grep -q '^Test mode: would ' "$work/out" || die "--test ${words[*]} says '$(cat "$work/out")'"
    after=$(state)
    [ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after") >&2 || true; die "--test ${words[*]} has changed something"; }
    count=$((count + 1))
done <<TABLE
pvcreate \$d/disk5
pvremove \$d/disk6
pvresize \$d/disk1
vgcreate vgnew \$d/disk5
vgextend vga \$d/disk6
vgremove --force vgb
vgrename vgb vgc
vgsplit -n moves vgm vgn
vgmerge vgb vgx2
pvchange --addtag x \$d/disk1
vgcreate --addtag x vgnew \$d/disk5
vgchange -ay vgb
vgchange -an vga
vgchange --addtag x vga
vgexport vgb
vgimport vgx
vgcfgbackup vgb
vgcfgrestore vgb
vgscan
lvcreate -n new -L 8m vga
lvextend -L +8m vga/old
lvreduce -y -L 4m vga/old
lvremove vga/old
lvrename vga/old older
lvchange -ay vga/old
lvchange -an vga/web
lvchange --offline plex1 vga/web
lvchange --addtag x vga/web
lvconvert -m +1 vga/old
lvconvert -m 0 vga/web
plexattach vga/old
plexdetach vga/web plex1
plexsync vga/web
peeradd b 127.0.0.1:1 --fingerprint $(ask a nodeshow -o node_fingerprint)
TABLE
echo "figure: $count verbs with --test"
