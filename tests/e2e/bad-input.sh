# limit: 240
# What bad input gets: one clear line, the right exit code, nothing changed, the daemon alive.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
node_start b
disks a 4 64
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"
v a lvcreate -n web -L 16m vga
state() { for r in pvs vgs lvs plexs feeds peers; do v a $r --reportformat json -o all --units b 2>/dev/null | grep -v lv_open; done; }

refuse() { # code pattern command...
    local code=$1 pattern=$2 before after status=0 lines
    shift 2
    before=$(state)
    "$@" >"$work/out" 2>"$work/err" || status=$?
    lines=$(wc -l <"$work/err")
    [ "$status" = "$code" ] || die "exit $status instead of $code from: $* ($(cat "$work/err"))"
    [ "$lines" = 1 ] || { cat "$work/err" >&2; die "$lines lines of error from: $*"; }
    grep -qiE "$pattern" "$work/err" || die "'$(cat "$work/err")' does not say '$pattern'"
    after=$(state)
    [ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after") >&2; die "something changed by: $*"; }
    echo "ok: $(cat "$work/err")"
}

truncate -s 64K "$work/tiny"
refuse 5 'small' v a pvcreate "$work/tiny"
refuse 5 'not exist|no such' v a pvcreate "$work/nowhere"
truncate -s 32M "$work/ext"
mke2fs -q -F -t ext4 "$work/ext"
refuse 5 'ext4' v a pvcreate "$work/ext"
refuse 5 'ext4' v a vgcreate vgx "$work/ext"
refuse 5 'vga' v a vgcreate vgx "$work/a/disk1"
refuse 5 'already' v a vgcreate vga "$work/a/disk3"
refuse 5 'free|space|extents' v a lvcreate -n big -L 10g vga
refuse 5 'disk|PV' v a lvcreate -n three -L 16m -m 2 vga
refuse 3 'name|character|invalid' v a lvcreate -n 'b@d' -L 16m vga
refuse 5 'exists|already' v a lvcreate -n web -L 16m vga
refuse 5 'no such|not found|unknown' v a lvremove -y vga/nothing
refuse 5 'no such|not found|unknown' v a lvs vgnone/web
refuse 2 'verb' v a frobnicate
refuse 3 '' v a lvcreate -n x vga
refuse 5 'peer' v a feedattach vga/web stranger
fb=$(ask b nodeshow -o node_fingerprint)
fa=$(ask a nodeshow -o node_fingerprint)
refuse 3 'fingerprint' v a peeradd bad 127.0.0.1:1 --fingerprint nonsense
# An unreachable peer, and one that does not allow us.
v a peeradd gone "127.0.0.1:$(free_port)" --fingerprint "$fb" --plaintext
refuse 5 'refused|reach|connect' v a feedattach vga/web gone --create
v a peerremove gone
v a peeradd b "127.0.0.1:${port_of[b]}" --fingerprint "$fb" --plaintext
refuse 5 'allow|not.*know|permitted|refuse' v a feedattach vga/web b --create
v b peeradd a "127.0.0.1:${port_of[a]}" --fingerprint "$fa" --plaintext
refuse 5 'allow|permitted' v a feedattach vga/web b --create
[ -z "$(v b lvs --noheadings)" ] || die "the refused feed left a volume on the peer"

# Port scanners talking HTTP.
http() { # open descriptor 3 first
    # The shell writes line by line: hung up on after the first, it would be killed by the signal for the second.
    local status=0
    (trap '' PIPE; printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' >&3) 2>/dev/null || true
    timeout 10 cat <&3 >/dev/null 2>&1 || status=$? # a reset is as good as an end
    [ "$status" != 124 ] || die "the scanner was not hung up on"
    exec 3<&-
}
exec 3<>"/dev/tcp/127.0.0.1/${port_of[a]}"
http
command -v socat >/dev/null && { printf 'GET / HTTP/1.1\r\n\r\n' | timeout 15 socat -t 12 - "UNIX-CONNECT:$work/a/nbd.sock" >/dev/null || true; }
v a lvs >/dev/null

# A scribbled-over and a truncated disk.
v a vgchange -an vga
node_stop a
cp "$work/a/disk2" "$work/disk2.saved"
dd if=/dev/urandom of="$work/a/disk2" bs=1M count=2 conv=notrunc status=none
status=0; "$bin/volmgr" pvck "$work/a/disk2" >"$work/out" 2>"$work/err" || status=$?
[ "$status" = 0 ] || [ "$status" = 5 ] || die "pvck of a scribbled disk: exit $status"
truncate -s 1M "$work/short"
dd if="$work/disk2.saved" of="$work/short" bs=64K count=16 conv=notrunc status=none
status=0; "$bin/volmgr" pvck "$work/short" >"$work/out" 2>"$work/err" || status=$?
[ "$status" = 5 ] || die "pvck of a truncated disk: exit $status"
head -c 3000 /dev/urandom >"$work/a/disk2"
node_start a
v a vgs vga --noheadings -o vg_attr
[ "$(ask a lvs vga/web -o lv_name)" = web ] || die "the group did not come up degraded"
refuse 5 '' v a vgcreate vgx "$work/a/disk2"
