# limit: 800
# Backup and restore of a mounted ext4 between two daemons in one guest: attached while it is written, detached at a point,
# compared, overwritten with garbage, swapped back, mounted: the files of the point are there.
. /job/guest.sh
need mkfs.ext4; need fsck.ext4
modprobe ublk_drv
ram_disks 4 128
node_start a
node_start b
trust a b
v a vgcreate vga /dev/ram0 /dev/ram1
v b vgcreate vgb /dev/ram2 /dev/ram3
v a lvcreate -n web -L 64m -m 1 vga
dev=/dev/volmgr/vga/web
mkfs.ext4 -q -E lazy_itable_init=0 $dev
mkdir -p /mnt/w
mount $dev /mnt/w
head -c 9000000 /job/bin/volmgr >/mnt/w/first

(for i in $(seq 400); do [ -e /tmp/enough ] && exit 0; head -c $((i * 1511 % 200000)) /mnt/w/first >/mnt/w/$((i % 40)) || exit 1; sync; done) & writer=$!
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 120
sleep 1
touch /tmp/enough
wait $writer || die "a write failed"
[ "$(blockdev --getro /dev/volmgr/vgb/web)" = 1 ] || die "what is being fed can be written"
dd if=/dev/zero of=/dev/volmgr/vgb/web bs=4k count=1 2>/dev/null && die "wrote what is being fed"

# In use: no swap.
v a feedswap vga/web b 2>/tmp/refused && die "swapped under a mount"
(cd /mnt/w && find . -type f -print0 | xargs -0 sha256sum) >/tmp/sums
umount /mnt/w
v a feeddetach vga/web b --point one
cat $dev >/tmp/one
plexes b vgb/web /tmp/b-plex
cmp /tmp/one /tmp/b-plex0 || die "the sink differs from the source at the point"
rm /tmp/b-plex*

head -c 64M /dev/urandom | dd of=$dev bs=1M oflag=direct status=none
mount $dev /mnt/w 2>/dev/null && die "still a file system"
v a feedswap vga/web b --point one --discard-local
v a feedwait vga/web b --timeout 120
[ "$(blockdev --getro $dev)" = 1 ] || die "writable during the restore"
v a feedswap vga/web b # this side is the source again
v a feedwait vga/web b --timeout 60
[ "$(blockdev --getro $dev)" = 0 ] || die "read-only after the restore"
cmp /tmp/one $dev || die "not what it was at the point"
plexes a vga/web /tmp/a-plex
for p in 0 1; do cmp /tmp/one /tmp/a-plex$p || die "plex$p differs"; done
fsck.ext4 -fn $dev >/dev/null || die "fsck"
mount $dev /mnt/w
(cd /mnt/w && sha256sum --quiet -c /tmp/sums) || die "files differ"
umount /mnt/w
v a feeds vga/web
v a lvchange -an --force vga/web
