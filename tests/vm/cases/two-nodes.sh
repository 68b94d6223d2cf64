# nodes: 2
# disks: 160 160
# limit: 1500
# memory: 1024
# needs: mkfs.ext4 fsck.ext4 sha256sum
# The README's quick start, word for word, on two machines: a mounted and busy ext4 backed up over TLS, destroyed, restored; then
# an incremental backup, and the backup read where it is. Run here is machine a; `call` and `v b` run on machine b.
. /job/guest.sh
modprobe ublk_drv
call modprobe ublk_drv
node_start a
node_start b
v a vgcreate vg0 /dev/vda /dev/vdb
v b vgcreate vg0 /dev/vda /dev/vdb
v a peeradd b 192.0.2.2:7750 --fingerprint "$(value b nodeshow -o node_fingerprint)"
v b peeradd a 192.0.2.1:7750 --fingerprint "$(value a nodeshow -o node_fingerprint)" --allow 'all:vg0/*'
v a lvcreate -n web -L 96m -m 1 vg0
dev=/dev/volmgr/vg0/web
io_mode a vg0/web
mkfs.ext4 -q -E lazy_itable_init=0 $dev
at=/mnt/web
mkdir -p $at
mount $dev $at
fill $at

busy() { # until told: files come, change and go, with and without fsync
    for i in $(seq 2000); do
        [ ! -e /tmp/enough ] || return 0
        head -c $((i * 1511 % 150000 + 1)) "$bin/volmgr" >/tmp/w
        cp /tmp/w $at/busy-$((i % 30)) || return 1
        [ $((i % 4)) != 0 ] || sync -f $at/busy-$((i % 30)) || return 1
        [ $((i % 7)) != 0 ] || rm -f $at/busy-$((i * 5 % 30)) || return 1
        sleep 0.05
    done
}

step "backup, while it is written"
busy & writer=$!
v a feedattach vg0/web b --create
# How it gets on, for whoever has to find out why it did not.
progress() { while sleep 20; do echo "$(cut -d. -f1 /proc/uptime) s: $(value a feeds vg0/web -o feed_state,feed_dirty,payload_kernel_bytes,payload_copied_bytes)"; done; }
progress & watcher=$!
v a feedwait vg0/web b --timeout 400 || { v a feeds -o all; v b feeds -o all; die "no full sync"; }
kill $watcher
[ "$(value a feeds vg0/web -o feed_state)" = live ] || die "$(v a feeds)"
sleep 2
kill -0 $writer 2>/dev/null || die "the writer has ended by itself"
v a feeds
[ "$(call blockdev --getro $dev)" = 1 ] || die "what is being fed can be written on b"
call "mkdir -p /mnt/x; mount -o rw $dev /mnt/x" && die "mounted read-write while it is being fed"

step "a point in time: frozen for a moment, mounted all the while"
touch /tmp/enough
wait $writer || die "a write failed"
# Exactly what an admin would do: quiesce, take the point, go on.
fsfreeze -f $at
v a feeddetach vg0/web b --point monday
fsfreeze -u $at
sums $at >/tmp/monday
v b points vg0/web | grep -q monday || die "b does not know the point"

step "life goes on, then disaster"
rm -f /tmp/enough
busy & writer=$!
sleep 2
touch /tmp/enough
wait $writer || die "a write failed"
rm -rf $at/many
v a feedswap vg0/web b --point monday --discard-local 2>/tmp/refused && die "swapped under a mount"
grep -q -i "use\|open" /tmp/refused || die "$(cat /tmp/refused)"
umount $at
head -c 40M /dev/urandom | dd of=$dev bs=1M oflag=direct status=none
mount $dev $at 2>/dev/null && die "still a filesystem"

step restore
v a feedswap vg0/web b --point monday --discard-local
v a feedwait vg0/web b --timeout 400
[ "$(blockdev --getro $dev)" = 1 ] || die "writable during the restore"
v a feedswap vg0/web b
v a feedwait vg0/web b --timeout 120
[ "$(blockdev --getro $dev)" = 0 ] || die "read-only after the restore"
mount $dev $at
same_files $at /tmp/monday
umount $at
fsck.ext4 -fn $dev >/dev/null || die "fsck"
plexes_equal a vg0/web

step "busy again; only what changed goes over"
mount $dev $at
rm -f /tmp/enough
v a feeddetach vg0/web b --point tuesday
sent() { echo $(($(value a feeds vg0/web --units b --nosuffix -o payload_kernel_bytes) + $(value a feeds vg0/web --units b --nosuffix -o payload_copied_bytes))); }
before=$(sent)
busy & writer=$!
sleep 2
v a feedattach vg0/web b
v a feedwait vg0/web b --timeout 120
touch /tmp/enough
wait $writer || die "a write failed"
more=$(($(sent) - before))
echo "figure: the second backup, of what changed meanwhile, sent $((more >> 20)) MiB of 96"
[ $more -gt 0 ] && [ $more -lt $((64 << 20)) ] || die "the second backup sent $more bytes of a volume of 96 MiB"
sums $at >/tmp/wednesday
umount $at
v a feedverify vg0/web b || die "feedverify"
v a feeddetach vg0/web b --point wednesday

step "the backup, mounted on b"
call "v b lvchange -ay vg0/web; mkdir -p /mnt/b; mount -o ro,noload $dev /mnt/b && sums /mnt/b >/job/wednesday-b; umount /mnt/b" || die "cannot mount the backup on b"
cmp /tmp/wednesday /job/wednesday-b || die "b's files differ"
# The disk over there, past the daemon, against the volume here, which no one has written since.
call "plexes b vg0/web /tmp/b-plex && sha256sum </tmp/b-plex0" >/tmp/disk-b
sha256sum <$dev | cmp - /tmp/disk-b || die "b's disk differs from the volume here"
v a lvchange -an vg0/web
