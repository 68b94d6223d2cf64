# limit: 900
# disks: 200 200
# needs: cryptsetup mkfs.ext4 fsck.ext4 udevadm
# LUKS on a mirror, with udev running: formatted, opened, a filesystem in it, trimmed through it; not one byte in clear on a disk.
. /job/guest.sh
modprobe ublk_drv
modprobe dm-crypt
udev_start
node_start a
v a vgcreate vg /dev/vda /dev/vdb
v a lvcreate -n secret -L 128m -m 1 vg
dev=/dev/volmgr/vg/secret
io_mode a vg/secret
echo -n "a passphrase" >/tmp/key
luks() { timeout 200 cryptsetup -q --key-file /tmp/key "$@"; }

step format
# The lightest key derivation there is: its strength is not what is tested, and the processor is emulated.
luks luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $dev || die "luksFormat"
cryptsetup isLuks $dev || die "isLuks"
wait_for 60 sh -c "udevadm info --query=property $dev | grep -q ID_FS_TYPE=crypto_LUKS"
step open
luks open --allow-discards $dev secret || die "open"
mkfs.ext4 -q -E lazy_itable_init=0 /dev/mapper/secret
at=/mnt/secret
mkdir -p $at
mount /dev/mapper/secret $at
fill $at
marker="clear text $(cat /proc/sys/kernel/random/uuid)"
for i in $(seq 20000); do echo "$marker"; done >$at/marked
sums $at >/tmp/sums
sync -f $at

# What is stacked on the volume uses it.
[ "$(value a lvs vg/secret -o lv_open)" != 0 ] || die "lv_open says nothing of the mapping"
v a lvchange -an vg/secret 2>/tmp/refused && die "deactivated under a mapping"
grep -q open /tmp/refused || die "$(cat /tmp/refused)"
head -c 20M /dev/urandom >$at/deleted
sync -f $at
rm $at/deleted
trimmed=$(fstrim -v $at) || die "fstrim through dm-crypt"
[ "$(sed 's/.*(\([0-9]*\) bytes).*/\1/' <<<"$trimmed")" -gt $((20 << 20)) ] || die "fstrim trimmed little: $trimmed"

step close
umount $at
fsck.ext4 -fn /dev/mapper/secret >/dev/null || die "fsck"
cryptsetup close secret || die "close"
v a lvchange -an vg/secret || die "still in use after close"
plexes_equal a vg/secret
for disk in /dev/vda /dev/vdb; do
    # grep on a pipe: a disk of zeroes and noise is one long line to it.
    dd if=$disk bs=1M status=none | tr -c '[:print:]' '\n' | grep -qF "$marker" && die "clear text on $disk"
done

step "again, with a second key"
v a lvchange -ay vg/secret >/dev/null
echo -n "another one" >/tmp/key2
luks luksAddKey --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $dev /tmp/key2 || die "luksAddKey"
echo -n wrong | cryptsetup -q --key-file - open $dev secret 2>/dev/null && die "opened with a wrong key"
cryptsetup -q --key-file /tmp/key2 open $dev secret || die "open with the second key"
mount /dev/mapper/secret $at
same_files $at /tmp/sums
umount $at
cryptsetup close secret
wait_for 60 v a lvchange -an vg/secret
