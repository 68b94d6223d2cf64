# limit: 240
# The default: TLS pinned by fingerprint on both sides. Backup, point, incremental, restore; sync mode; pause and resume; verify and
# repair; a wrong fingerprint and a plaintext caller refused; what the listings say about the path.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v nbdcopy >/dev/null || skip "nbdcopy is not installed"
node_start a
node_start b
disks a 1 200
disks b 2 200
v a vgcreate vga "$work/a/disk1"
v b vgcreate vgb "$work/b/disk1" "$work/b/disk2"

fa=$(ask a nodeshow -o node_fingerprint) fb=$(ask b nodeshow -o node_fingerprint)
[[ $fa == sha256:* && $fa != "$fb" ]] || die "fingerprints: $fa $fb"
v b peeradd a "127.0.0.1:${port_of[a]}" --fingerprint "$fa" --allow 'all:vgb/*' --allow '!all:vgb/secret*'
v a lvcreate -n web -L 96m vga
head -c 96M /dev/urandom >"$work/one"
nbdcopy --flush "$work/one" "$(uri a vga/web)"

# Somebody else's key, and plaintext where TLS is expected.
v a peeradd b "127.0.0.1:${port_of[b]}" --fingerprint "$fa"
! v a feedattach vga/web b:vgb/web --create 2>"$work/err" || die "a wrong fingerprint was accepted"
grep -qi 'fingerprint\|key\|certificate' "$work/err" || die "unclear: $(cat "$work/err")"
v a peeradd b "127.0.0.1:${port_of[b]}" --fingerprint "$fb" --plaintext
! v a feedattach vga/web b:vgb/web --create 2>"$work/err" || die "plaintext was accepted"
grep -q TLS "$work/err" || die "unclear: $(cat "$work/err")"
v a peeradd b "127.0.0.1:${port_of[b]}" --fingerprint "$fb"
! v a feedattach vga/web b:vgb/secret1 --create 2>"$work/err" || die "an excluded volume was made"
grep -q 'not allowed' "$work/err" || die "unclear: $(cat "$work/err")"
[ -z "$(v b lvs --noheadings)" ] || die "a refused feed left a volume"

# A volume with content of its own, however deep inside, is not overwritten.
v b lvcreate -n foreign -L 96m vgb
qemu-io -f raw -c 'write -q -P 0x5a 50m 4k' "$(uri b vgb/foreign)"
! v a feedattach vga/web b:vgb/foreign 2>"$work/err" || die "foreign data was overwritten"
grep -qi 'content' "$work/err" || die "unclear: $(cat "$work/err")"
qemu-io -r -f raw -c 'read -q -P 0x5a 50m 4k' "$(uri b vgb/foreign)" || die "foreign data has changed"
v b lvremove -y vgb/foreign

v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
[ "$(ask a feeds vga/web -o feed_path)" = copied ] || die "TLS in user space is copied"
ask a feeds vga/web -o feed_reason | grep -q tls || die "the reason is not told"
[ "$(ask b feeds vgb/web -o feed_direction,feed_consistent --separator ' ')" = "in yes" ] || die "the sink says $(ask b feeds vgb/web -o feed_direction,feed_consistent)"
v a feedverify vga/web b

# Paused, changed, resumed: only the change travels.
v a feedpause vga/web b
[ "$(ask a feeds vga/web -o feed_state)" = paused ] || die "not paused"
head -c 4M /dev/urandom >"$work/patch"
dd if="$work/patch" of="$work/one" bs=1M seek=32 conv=notrunc status=none
qemu-io -f raw -c "write -q -s $work/patch 32m 4m" "$(uri a vga/web)"
sleep 0.5
[ "$(ask a feeds vga/web -o feed_dirty --units b --nosuffix)" -eq $((4 << 20)) ] || die "dirty: $(ask a feeds vga/web -o feed_dirty)"
before=$(ask a feeds vga/web -o payload_copied_bytes --units b --nosuffix)
v a feedresume vga/web b
v a feedwait vga/web b --timeout 30
after=$(ask a feeds vga/web -o payload_copied_bytes --units b --nosuffix)
[ $((after - before)) -eq $((4 << 20)) ] || die "4 MiB changed, $((after - before)) bytes sent"

v a feeddetach vga/web b --point monday
v b lvchange -ay vgb/web >/dev/null
nbdcopy "$(uri b vgb/web)" "$work/sink"
cmp "$work/one" "$work/sink" || die "the sink differs at the point"

# A sink that was written by someone else is not overwritten silently.
qemu-io -f raw -c 'write -q -P 0x55 8m 64k' "$(uri b vgb/web)"
! v a feedattach vga/web b:vgb/web 2>"$work/err" || die "changes at the sink were thrown away unasked"
v a feedattach vga/web b:vgb/web --discard-peer
v a feedwait vga/web b --timeout 30
v a feedverify vga/web b
v a feeddetach vga/web b --point tuesday
nbdcopy "$(uri b vgb/web)" "$work/sink"
cmp "$work/one" "$work/sink" || die "the sink differs after its changes were discarded"

# Restore over TLS.
qemu-io -f raw -c 'write -q -P 0x66 0 64m' "$(uri a vga/web)"
v a feedswap vga/web b --point tuesday --discard-local
v a feedwait vga/web b --timeout 60
! qemu-io -f raw -c 'write -q -P 0x77 0 4k' "$(uri a vga/web)" 2>/dev/null || die "a volume that is being fed was written"
v a feedswap vga/web b
v a feedwait vga/web b --timeout 60
nbdcopy "$(uri a vga/web)" "$work/restored"
cmp "$work/one" "$work/restored" || die "the restored volume differs"
v a feeddetach vga/web b --force
[ -z "$(v a feeds --noheadings)" ] || die "a forgotten feed is still listed"

# Acknowledged only when the sink has it durable.
v b feeddetach vgb/web a --force
v b lvremove -y vgb/web
v a feedattach vga/web b:vgb/web --create --mode sync
v a feedwait vga/web b --timeout 60
qemu-io -f raw -c 'write -q -P 0x11 0 8m' "$(uri a vga/web)"
node_kill b
node_start b
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b
