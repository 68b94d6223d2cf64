# limit: 120
# Volumes with feeds grow and get other names: the sink grows with its source, where it may; nothing is copied again.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy qemu-io; do command -v $p >/dev/null || skip "$p is not installed"; done
node_start a; node_start b
disks a 2 200; disks b 1 200
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"; v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L 32m -m 1 vga
head -c 32M /dev/urandom >"$work/data"
nbdcopy "$work/data" "$(uri a vga/web)"
lv=web
io() { timeout 30 qemu-io -f raw "$(uri a vga/$lv)" "$@" >"$work/io" 2>&1 && ! grep -qiE "error|failed" "$work/io" || die "I/O failed: $(cat "$work/io")"; }
size() { ask "$1" lvs "$2" -o lv_size --units m --nosuffix; }
is() { [ "$2" = "$3" ] || die "$1: $2, not $3"; }
sent() { echo $(($(ask a feeds vga/$lv -o payload_kernel_bytes --units b --nosuffix) + $(ask a feeds vga/$lv -o payload_copied_bytes --units b --nosuffix))); }
v a feedattach vga/web b:vgb/copy --create
v a feedwait vga/web b --timeout 60

# Live.
before=$(sent)
v a lvextend -L 48m vga/web
io -c "write -P 1 40m 64k"
v a feedwait vga/web b --timeout 60
is "size at b" "$(size b vgb/copy)" 48.00
v a feedverify vga/web b
[ $(($(sent) - before)) -lt $((20 << 20)) ] || die "growing sent $(($(sent) - before)) bytes"

# Ended at a point, and not allowed to take space any more.
v a feeddetach vga/web b --point one
v a lvextend -L +16m vga/web
io -c "write -P 2 60m 64k"
fa=$(ask a nodeshow -o node_fingerprint)
v b peeradd a "127.0.0.1:${port_of[a]}" --fingerprint "$fa" --allow feed --allow read --plaintext
if v a feedattach vga/web b 2>"$work/why"; then die "grew without the right to"; fi
grep -q "may not take space" "$work/why" || die "the refusal does not say why: $(cat "$work/why")"
is "size at b" "$(size b vgb/copy)" 48.00
v b peeradd a "127.0.0.1:${port_of[a]}" --fingerprint "$fa" --allow all --plaintext
v a feedattach vga/web b
v a feedwait vga/web b --timeout 60
is "size at b" "$(size b vgb/copy)" 64.00
if v b lvextend -L +16m vgb/copy 2>"$work/why"; then die "a sink grew alone"; fi
grep -q "lvextend it there" "$work/why" || die "no next step: $(cat "$work/why")"
v a feedverify vga/web b
if v a lvreduce -L 32m -f vga/web 2>/dev/null; then die "a volume with a feed was cut"; fi

# Other names, on both sides.
v a lvchange -an vga/web
v a lvrename vga/web www
lv=www
v b lvchange -an vgb/copy
v b lvrename vgb/copy mirror
v b lvchange -ay vgb/mirror
v a lvchange -ay vga/www
v a feedwait vga/www b --timeout 60
io -c "write -P 3 50m 64k"
is "the peer's volume, at a" "$(ask a feeds vga/www -o peer_lv)" vgb/mirror
is "the peer's volume, at b" "$(ask b feeds vgb/mirror -o peer_lv)" vga/www
v a feedverify vga/www b
# And the way back.
v a feeddetach vga/www b --point two
v a feedswap vga/www b --point two -y
v a feedwait vga/www b --timeout 60
echo "ok: grown and renamed with a feed"
