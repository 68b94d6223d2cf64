# limit: 240
# feedswap --online: what was backed up is there at once and can be written, while the rest comes behind. The daemon is killed in the
# middle on either side, and goes on. Then the roles are exchanged again: only what was written meanwhile travels.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 2048 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy qemu-io nbdinfo fio; do command -v $p >/dev/null || skip "$p is not installed"; done
size=192
node_start a; node_start b
continue_b() { kill -CONT "${pid_of[b]}" 2>/dev/null || true; }
at_end continue_b # a stopped process does not end on TERM
disks a 2 $((size + 40)); disks b 1 $((size + 40))
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"; v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L ${size}m -m 1 vga
# Data, a hole, data.
head -c $((size / 2))M /dev/urandom >"$work/want"
truncate -s $((size * 3 / 4))M "$work/want"
head -c $((size / 4))M /dev/urandom >>"$work/want"
nbdcopy "$work/want" "$(uri a vga/web)"
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
if v a feedswap vga/web b --online -y 2>"$work/refusal"; then die "an attached feed has nothing to restore"; fi
grep -q "nothing to restore" "$work/refusal" || die "the refusal does not say why: $(cat "$work/refusal")"
v a feeddetach vga/web b --point one
head -c ${size}M /dev/urandom >"$work/garbage"
nbdcopy "$work/garbage" "$(uri a vga/web)"
# It may say that all went well though a command of it did not.
io() { timeout 60 qemu-io -f raw "$(uri a vga/web)" "$@" >"$work/io" 2>&1 && ! grep -qiE "error|failed" "$work/io"; }
field() { ask a feeds vga/web -o "$1" --units b --nosuffix; }

# The peer stands still as soon as the restore has begun: what is read now cannot have come before.
v a feedswap vga/web b --point one --online --discard-local -y
[ "$(ask a lvs vga/web -o lv_role)" = feed ] || die "not a feed volume"
case $(ask a lvs vga/web -o lv_attr) in ?w*) ;; *) die "not writable: $(ask a lvs vga/web -o lv_attr)" ;; esac
case $(ask b lvs vgb/web -o lv_attr) in ?r*) ;; *) die "the copy can be written while it is read: $(ask b lvs vgb/web -o lv_attr)" ;; esac
put() { # file offset-in-KiB KiB pattern: into the file what qemu-io writes
    head -c "$3"K /dev/zero | tr '\0' "\\$(printf %o "$4")" | dd of="$1" bs=1K seek="$2" conv=notrunc status=none
}
# Partial, unaligned, whole regions; in data, in what was a hole, at the very end.
io -c "write -P 0x11 12k 4k" -c "write -P 0x12 130k 300k" -c "write -P 0x13 $((size * 1024 * 5 / 8))k 64k" -c "write -P 0x14 $((size * 1024 - 4))k 4k" -c flush >/dev/null || die "cannot write: $(cat "$work/io")"
put "$work/want" 12 4 0x11; put "$work/want" 130 300 0x12; put "$work/want" $((size * 1024 * 5 / 8)) 64 0x13; put "$work/want" $((size * 1024 - 4)) 4 0x14
node_kill b
echo "figure: killed the source with $(field feed_dirty) of $((size << 20)) bytes missing"
io -c "read -P 0x11 12k 4k" >/dev/null || die "what was written is not there"
node_kill a
node_start b
node_start a
for _ in $(seq 100); do nbdinfo --size "$(uri a vga/web)" >/dev/null 2>&1 && break; sleep 0.1; done # it brings its volumes up when it is there
io -c "read -P 0x12 130k 300k" -c "write -P 0x15 40m 1m" -c "write -P 0x16 101m 100k" >/dev/null || die "not usable after the kills: $(cat "$work/io")"
put "$work/want" 40960 1024 0x15; put "$work/want" 103424 100 0x16
nbdcopy "$(uri a vga/web)" "$work/got"
cmp "$work/want" "$work/got" || die "not what was restored and written"
v a feedwait vga/web b --timeout 90
[ "$(field feed_dirty)" = 0 ] || die "live with $(field feed_dirty) bytes missing"
v a events | grep -q feed-restored || die "no event says that the restore has ended"
nbdcopy "$(uri a vga/web)" "$work/got"
cmp "$work/want" "$work/got" || die "not what was restored and written, once all is here"
for p in 0 1; do
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/a/volmgrd.sock" vga/web "$work/plex"
    cmp "$work/want" "$work/plex$p" || die "plex$p differs"
done
if v a feeddetach vga/web b --point two 2>/dev/null; then die "detached from the wrong side"; fi
if v a feedverify vga/web b 2>"$work/refusal"; then die "two sides that differ by design were verified"; fi

# Back: only what was written here travels.
sent() { echo $(($(ask b feeds vgb/web -o payload_kernel_bytes --units b --nosuffix) + $(ask b feeds vgb/web -o payload_copied_bytes --units b --nosuffix))); }
before=$(sent)
v a feedswap vga/web b -y
v a feedwait vga/web b --timeout 60
back=$(($(sent) - before))
echo "figure: the way back took $back bytes; 1.5 MiB were written"
[ $back -lt $((48 << 20)) ] || die "the way back took $back bytes"
v a feedverify vga/web b || die "the sides differ after the way back"
case $(ask b lvs vgb/web -o lv_attr) in fr*) ;; *) die "the sink is $(ask b lvs vgb/web -o lv_attr)" ;; esac

# A peer that stands still: what is here can be used, what is not is waited for, and comes when the peer is back.
v a feeddetach vga/web b --point two
nbdcopy "$work/garbage" "$(uri a vga/web)"
v a feedswap vga/web b --point two --online --discard-local -y
kill -STOP "${pid_of[b]}"
missing=$(field feed_dirty)
(sleep 3; continue_b) &
pids+=($!)
nbdcopy "$(uri a vga/web)" "$work/got"
cmp "$work/want" "$work/got" || die "read something else while the peer stood still"
echo "figure: $missing bytes were missing when the peer stopped"
v a feedwait vga/web b --timeout 60
v a feedswap vga/web b -y
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b
echo "ok: used while it was restored"
