#!/usr/bin/env bash
# The main job in two minutes: two nodes on this machine, a mirrored volume with a real filesystem, a backup while it is
# being written, a named point in time, the source destroyed, the restore, every file compared.
# Needs no root and no kernel module. Leaves nothing behind. KEEP=1 keeps the folder.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BIN:-$top/target/release}
size_mb=${SIZE_MB:-512}
. "$top/tests/lib/nodes.sh"

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
show() { printf '%s$ %s%s\n' "$dim" "$(shown "$@")" "$off"; }
shown() { printf '%s ' "$@" | sed "s#$bin/##g; s#$work#.#g; s#--socket \./\([ab]\)/volmgrd.sock#[\1]#g"; }
# The tool, talking to node a or b.
a() { show "$bin/volmgr" --socket "$work/a/volmgrd.sock" "$@"; v a "$@"; }
b() { show "$bin/volmgr" --socket "$work/b/volmgrd.sock" "$@"; v b "$@"; }
began=$(now_ms)
say "1. A filesystem with real files"
files=$work/files
mkdir -p "$files/live"
budget=$((size_mb * 1024 * 55 / 100)) # KiB of files; the filesystem keeps some room
copied=0
for dir in /usr/share/doc /usr/share/perl /usr/include /usr/lib/python3 /usr/share/locale /usr/share /usr/lib/git-core \
    /usr/lib/x86_64-linux-gnu /usr/lib /usr/bin "$top/target/release/deps"; do
    [ -d "$dir" ] || continue
    while IFS=$'\t' read -r kib file; do
        [ $((copied + kib)) -le "$budget" ] || continue
        copied=$((copied + kib))
        printf '%s\0' "$file"
    done < <(find "$dir" -xdev -type f -readable -size -20M -printf '%k\t%p\n' 2>/dev/null | head -n 6000) |
        (cd / && xargs -0 -r cp --parents --no-preserve=ownership -t "$files" 2>/dev/null) || true
    copied=$(du -sk "$files" | cut -f1)
    [ "$copied" -lt $((budget * 9 / 10)) ] || break
done
head -c $((32 << 20)) /dev/zero | tr '\0' 'o' >"$files/live/ledger" # will be written while the backup runs
truncate -s "${size_mb}M" "$work/fs.img"
mke2fs -q -F -t ext4 -d "$files" "$work/fs.img"
rm -rf "${files:?}/usr" "${files:?}${top:?}"
echo "ext4 of ${size_mb} MiB with $(debugfs -R 'stats -h' "$work/fs.img" 2>/dev/null | awk '/^Inode count/{i=$3} /^Free inodes/{print i-$3}') files and folders, $((copied / 1024)) MiB of content"

say "2. Two nodes, each with two disks of its own"
node_start a
node_start b
disks a 2 $((size_mb + 64))
disks b 2 $((size_mb + 64))
a vgcreate vga "$work/a/disk1" "$work/a/disk2"
b vgcreate vgb "$work/b/disk1" "$work/b/disk2"
fa=$(ask a nodeshow -o node_fingerprint) la=$(ask a nodeshow -o node_listen)
fb=$(ask b nodeshow -o node_fingerprint) lb=$(ask b nodeshow -o node_listen)
a peeradd b "$lb" --fingerprint "$fb" --allow 'all:vga/*' --plaintext
b peeradd a "$la" --fingerprint "$fa" --allow 'all:vgb/*' --plaintext

say "3. A mirrored volume on node a, filled with the filesystem"
a lvcreate -n web -L "${size_mb}m" -m 1 vga
uri=$(uri a vga/web)
show qemu-img convert -n -O raw fs.img "$uri"
qemu-img convert -n -f raw -O raw "$work/fs.img" "$uri"
a lvdisplay vga/web

# Blocks of the ledger file, so that it can be written through the block device, as its owner would.
mapfile -t extents < <(debugfs -R 'ex /live/ledger' "$work/fs.img" 2>/dev/null | awk '$1 ~ /\/$/ && $1 == $2 {next} NR > 1 {print}' |
    sed -nE 's#.* ([0-9]+) - *([0-9]+) +([0-9]+) - *([0-9]+) +([0-9]+).*#\3 \5#p')
[ "${#extents[@]}" -gt 0 ] || die "cannot find the ledger file's blocks"
block=$(debugfs -R 'stats -h' "$work/fs.img" 2>/dev/null | awk '/^Block size/{print $3}')
write_ledger() { # pattern byte: one pass over the file
    local cmds=() first count
    for extent in "${extents[@]}"; do
        read -r first count <<<"$extent"
        while [ "$count" -gt 0 ]; do
            local n=$((count > 256 ? 256 : count))
            cmds+=(-c "write -q -P $1 $((first * block)) $((n * block))")
            first=$((first + n)) count=$((count - n))
        done
    done
    qemu-io -f raw "${cmds[@]}" -c flush "$uri" >/dev/null
}

