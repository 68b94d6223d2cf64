# limit: 480
# Metadata: 200 random lvcreate and lvremove with kill -9 of the daemon between and in the middle; each ends done or not done, the
# disks stay clean, and what is listed is what was done. Backup and restore of the metadata.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 3 300
v a vgcreate vg "$work"/a/disk{1,2,3} >/dev/null
declare -A have # name -> 1
RANDOM=${SEED:-4711}
check() { # what
    local listed known
    listed=$(v a lvs vg --noheadings -o lv_name | tr -d ' ' | sort | tr '\n' ' ')
    known=$(printf '%s\n' "${!have[@]}" | sort | tr '\n' ' ')
    [ "${listed# }" = "${known# }" ] || die "after $1: listed '$listed', done '$known'"
}
clean() { # the disks agree and have nothing wrong; the daemon has been started since it was killed
    local disk
    for disk in "$work"/a/disk{1,2,3}; do "$bin/volmgr" pvck "$disk" >"$work/out" 2>&1 || die "pvck $disk: $(cat "$work/out")"; done
}
kills=0
for round in $(seq 200); do
    name=lv$((RANDOM % 12))
    if [ -n "${have[$name]:-}" ]; then command=(lvremove -y "vg/$name") done=-; else
        command=(lvcreate -n "$name" -L $((4 + RANDOM % 3 * 4))m -a n vg) done=+
        [ $((RANDOM % 2)) = 0 ] && command+=(-m 1)
    fi
    if [ $((round % 14)) = 7 ]; then # in the middle
        v a "${command[@]}" >/dev/null 2>&1 & pid=$!
        sleep "0.00$((RANDOM % 10))"
        node_kill a
        wait $pid 2>/dev/null || true
        node_start a # a commit that was cut short is completed or dropped
        clean
        kills=$((kills + 1))
        # Done or not done: the listing says which.
        if v a lvs "vg/$name" >/dev/null 2>&1; then have[$name]=1; else unset "have[$name]"; fi
    else
        v a "${command[@]}" >/dev/null
        if [ $done = + ]; then have[$name]=1; else unset "have[$name]"; fi
    fi
    if [ $((round % 25)) = 0 ]; then
        node_kill a
        node_start a
        clean
        kills=$((kills + 1))
        check "round $round"
    fi
done
check "all rounds"
clean
echo "figure: 200 changes, $kills kills"
used=$(($(ask a vgs vg -o vg_size --units b --nosuffix) - $(ask a vgs vg -o vg_free --units b --nosuffix)))
for name in "${!have[@]}"; do v a lvremove -y "vg/$name" >/dev/null; unset "have[$name]"; done
[ "$(ask a vgs vg -o vg_size --units b --nosuffix)" = "$(ask a vgs vg -o vg_free --units b --nosuffix)" ] || die "extents leaked of $used"

# A volume is removed by mistake: its metadata comes back, and its content with it.
v a lvcreate -n keep -L 32m -m 1 vg >/dev/null
head -c 32M /dev/urandom >"$work/content"
nbdcopy --flush "$work/content" "$(uri a vg/keep)"
v a vgcfgbackup vg -f "$work/backup" >/dev/null
v a lvremove -y vg/keep >/dev/null
if v a vgcfgrestore vg -f "$work/backup" >/dev/null 2>&1; then die "vgcfgrestore changed volumes without --force"; fi
v a vgcfgrestore vg -f "$work/backup" --force >/dev/null
v a lvchange -ay vg/keep >/dev/null
nbdcopy "$(uri a vg/keep)" "$work/out"
cmp "$work/content" "$work/out" || die "the content did not come back with the metadata"
v a plexsync --verify vg/keep >/dev/null
node_stop a
clean
