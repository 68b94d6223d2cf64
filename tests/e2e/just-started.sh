# limit: 120
# A daemon that has just started answers before it serves its volumes: listings show what is there, and a verb that needs a served volume
# waits for it.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 2 200
v a vgcreate -s 1m vg0 "$work/a/disk1" "$work/a/disk2" >/dev/null
for i in $(seq 24); do v a lvcreate -n "v$i" -L 1m -m 1 vg0 >/dev/null; done
early=0
for kill in node_kill node_stop; do
    $kill a
    node_start a
    served=$(v a lvs --noheadings -S lv_active=active | wc -l)
    [ "$served" = 24 ] || early=1
    v a plexsync --verify vg0/v24 >"$work/out" 2>&1 || die "after $kill, with $served of 24 served: $(cat "$work/out")"
    [ "$(v a lvs --noheadings -S lv_active=active | wc -l)" = 24 ] || die "a verb did not wait for all volumes"
done
[ $early = 1 ] || echo "figure: all volumes were served before the first question"