say "4. Backup to node b, while the ledger is being written"
a feedattach vga/web b:vgb/web --create
(pass=0; while [ ! -e "$work/stop" ] && [ $pass -lt 60 ]; do write_ledger $((0x61 + pass % 26)); pass=$((pass + 1)); echo $pass >"$work/passes"; sleep 0.2; done) &
writer=$!
pids+=($writer)
t0=$(now_ms)
a feedwait vga/web b --timeout 60
sync_ms=$(($(now_ms) - t0))
sleep 1
touch "$work/stop"
wait "$writer"
echo "the ledger was rewritten $(cat "$work/passes") times meanwhile"
a feeds vga/web

say "5. The point in time 'monday'"
write_ledger 0x4d
qemu-img convert -f raw -O raw "$uri" "$work/monday.img"
a feeddetach vga/web b --point monday
b points vgb/web
sum_source=$(sha256sum <"$work/monday.img" | cut -d' ' -f1)
uri_b=$(uri b vgb/web)
b lvchange -ay vgb/web
qemu-img convert -f raw -O raw "$uri_b" "$work/sink.img"
sum_sink=$(sha256sum <"$work/sink.img" | cut -d' ' -f1)
rm -f "$work/sink.img"
b lvchange -an vgb/web
echo "sha256 of the source at monday  $sum_source"
echo "sha256 of the sink              $sum_sink"
[ "$sum_source" = "$sum_sink" ] || die "the sink differs from the source"

say "6. Disaster: the source is overwritten with garbage"
head -c $((size_mb << 20)) /dev/urandom >"$work/garbage"
qemu-img convert -n -f raw -O raw "$work/garbage" "$uri"
rm -f "$work/garbage"
qemu-img convert -f raw -O raw "$uri" "$work/broken.img"
if e2fsck -fn "$work/broken.img" >/dev/null 2>&1; then die "the filesystem survived the garbage?"; else echo "e2fsck: no filesystem left"; fi
rm -f "$work/broken.img"

say "7. Restore: swap the direction"
t0=$(now_ms)
a feedswap vga/web b --point monday --discard-local
a feedwait vga/web b --timeout 60
restore_ms=$(($(now_ms) - t0))
a feeds vga/web
a feedverify vga/web b
a feedswap vga/web b
a feedwait vga/web b --timeout 60

say "8. Every file compared"
qemu-img convert -f raw -O raw "$uri" "$work/restored.img"
sum_restored=$(sha256sum <"$work/restored.img" | cut -d' ' -f1)
echo "sha256 at monday    $sum_source"
echo "sha256 restored     $sum_restored"
[ "$sum_source" = "$sum_restored" ] || die "the restored volume differs"
e2fsck -fn "$work/restored.img" >/dev/null 2>&1 || die "e2fsck finds errors in the restored filesystem"
mkdir "$work/out"
debugfs -R "rdump / $work/out" "$work/restored.img" >/dev/null 2>&1
debugfs -R "rdump / $work/files" "$work/monday.img" >/dev/null 2>&1
rm -rf "$work/files/live"; mkdir "$work/files/live"; debugfs -R "dump /live/ledger $work/files/live/ledger" "$work/monday.img" >/dev/null 2>&1
(cd "$work/files" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$work/SHA256SUMS"
(cd "$work/out" && sha256sum --quiet -c "$work/SHA256SUMS") || die "files differ"
echo "e2fsck clean, $(wc -l <"$work/SHA256SUMS") files compared, all equal, e.g.:"
grep -m1 ledger "$work/SHA256SUMS"

kernel=$(ask a feeds --units b --nosuffix -o payload_kernel_bytes vga/web)
copied=$(ask a feeds --units b --nosuffix -o payload_copied_bytes vga/web)
mb() { awk -v b="$1" 'BEGIN{printf "%.0f MiB", b / 1048576}'; }
rate() { awk -v m="$size_mb" -v t="$1" 'BEGIN{printf "%.2f s (%.0f MiB/s of volume)", t / 1000, m * 1000 / (t > 0 ? t : 1)}'; }
say "Done in $((($(now_ms) - began + 500) / 1000)) s"
cat <<EOF
backup   $(rate "$sync_ms"), while it was being written
restore  $(rate "$restore_ms")
payload moved by the kernel alone     $(mb "$kernel")
through application buffers           $(mb "$copied")  (live writes that came in over NBD)

Next, on two real machines:  README.md, "Quick start"
    volmgrd --listen 0.0.0.0:7750        on both
    volmgr vgcreate vg0 /dev/sdb /dev/sdc && volmgr lvcreate -n web -L 100g -m 1 vg0
    volmgr peeradd … && volmgr feedattach vg0/web PEER --create
EOF
