# limit: 240
# Nothing left: no room for metadata, no file descriptors, a state directory that cannot be written. Whoever asks gets an error that says so,
# nobody loses what was acknowledged, and everything goes on when the resource is back.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in nbdcopy prlimit; do command -v $p >/dev/null || skip "$p is not installed"; done
node_start a
disks a 1 64
v a vgcreate -s 64k vg "$work/a/disk1" >/dev/null
v a lvcreate -n web -L 8m vg >/dev/null
head -c 8M /dev/urandom >"$work/content"
nbdcopy --flush "$work/content" "$(uri a vg/web)"
intact() { # what
    nbdcopy "$(uri a vg/web)" "$work/out" || die "vg/web cannot be read after $1"
    cmp "$work/content" "$work/out" || die "vg/web has changed after $1"
}

# 1. the metadata area: a small disk has room for some hundred volumes
made=0 status=0
for n in $(seq 2000); do
    v a lvcreate -n "v$n" -L 64k -an vg >"$work/err" 2>&1 || { status=$?; break; }
    made=$n
done
[ $status = 5 ] || die "2000 volumes on a disk of 64 MiB, or another error than 5: $status: $(cat "$work/err")"
grep -qi 'metadata\|space\|extents' "$work/err" || die "the error does not say what has run out: $(cat "$work/err")"
echo "figure: $made volumes, then: $(head -c 160 "$work/err")"
intact "a full metadata area"
node_kill a
node_start a
for _ in $(seq 100); do [ "$(ask a lvs vg/web -o lv_active 2>/dev/null)" = active ] && break; sleep 0.1; done
[ "$(v a lvs vg --noheadings | wc -l)" = $((made + 1)) ] || die "volumes are missing after a restart with a full metadata area"
intact "a restart with a full metadata area"
for n in 1 2 3 4; do v a lvremove -y "vg/v$n" >/dev/null; done
v a lvcreate -n again -L 64k -an vg >/dev/null || die "there is room again, and it is not used"

# 2. file descriptors: clients take them all, then go
prlimit --pid "${pid_of[a]}" --nofile=96:96
holders=()
for _ in $(seq 120); do
    socat -u "UNIX-CONNECT:$work/a/volmgrd.sock" OPEN:/dev/null 2>/dev/null &
    holders+=($!)
done
pids+=("${holders[@]}")
sleep 2
kill -0 "${pid_of[a]}" 2>/dev/null || die "the daemon died for want of file descriptors"
for holder in "${holders[@]}"; do kill "$holder" 2>/dev/null || true; done
wait "${holders[@]}" 2>/dev/null || true
for _ in $(seq 50); do v a lvs vg/web >/dev/null 2>&1 && break; sleep 0.2; done
v a lvs vg/web >/dev/null || die "the daemon does not answer when descriptors are back"
v a lvcreate -n after -L 64k vg >/dev/null || die "no volume can be made when descriptors are back"
intact "no file descriptors"

# 3. a state directory that cannot be written: a folder in the place of the file that is to be replaced
v a peeradd before 127.0.0.1:1 --fingerprint "SHA256:$(printf '0%.0s' $(seq 64))"
mkdir "$work/a/state/peers.json.new"
if v a peeradd late 127.0.0.1:1 --fingerprint "SHA256:$(printf '1%.0s' $(seq 64))" >"$work/err" 2>&1; then die "a peer was added that cannot be written down"; fi
grep -q 'peers.json' "$work/err" || die "the error does not name the file: $(cat "$work/err")"
[ "$(v a peers --noheadings -o peer_name | tr -d ' \n')" = before ] || die "the list of peers has changed: $(v a peers)"
intact "a state directory that cannot be written"
rmdir "$work/a/state/peers.json.new"
v a peeradd late 127.0.0.1:1 --fingerprint "SHA256:$(printf '1%.0s' $(seq 64))" || die "the state directory is well again, and a peer cannot be added"
echo ok
