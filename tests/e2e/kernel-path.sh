# limit: 300
# On plaintext, payload of a full sync moves only by sendfile, splice and io_uring: strace of both daemons shows less than 1% of
# it through read, write, recv, send and their relatives.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v strace >/dev/null || skip "strace is not installed"
command -v nbdcopy >/dev/null || skip "nbdcopy is not installed"
node_start a
node_start b
disks a 1 400
disks b 2 400
v a vgcreate vga "$work/a/disk1"
v b vgcreate vgb "$work/b/disk1" "$work/b/disk2"
trust a b plaintext
v a lvcreate -n web -L 256m vga
v b lvcreate -n web -L 256m -m 1 vgb
head -c 256M /dev/urandom >"$work/content"
nbdcopy --flush "$work/content" "$(uri a vga/web)"

calls=read,write,readv,writev,pread64,pwrite64,preadv,pwritev,preadv2,pwritev2,recvfrom,recvmsg,sendto,sendmsg,sendmmsg,recvmmsg,sendfile,splice,tee,copy_file_range
for n in a b; do
    strace -f -q -e trace="$calls" -e signal=none -s 0 -o "$work/$n.strace" -p "${pid_of[$n]}" 2>/dev/null &
    pids+=($!)
done
sleep 1
v a feedattach vga/web b:vgb/web
v a feedwait vga/web b --timeout 100
sleep 0.5
for n in a b; do
    awk -v node="$n" -v total=$((256 << 20)) '
        match($0, /[a-z0-9_]+\(/) { call = substr($0, RSTART, RLENGTH - 1) }
        match($0, /<\.\.\. [a-z0-9_]+ resumed/) { call = substr($0, RSTART + 5, RLENGTH - 13) }
        / = [0-9]+$/ { bytes[call] += $NF }
        END {
            for (c in bytes) if (c ~ /^(sendfile|splice|tee)$/) kernel += bytes[c]; else { copied += bytes[c]; list = list " " c "=" bytes[c] }
            printf "figure: node %s: %.1f MiB by sendfile/splice/tee, %.2f%% of the payload by other calls (%s )\n", node, kernel / 1048576, 100 * copied / total, list
            if (kernel < total || copied > total / 100) exit 1
        }' "$work/$n.strace" || die "node $n moved payload through application buffers"
done
kernel=$(ask a feeds vga/web -o payload_kernel_bytes --units b --nosuffix) copied=$(ask a feeds vga/web -o payload_copied_bytes --units b --nosuffix)
[ "$kernel" -ge $((256 << 20)) ] && [ "$copied" -eq 0 ] || die "the counters say $kernel by the kernel, $copied copied"
[ "$(ask a feeds vga/web -o feed_path)" = kernel ] || die "feed_path is not kernel"
