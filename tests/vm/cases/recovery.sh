# limit: 600
# The daemon is killed under a mounted file system that is being written. The next one takes the device over: the mount
# stays, no write fails, nothing is lost.
. /job/guest.sh
need mkfs.ext4
modprobe ublk_drv
ram_disks 2 128
node_start a
v a vgcreate vg /dev/ram0 /dev/ram1
v a lvcreate -n lv -L 64m -m 1 vg
mkfs.ext4 -q -E lazy_itable_init=0 /dev/volmgr/vg/lv
mkdir -p /mnt/n
mount /dev/volmgr/vg/lv /mnt/n
device=$(readlink /dev/volmgr/vg/lv)
(for i in $(seq 40); do head -c 300000 /job/bin/volmgr >/mnt/n/"$i" && sync -f /mnt/n/"$i" || exit 1; done; echo done >/tmp/writer) & writer=$!
for round in 1 2; do
    sleep 0.7
    kill -KILL "$pid_a"; wait "$pid_a" || true
    node_start a
    wait_for 90 sh -c "$bin/volmgr --socket /run/a/sock lvs --noheadings -o lv_path vg/lv | grep -q /dev/volmgr"
    [ "$(readlink /dev/volmgr/vg/lv)" = "$device" ] || die "another device"
done
wait $writer || die "a write failed"
[ "$(cat /tmp/writer)" = done ]
# A stop in good order leaves a device that is in use for the next one, too.
kill -TERM "$pid_a"; wait "$pid_a" || die "volmgrd ended badly"
[ -b "$device" ] || die "taken away under a mount"
node_start a
wait_for 90 sh -c "$bin/volmgr --socket /run/a/sock lvs --noheadings -o lv_path vg/lv | grep -q /dev/volmgr"
head -c 300000 /job/bin/volmgr >/tmp/one
for i in $(seq 40); do cmp /tmp/one /mnt/n/"$i" || die "file $i"; done
umount /mnt/n
fsck.ext4 -fn "$device" >/dev/null || die "fsck"
plexes a vg/lv /tmp/plex
cmp /tmp/plex0 /tmp/plex1 || die "the plexes differ"
v a lvchange -an vg/lv
[ ! -e "$device" ] || die "still there"
echo "figure: events $(v a events | grep -c ublk-recovered) recoveries"
