# limit: 600
# needs: udevadm setpriv unshare mkfs.ext4 fsck.ext4 fio
# Block devices of an ordinary user: his volmgrd, on files, in mapped mode; the device is his and nobody else's; it ends with the
# daemon and is there again with the next one. The same for root in a container. And a daemon in a mount namespace of its own.
. /job/guest.sh
printf 'alice:x:2001:2001::/tmp:/bin/sh\nbob:x:2002:2002::/tmp:/bin/sh\n' >>/etc/passwd
printf 'alice:x:2001:\nbob:x:2002:\nublk:x:2003:alice\n' >>/etc/group
cp "$bin/volmgrd" /usr/sbin/volmgrd # where the rules look for it
udev_start
cp /job/optional/62-volmgr-user.rules /run/udev/rules.d/
udevadm control --reload
modprobe ublk_drv
udevadm settle -t 60
wait_for 20 sh -c '[ "$(stat -c %a:%G /dev/ublk-control)" = 660:ublk ]'

as() { local user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups "$@"; }
home=/run/alice
install -d -o alice -g alice $home
chmod 755 $home # others may look, so that only the device keeps them out
truncate -s 64M $home/disk0 $home/disk1
chown alice:alice $home/disk0 $home/disk1

start() { # what to run it by...
    as alice "$@" "$bin/volmgrd" --foreground --config /dev/null --state-dir $home/state --socket $home/sock --node a \
        --listen 127.0.0.1:7790 --nbd unix:$home/nbd >>/job/out/volmgrd-alice.log 2>&1 &
    pid=$!
    wait_for 60 alice nodeshow
}
alice() { as alice "$bin/volmgr" --socket $home/sock "$@"; }
said() { alice "$@" --noheadings | sed 's/^ *//; s/ *$//'; }
served() { [ -b "$(said lvs vg/lv -o lv_path)" ]; }

