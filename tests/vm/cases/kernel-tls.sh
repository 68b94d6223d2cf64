# limit: 800
# TLS records by the kernel: full sync, live writes, cut and resync and restore go through it, by the counters and by the kernel's own
# statistics; a peer without it is understood; a key that is used up is replaced by a new connection; what was tampered with is noticed.
. /job/guest.sh
need qemu-io
modprobe tls || { echo "skipped: this kernel has no tls module"; exit 77; }
modprobe aesni_intel 2>/dev/null || true
ram_disks 2 96
size=$((48 << 20))
printf '[feeds]\nkernel_tls = false\n' >/tmp/user.toml
printf '[feeds]\nkernel_tls_key_bytes = 16777216\nbulk_streams = 2\n' >/tmp/rekey.toml
node_start a
node_start b
fa=$(value a nodeshow -o node_fingerprint) fb=$(value b nodeshow -o node_fingerprint)
v a peeradd b "127.0.0.1:${port_of[b]}" --fingerprint "$fb" --allow all
v b peeradd a "127.0.0.1:${port_of[a]}" --fingerprint "$fa" --allow all
v a vgcreate vga /dev/ram0
v b vgcreate vgb /dev/ram1
v a lvcreate -n web -L 48m vga
nbd() { echo "nbd+unix:///$2?socket=/run/$1/nbd"; }
head -c $size /dev/urandom >/tmp/content
nbdcopy --flush /tmp/content "$(nbd a vga/web)"
field() { value "$1" feeds "$2" -o "$3" --units b --nosuffix; }
equal() { # what the sink's disk holds, past its daemon
    v a feedverify vga/web b
    plexes b vgb/web /tmp/b-plex
    nbdcopy "$(nbd a vga/web)" /tmp/a.img
    cmp /tmp/a.img /tmp/b-plex0 || die "the sink differs: $1"
    rm -f /tmp/b-plex* /tmp/a.img
}
stat() { awk -v n="$1" '$1 == n {print $2}' /proc/net/tls_stat; }

before=$(stat TlsTxSw)
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 120
for side in "a vga/web" "b vgb/web"; do
    # shellcheck disable=SC2086
    set -- $side
    [ "$(field "$1" "$2" payload_kernel_bytes)" = $size ] || die "$side: $(v "$1" feeds -o +payload_kernel_bytes,payload_copied_bytes,feed_reason)"
    [ "$(field "$1" "$2" payload_copied_bytes)" = 0 ] || die "$side copied: $(field "$1" "$2" feed_reason)"
    [ "$(field "$1" "$2" feed_path)" = kernel ] || die "$side: path $(field "$1" "$2" feed_path)"
done
[ "$(stat TlsTxSw)" -gt "$before" ] || die "the kernel knows nothing of it: $(cat /proc/net/tls_stat)"
equal "after the full sync"
echo "figure: full sync of 48 MiB with TLS records by the kernel, no byte copied by the daemons"

# Live writes are copied there, and counted so.
# One after the other: a slow sink with more than that on its way falls behind, and then they are resynced.
for at in 0 1 2 3; do
    qemu-io -f raw -c "write -q -P 0x21 ${at}m 1m" "$(nbd a vga/web)"
    v a feedwait vga/web b --timeout 30
done
qemu-io -f raw -c 'write -q -P 0x22 8m 4k' -c flush "$(nbd a vga/web)"
v a feedwait vga/web b --timeout 30
[ "$(field a vga/web payload_copied_bytes)" = $(((4 << 20) + 4096)) ] || die "live writes: $(field a vga/web payload_copied_bytes)"
field a vga/web feed_reason | grep -q 'live writes' || die "no reason: $(field a vga/web feed_reason)"
equal "after live writes"

# A `sync` feed's writes are acknowledged on the live stream, in records that the sink's kernel makes while its other thread receives.
v a lvcreate -n sync -L 16m vga
v a feedattach vga/sync b:vgb/sync --create --mode sync
v a feedwait vga/sync b --timeout 60
grep -qs '^acks-sync' /proc/"$pid_a"/task/*/comm || die "no acknowledgements on the live stream: $(cat /proc/"$pid_a"/task/*/comm)"
for at in $(seq 0 63); do echo "write -q -P $((at + 1)) $((at * 64))k 4k"; done >/tmp/sync.cmds
timeout 60 qemu-io -f raw "$(nbd a vga/sync)" </tmp/sync.cmds >/tmp/sync.out || die "sync writes: $(cat /tmp/sync.out)"
[ "$(field a vga/sync feed_state)" = live ] || die "the sync feed is $(field a vga/sync feed_state): $(field a vga/sync feed_reason)"
v a feedverify vga/sync b
v a feeddetach vga/sync b --force
v b feeddetach vgb/sync a --force || true
v a lvremove -y vga/sync; v b lvremove -y vgb/sync
echo "figure: 64 sync writes, acknowledged on a live stream under TLS"

# A sink whose TLS stays in user space, with words for it; and back. Only the change travels.
restart() { kill "$(eval echo "\$pid_$1")"; wait "$(eval echo "\$pid_$1")" || true; node_start "$@"; }
config_of[b]=/tmp/user.toml
restart b
qemu-io -f raw -c 'write -q -P 0x31 16m 2m' "$(nbd a vga/web)"
v a feedwait vga/web b --timeout 60
field b vgb/web feed_reason | grep -q 'tls in user space: as configured' || die "no reason: $(field b vgb/web feed_reason)"
equal "with user space at the sink"

# A small key: the connection is made anew, again and again, and still only what is missing travels.
v a feeddetach vga/web b --force
v b feeddetach vgb/web a --force || true
v b lvremove -y vgb/web
config_of[b]=/dev/null
restart b
config_of[a]=/tmp/rekey.toml
restart a
began=$(grep -c . /job/out/volmgrd-a.log)
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 120
v a events | grep -q 'key is used up' || die "48 MiB under keys of 16: $(v a events | tail -n 20)"
equal "with small keys"
tail -n "+$began" /job/out/volmgrd-a.log | grep -i 'panick' && die "a panic"

# Restore, the other way.
v a feeddetach vga/web b --point one
nbdcopy "$(nbd a vga/web)" /tmp/one
qemu-io -f raw -c 'write -q -P 0x66 0 24m' "$(nbd a vga/web)"
v a feedswap vga/web b --point one --discard-local
v a feedwait vga/web b --timeout 60
v a feedswap vga/web b
v a feedwait vga/web b --timeout 60
nbdcopy "$(nbd a vga/web)" /tmp/restored
cmp /tmp/one /tmp/restored || die "the restored volume differs"
[ "$(stat TlsDecryptError)" = 0 ] || die "records that did not open: $(cat /proc/net/tls_stat)"
# The streams by themselves, where their tests have been built: each end with and without the kernel.
[ ! -x /job/bin/test-kernel-tls ] || /job/bin/test-kernel-tls --test-threads 1
