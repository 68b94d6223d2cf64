# limit: 120
# feedverify: nothing is reported that is only on its way, however busy the volume is; what differs is told to the block, by hand and on a
# schedule that survives a restart; it is throttled; it is repaired.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy qemu-io; do command -v $p >/dev/null || skip "$p is not installed"; done
node_start a; node_start b
disks a 1 64; disks b 1 64
v a vgcreate -s 1m vga "$work/a/disk1" >/dev/null; v b vgcreate -s 1m vgb "$work/b/disk1" >/dev/null
trust a b plaintext
v a lvcreate -n web -L 16m vga >/dev/null
head -c 16M /dev/urandom >"$work/data"
nbdcopy --flush "$work/data" "$(uri a vga/web)"
v a feedattach vga/web b:vgb/web --create >/dev/null
v a feedwait vga/web b --timeout 60
write() { qemu-io -f raw -c "write -q -P $1 $2 $3" "$(uri a vga/web)"; }
plex_at() { # node LV offset: path and offset of a byte of plex0 on its disk
    v "$1" plexs "$2" --noheadings --units b --nosuffix -o plex_segments | sed 's/^ *//' | sed "s/\(.*\):\([0-9]*\)+.*/\1 \2/" | awk -v o="$3" '{print $1, $2 + o}'
}

# A writer that never stops, to a few blocks and all over: no false alarm.
writer() {
    local n=0 args
    while [ ! -e "$work/enough" ]; do
        n=$((n + 1)) args=()
        for i in $(seq 40); do args+=(-c "write -q -P $(((n + i) % 250 + 1)) $(((n * 7 + i) % 200 * 64))k 16k" -c "write -q -P $(((n * 3 + i) % 250 + 1)) 15m 8k"); done
        qemu-io -f raw "${args[@]}" "$(uri a vga/web)" >/dev/null || return
    done
}
writer & busy=$!
for i in 1 2 3; do
    v a feedwait vga/web b --timeout 30
    v a feedverify vga/web b >"$work/out" 2>&1 || { grep -qE "cut|not live" "$work/out" || die "false alarm: $(cat "$work/out")"; }
    cat "$work/out"
done
touch "$work/enough"; wait $busy || die "the writer failed"
if v a events | grep -q "feed-differs"; then die "false alarm: $(v a events | grep feed-differs)"; fi
v a feedwait vga/web b --timeout 30
v a feedverify vga/web b

# Two blocks of the copy change by themselves: told as they are, no more.
read -r disk at < <(plex_at b vgb/web $((5 << 20)))
printf 'rot' | dd of="$disk" bs=1 seek="$at" conv=notrunc status=none
printf 'rot' | dd of="$disk" bs=1 seek=$((at + 4096 + 70000)) conv=notrunc status=none
if v a feedverify vga/web b >"$work/out" 2>&1; then die "a difference went unnoticed"; fi
[ "$(grep -c '^differs: ' "$work/out")" = 2 ] || die "not two ranges: $(cat "$work/out")"
grep -qx "differs: $((5 << 20))+4096 bytes" "$work/out" || die "not the block that differs: $(cat "$work/out")"

# Throttled: 16 MiB at 8 MiB/s.
began=$(now_ms)
if v a feedverify --rate 8m vga/web b >/dev/null 2>&1; then die "the difference is gone"; fi
took=$(($(now_ms) - began))
[ $took -ge 1800 ] || die "16 MiB at 8 MiB/s took $took ms"
echo "figure: 16 MiB at 8 MiB/s compared in $took ms"

# On a schedule, which is still there after a restart.
v a feedset vga/web b --verify-every 2s --verify-rate 64m
[ "$(ask a feeds vga/web -o feed_verify_every --nosuffix)" = 2 ] || die "the schedule is not shown: $(v a feeds -o +feed_verify_every)"
before=$(v a events | grep -c feed-differs)
node_stop a; node_start a
v a feedwait vga/web b --timeout 60
for _ in $(seq 150); do [ "$(v a events | grep -c feed-differs)" -ge $((before + 2)) ] && break; sleep 0.1; done
[ "$(v a events | grep -c feed-differs)" -ge $((before + 2)) ] || die "not compared by itself: $(v a events | tail -n 5)"
v a feedverify --repair vga/web b
for _ in $(seq 150); do v a events | tail -n 1 | grep -q "feed-verified" && break; sleep 0.1; done
v a events | tail -n 1 | grep -q "feed-verified" || die "no word that it is equal again: $(v a events | tail -n 3)"
[ -n "$(ask a feeds vga/web -o feed_verified)" ] || die "no time of the last comparison"
v a feedset vga/web b --verify-every never
[ -z "$(ask a feeds vga/web -o feed_verify_every)" ] || die "the schedule is still there"
if v a feedset vga/web b 2>/dev/null; then die "feedset without anything to set"; fi
echo "ok: verified"