step "a volume of hers"
start
alice vgcreate vg $home/disk0 $home/disk1
alice lvcreate -n lv -L 48m -m 1 vg
dev=$(said lvs vg/lv -o lv_path)
[[ $dev = /dev/ublkb* ]] && [ -b "$dev" ] || die "it is at $dev"
[ "$(stat -c %U:%G:%a "$dev")" = alice:alice:600 ] || die "the device: $(stat -c %U:%G:%a "$dev")"
char=/dev/ublkc${dev#/dev/ublkb}
[ "$(stat -c %U:%G:%a "$char")" = alice:alice:600 ] || die "the character device: $(stat -c %U:%G:%a "$char")"
[ "$(said lvs vg/lv -o lv_io_mode)" = mapped ] || die "lv_io_mode: $(said lvs vg/lv -o lv_io_mode)"
reason=$(said lvs vg/lv -o lv_io_reason)
grep -q "ordinary user.*none that outlives volmgrd" <<<"$reason" || die "lv_io_reason: $reason"
alice events | grep -q "ublk-fallback.*ordinary user" || die "no event says why"
echo "figure: $dev of alice: mapped, because $reason"

step "she uses it, another user is refused"
as alice fio --name=v --filename="$dev" --rw=randrw --bsrange=512-64k --size=32m --io_size=4m --ioengine=libaio --iodepth=8 --direct=1 \
    --verify=crc32c --verify_state_save=0 --fsync=16 --output-format=terse >/job/out/fio || die "fio"
as bob dd if="$dev" of=/dev/null bs=4k count=1 2>/tmp/refused && die "bob reads it"
grep -q "Permission denied" /tmp/refused || die "$(cat /tmp/refused)"
as bob dd if=/dev/zero of="$dev" bs=4k count=1 conv=notrunc 2>/dev/null && die "bob writes it"
as bob dd if="$char" of=/dev/null bs=4k count=1 2>/dev/null && die "bob opens the character device"
as bob "$bin/volmgrd" --ublk-owner ublkb0 2>/dev/null && die "bob commands the driver"
as alice mkfs.ext4 -q "$dev"
as alice fsck.ext4 -fn "$dev" >/dev/null || die "fsck"

step "a user that she cannot see keeps it: root has it mounted"
mkdir -p /mnt/alice
mount "$dev" /mnt/alice
fill /mnt/alice
sums /mnt/alice >/tmp/files
alice lvchange -an vg/lv 2>/tmp/refused && die "taken away under a mount"
grep -q "use" /tmp/refused || die "$(cat /tmp/refused)"
umount /mnt/alice
if [ "$(uname -r | cut -d. -f1)" -ge 7 ]; then
    alice lvextend -L +8m vg/lv
    [ "$(blockdev --getsize64 "$dev")" = $((56 << 20)) ] || die "not larger: $(blockdev --getsize64 "$dev")"
fi
alice lvchange -an vg/lv
[ ! -e "$dev" ] || die "$dev is left"
alice lvchange -ay vg/lv >/tmp/said
dev=$(said lvs vg/lv -o lv_path)
grep -qx "$dev" /tmp/said || die "does not say where it is: $(cat /tmp/said)"

step "in good order: it ends with the daemon, and is there again with the next one"
kill -TERM $pid
wait $pid || die "the daemon ended with $?"
[ ! -e "$dev" ] || die "$dev outlives its daemon"
start
wait_for 60 served
dev=$(said lvs vg/lv -o lv_path)
mount "$dev" /mnt/alice
same_files /mnt/alice /tmp/files

step "killed: who uses it gets errors and does not hang; the next one makes it anew"
kill -KILL $pid
wait $pid || true
timeout 30 dd if="$dev" of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && die "read from a daemon that is dead"
umount /mnt/alice
start
wait_for 60 served
dev=$(said lvs vg/lv -o lv_path)
as alice fsck.ext4 -fy "$dev" >/dev/null || [ $? = 1 ] || die "fsck after the kill"
mount -o ro "$dev" /mnt/alice
same_files /mnt/alice /tmp/files
umount /mnt/alice
alice plexsync --verify vg/lv || die "the plexes differ"
alice lvchange -an vg/lv
kill -TERM $pid
wait $pid || die "the daemon ended with $?"

step "root in a container is no other user for the kernel"
start unshare --user --map-root-user --mount
alice lvchange -ay vg/lv >/dev/null
dev=$(said lvs vg/lv -o lv_path)
[ "$(said lvs vg/lv -o lv_io_mode)" = mapped ] || die "lv_io_mode in a container"
as alice fsck.ext4 -fn "$dev" >/dev/null || die "fsck in a container"
alice lvchange -an vg/lv
kill -TERM $pid
wait $pid || die "the daemon in a container ended with $?"

step "without the rule for its devices she is told what is missing"
rm /run/udev/rules.d/62-volmgr-user.rules
udevadm control --reload
start
alice lvchange -ay vg/lv 2>/tmp/refused && die "served a device that is not hers"
grep -q "is not given to this user.*62-volmgr-user.rules" /tmp/refused && grep -q "frontend nbd" /tmp/refused || die "$(cat /tmp/refused)"
alice lvchange -ay --frontend nbd vg/lv | grep -q nbd+unix || die "no NBD instead"
kill -TERM $pid
wait $pid || die "the daemon ended with $?"

step "a mount namespace of its own"
ram_disks 1 64
unshare --mount --propagation private "$bin/volmgrd" --foreground --config /dev/null --state-dir /var/lib/node-m --socket /run/m-sock --node m \
    --listen 127.0.0.1:7791 --nbd unix:/run/m-nbd >/job/out/volmgrd-m.log 2>&1 &
pid=$!
m() { "$bin/volmgr" --socket /run/m-sock "$@"; }
wait_for 60 m nodeshow
[ "$(readlink /proc/$pid/ns/mnt)" != "$(readlink /proc/$$/ns/mnt)" ] || die "it is in our namespace"
m vgcreate vm /dev/ram0
m lvcreate -n lv -L 32m vm
mkfs.ext4 -q /dev/volmgr/vm/lv
mkdir -p /mnt/m
mount /dev/volmgr/vm/lv /mnt/m
m lvchange -an vm/lv 2>/dev/null && die "taken away under a mount outside its namespace"
umount /mnt/m
m lvchange -an vm/lv || die "its namespace keeps the mount"
kill -TERM $pid
wait $pid || die "the daemon in its own mount namespace ended with $?"
