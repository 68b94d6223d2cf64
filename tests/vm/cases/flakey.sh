# limit: 1200
# needs: dmsetup mkfs.ext4 e2fsck
# Disks that lie and disks that wear out (dm-flakey): one drops writes without a word under a mounted ext4, which verification finds, and the admin's
# word mends; one fails reads, which the other plex serves, and is retired when it does so too often. The last good plex stays.
. /job/guest.sh
modprobe ublk_drv
modprobe dm_mod; modprobe dm_flakey
ram_disks 2 160
size=$((160 << 11))
dmsetup create worn --table "0 $size linear /dev/ram1 0"
table() { # lines: what the disk does from now on
    dmsetup suspend --noflush worn
    printf '%s\n' "$@" | dmsetup load worn
    dmsetup resume worn
}
good() { table "0 $size linear /dev/ram1 0"; }
printf '[scan]\ndevices = false\n[plexes]\nmax_read_errors = 8\n' >/tmp/config
config_of[a]=/tmp/config
node_start a
v a vgcreate -s 1m vg /dev/ram0 /dev/mapper/worn
v a lvcreate -n fs -L 96m -m 1 vg /dev/ram0 /dev/mapper/worn
device=$(readlink -f /dev/volmgr/vg/fs)
mkfs.ext4 -q -E lazy_itable_init=0 "$device"
mkdir -p /mnt/fs
mount "$device" /mnt/fs
fill /mnt/fs
sync
plexes_now() { value a plexs vg/fs -o plex_state | tr '\n' ' '; }
event() { v a events | grep "$1" >/dev/null; }

step "writes that never come to the disk"
table "0 $size flakey /dev/ram1 0 0 3600 1 drop_writes"

cp -r /mnt/fs/many /mnt/fs/more
sync
sums /mnt/fs >/tmp/sums
good
[ "$(plexes_now)" = "active active " ] || die "somebody noticed: $(plexes_now)"
umount /mnt/fs
v a plexsync --verify vg/fs >/tmp/verify 2>&1 && die "the plexes are said to be equal"
grep -q 'plex0 against plex1' /tmp/verify || die "$(cat /tmp/verify)"
grep -q '  plex1 subdisk 0 on /dev/mapper/worn: ' /tmp/verify || die "$(cat /tmp/verify)"
v a plexsync --verify --repair vg/fs >/tmp/verify 2>&1 && die "it guessed: $(cat /tmp/verify)"
v a plexsync --verify --repair --believe plex0 vg/fs | tail -n 1 | tee /tmp/repaired
plexes_equal a vg/fs
v a plexsync --verify vg/fs
e2fsck -fn "$device" >/tmp/fsck 2>&1 || { cat /tmp/fsck; die "e2fsck finds something"; }
mount "$device" /mnt/fs
same_files /mnt/fs /tmp/sums
umount /mnt/fs

step "a sector that cannot be read"
# In the second megabyte, which a lone reader takes from the second plex.
at=$((($(value a plexs vg/fs --units b --nosuffix -o plex_name,plex_segments | awk '$1 == "plex1" {split($2, s, "[:+]"); print s[2]}') >> 9) + (1 << 11) + 128))
table "0 $at linear /dev/ram1 0" "$at 8 flakey /dev/ram1 $at 0 3600 1 error_reads" "$((at + 8)) $((size - at - 8)) linear /dev/ram1 $((at + 8))"
look() { dd if="$device" of=/dev/null bs=4k iflag=direct skip=$((256 + 16)) count=1 status=none || die "the reader sees an error"; }
for _ in 1 2 3; do look; sleep 1; done
errors=$(value a plexs vg/fs -S plex_name=plex1 -o plex_read_errors) repairs=$(value a plexs vg/fs -S plex_name=plex1 -o plex_read_repairs)
[ "$errors" -ge 1 ] && [ "$repairs" -ge 1 ] || die "errors $errors, repairs $repairs: $(v a plexs vg/fs -o +plex_read_errors,plex_read_repairs)"
event read-repaired || die "no word of the repair: $(v a events)"
[ "$(plexes_now)" = "active active " ] || die "given up too early: $(plexes_now)"
for _ in $(seq 20); do look; sleep 0.2; done
retired() { [ "$(plexes_now)" = "active failed " ]; }
wait_for 20 retired
event plex-retired || die "no word: $(v a events)"
for _ in 1 2 3; do look; done

step "the last good plex"
# Now the other one's turn; it is the last.
for _ in $(seq 3); do dd if="$device" of=/dev/null bs=1M iflag=direct count=8 status=none || die "the last plex is not served"; done
[ "$(plexes_now)" = "active failed " ] || die "$(plexes_now)"
good
v a plexsync vg/fs
[ "$(plexes_now)" = "active active " ] || die "it did not come back: $(plexes_now)"
[ "$(value a plexs vg/fs -S plex_name=plex1 -o plex_read_errors)" = 0 ] || die "not forgiven"
v a plexsync --verify vg/fs
plexes_equal a vg/fs
mount "$device" /mnt/fs
same_files /mnt/fs /tmp/sums
umount /mnt/fs
e2fsck -fn "$device" >/dev/null 2>&1 || die "e2fsck finds something"
echo "figure: writes dropped: $(cat /tmp/repaired); a sector that cannot be read: $errors errors and $repairs repairs before the plex was retired at 8"
