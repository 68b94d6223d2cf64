# limit: 900
# needs: fio
# memory: 3072
# Fifty volumes at once: made, activated, all of them written and read back, the daemon killed and restarted under them,
# deactivated. How long each step takes is told.
. /job/guest.sh
count=50
modprobe ublk_drv
ram_disks 2 1024
node_start a
v a vgcreate vg /dev/ram0 /dev/ram1
began=$(date +%s%N)
fds=()
lap() { # what: time since the last one
    local now
    now=$(date +%s%N)
    printf 'figure: %-44s %6d ms\n' "$1" $(((now - began) / 1000000))
    began=$(date +%s%N)
}
for i in $(seq $count); do v a -q lvcreate -an -n "v$i" -L 16m -m $((i % 2)) vg; done
lap "$count volumes made, half of them mirrors"
v a vgchange -ay vg
[ "$(ls /dev/volmgr/vg | wc -l)" = $count ] || die "$(ls /dev/volmgr/vg | wc -l) devices"
lap "activated"
v a lvs >/dev/null
lap "listed"
devices() { for i in $(seq $count); do printf '%s:' "$(readlink "/dev/volmgr/vg/v$i")"; done; }
# Each volume has a pattern of its own: a device that were another volume's would be found.
common=(--rw=randwrite --bs=16k --size=16m --io_size=2m --ioengine=libaio --iodepth=4 --direct=1 --verify=pattern --verify_fatal=1 --randseed=7 --output-format=terse)
fill() { # more options: all at once
    local i all=()
    for i in $(seq $count); do all+=("--name=v$i" "--filename=/dev/volmgr/vg/v$i" "--verify_pattern=0x$(printf %04x $((i + 4096)))"
        "${common[@]}" "$@"); done
    timeout 200 fio "${all[@]}" >/tmp/fio.out 2>/tmp/fio.err || { tail -n 5 /tmp/fio.err; die "fio"; }
}
fill
lap "2 MiB written and verified on each, all at once"
before=$(devices)
kill -KILL "$pid_a"; wait "$pid_a" 2>/dev/null || true
node_start a
served() { value a lvs vg -o lv_path | grep -c "^/dev/volmgr" | grep -qx $count; }
wait_for 120 served
lap "killed and served again"
[ "$(devices)" = "$before" ] || die "other devices"
fill --verify_only
lap "verified again"
# All in use: a stop in good order must not take the longer, the more there are.
for i in $(seq $count); do exec {fd}<"/dev/volmgr/vg/v$i"; fds+=("$fd"); done
kill -TERM "$pid_a"; wait "$pid_a" || die "volmgrd ended badly"
lap "stopped with all of them open"
for fd in "${fds[@]}"; do exec {fd}<&-; done
node_start a
wait_for 120 served
lap "served again"
v a vgchange -an vg
lap "deactivated"
ls /dev/ublkb* 2>/dev/null && die "devices left"
v a lvs -o lv_name,plex_count,lv_health | awk '$3 != "" && $3 != "ok" && NR > 1 {print; bad = 1} END {exit bad}' || die "health"
