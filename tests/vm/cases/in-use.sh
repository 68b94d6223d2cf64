# limit: 600
# needs: mkfs.ext4 fsck.ext4 dmsetup
# Taking a device away from its users: refused with a line that says so, done with --force: they get errors, nothing hangs,
# and what they had been told was written is there when the volume is back.
. /job/guest.sh
export DM_DISABLE_UDEV=1 # there is none here
modprobe ublk_drv
ram_disks 2 96
node_start a
v a vgcreate vg /dev/ram0 /dev/ram1
v a lvcreate -n lv -L 64m -m 1 vg
link=/dev/volmgr/vg/lv
device=$(readlink $link)
mkdir -p /mnt/u

refused() { # why: lvchange -an, vgchange -an and lvremove say no, and the volume goes on
    local verb
    for verb in "lvchange -an vg/lv" "vgchange -an vg" "lvremove -y vg/lv"; do
        # shellcheck disable=SC2086
        v a $verb 2>/tmp/refused && die "$verb with $1"
        grep -q "vg/lv: .*it is open (.*close it first" /tmp/refused || die "$verb with $1: $(cat /tmp/refused)"
        [ "$(wc -l </tmp/refused)" = 1 ] || die "more than a line: $(cat /tmp/refused)"
    done
    [ -b $link ] || die "gone, with $1"
    [ "$(value a lvs vg/lv -o lv_open)" != 0 ] || die "lv_open, with $1"
}

mkfs.ext4 -q -E lazy_itable_init=0 $link
mount $link /mnt/u
head -c 5000000 /job/bin/volmgr >/mnt/u/kept
sync -f /mnt/u/kept
refused "a mount"
# In a mount namespace of its own, where only the kernel knows.
unshare -m --propagation private sleep 60 & holder=$!
sleep 0.5
umount /mnt/u
refused "a mount in another namespace"
kill $holder; wait $holder || true
mkswap $device >/dev/null; swapon $device
refused "swap"
swapoff $device
modprobe dm_mod
echo "0 65536 linear $device 0" | dmsetup create above
refused "a device above"
dmsetup remove above
fsck.ext4 -fn $device >/dev/null 2>&1 && die "mkswap has not written" || true
mkfs.ext4 -q -F -E lazy_itable_init=0 $link

# By force, under a mount that is being written.
mount $link /mnt/u
head -c 5000000 /job/bin/volmgr >/mnt/u/kept
sync -f /mnt/u/kept
(while head -c 200000 /job/bin/volmgr >/mnt/u/more && sync -f /mnt/u/more; do :; done) 2>/tmp/writer & writer=$!
sleep 1
start=$(date +%s)
timeout 60 "$bin/volmgr" --socket /run/a/sock lvchange -an --force vg/lv || die "not by force: $?"
echo "figure: by force under a mounted, busy file system: $(($(date +%s) - start)) s"
[ ! -e $link ] && [ ! -e $device ] || die "still there"
wait_for 90 sh -c "! kill -0 $writer"
[ -s /tmp/writer ] || die "the writer was told nothing"
# The daemon works on, with the dead mount in place.
[ "$(value a lvs vg/lv -o lv_active)" = "" ] || [ "$(value a lvs vg/lv -o lv_path)" = "" ] || die "still served"
v a lvchange -ay vg/lv
umount /mnt/u || die "umount of the dead mount"
fsck.ext4 -fp $link >/dev/null || [ $? = 1 ] || die "fsck"
mount $link /mnt/u
head -c 5000000 /job/bin/volmgr | cmp - /mnt/u/kept || die "what was written before is not there"
umount /mnt/u
v a lvchange -an vg/lv || die "not taken away"
[ -z "$(ls /dev/ublkc* 2>/dev/null)" ] || die "devices left: $(ls /dev/ublk*)"
