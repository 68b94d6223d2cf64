# limit: 700
# disks: 100 100
# needs: udevadm mkfs.ext4 blockdev lsblk
# What the device says of itself in /sys and to udev, over disks of several kinds; and its names, from first to last.
. /job/guest.sh
modprobe ublk_drv
udev_start
ram_disks 3 100
modprobe scsi_debug sector_size=4096 physblk_exp=0 dev_size_mb=100 lbpu=1 lbpws=1
wait_for 60 sh -c 'ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*:*/block'
four_k=/dev/$(basename /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*:*/block/*)
wait_for 60 test -b "$four_k"
node_start a
v a vgcreate ram /dev/ram0 /dev/ram1 /dev/ram2
v a vgcreate virt /dev/vda /dev/vdb
v a vgcreate sectors "$four_k"

says() { # link attribute wanted [attribute wanted]...
    local link=$1 queue found; shift
    queue=/sys/block/$(basename "$(readlink "$link")")
    while [ $# -gt 0 ]; do
        found=$(cat "$queue/$1")
        [ "$found" = "$2" ] || die "$link: $1 is '$found', not '$2'"
        shift 2
    done
}
at_least() { # link attribute minimum
    local found; found=$(cat "/sys/block/$(basename "$(readlink "$1")")/$2")
    [ "$found" -ge "$3" ] || die "$1: $2 is $found, less than $3"
}

step "RAM disks: one plex, a mirror, stripes"
v a lvcreate -n one -L 16m ram
one=/dev/volmgr/ram/one
says $one queue/logical_block_size "$(cat /sys/block/ram0/queue/logical_block_size)" \
    queue/physical_block_size "$(cat /sys/block/ram0/queue/physical_block_size)" queue/rotational 0 queue/write_cache "write back" \
    queue/fua 1 ro 0 size $((16 << 11)) removable 0 alignment_offset 0
at_least $one queue/discard_max_bytes 1048576
at_least $one queue/discard_granularity 512
at_least $one queue/write_zeroes_max_bytes 1048576
at_least $one queue/max_hw_sectors_kb 128
v a lvcreate -n two -L 16m -m 1 ram
# Two disks read the same pages, each at its own time: who writes must leave them alone meanwhile. Needed only where they do.
case $(value a lvs ram/two -o lv_io_mode) in
zero-copy) says /dev/volmgr/ram/two queue/stable_writes 1 ;;
*) says /dev/volmgr/ram/two queue/stable_writes 0 ;;
esac
v a lvcreate -n striped -L 16m -i 2 -I 64k ram
says /dev/volmgr/ram/striped queue/optimal_io_size 131072
says /dev/volmgr/ram/striped queue/minimum_io_size 65536
[ "$(blockdev --getiomin --getioopt /dev/volmgr/ram/striped | tr '\n' ' ')" = "65536 131072 " ] || die "blockdev: io_min, io_opt"
at_least $one queue/minimum_io_size 512
# A width that is no power of two, which is all that the driver takes: a size that it is a multiple of.
v a lvcreate -n three -L 12m -i 3 -I 64k ram
says /dev/volmgr/ram/three queue/minimum_io_size 65536 queue/optimal_io_size 65536
v a lvremove -y ram/three

step "disks that spin; sectors of 4096 bytes"
v a lvcreate -n spin -L 16m -m 1 virt
says /dev/volmgr/virt/spin queue/rotational "$(cat /sys/block/vda/queue/rotational)" discard_alignment 0 \
    queue/logical_block_size "$(cat /sys/block/vda/queue/logical_block_size)"
v a lvcreate -n big -L 16m sectors
big=/dev/volmgr/sectors/big
says $big queue/logical_block_size 4096 queue/physical_block_size 4096
[ "$(blockdev --getss $big) $(blockdev --getpbsz $big)" = "4096 4096" ] || die "blockdev"
dd if=/dev/zero of=$big bs=512 count=1 oflag=direct 2>/dev/null && die "wrote half a sector"
head -c 64k /dev/urandom >/tmp/64k
dd if=/tmp/64k of=$big bs=4096 seek=5 oflag=direct status=none
dd if=$big bs=4096 skip=5 count=16 iflag=direct status=none | cmp - /tmp/64k || die "content with sectors of 4096 bytes"
mkfs.ext4 -q $big
mkdir -p /mnt/big
mount $big /mnt/big
cp /tmp/64k /mnt/big/file
sync -f /mnt/big/file
umount /mnt/big

step "what udev knows"
udevadm settle -t 30
mkfs.ext4 -q -U 11111111-2222-3333-4444-555555555555 -L volume $one
name=$(basename "$(readlink $one)")
wait_for 60 test -e /dev/disk/by-uuid/11111111-2222-3333-4444-555555555555
[ "$(readlink -f /dev/disk/by-label/volume)" = "/dev/$name" ] || die "by-label"
udevadm info --query=property "/dev/$name" >/tmp/properties
grep -q ID_FS_TYPE=ext4 /tmp/properties || die "udev: $(cat /tmp/properties)"
[ "$(lsblk -dnro TYPE,RO,ROTA "/dev/$name")" = "disk 0 0" ] || die "lsblk: $(lsblk -dnro TYPE,RO,ROTA "/dev/$name")"
[ "$(stat -Lc '%a %G' $one)" = "660 disk" ] || die "permissions: $(stat -Lc '%a %G' $one)"

step "names"
[ "$(ls /dev/volmgr)" = "ram
sectors
virt" ] || die "$(ls /dev/volmgr)"
# A name does not change under those who use it.
v a lvrename ram/one uno 2>/tmp/refused && die "renamed while active"
grep -q "lvchange -an ram/one" /tmp/refused || die "$(cat /tmp/refused)"
# udev looks at a device that someone has closed: that is no user.
v a lvchange -an ram/one || die "udev holds it"
v a lvrename ram/one uno
v a lvchange -ay ram/uno >/dev/null
[ -b /dev/volmgr/ram/uno ] && [ ! -e $one ] || die "the name did not follow: $(ls -l /dev/volmgr/ram)"
[ "$(value a lvs ram/uno -o lv_path)" = /dev/volmgr/ram/uno ] || die "lv_path"
v a lvchange -an ram/uno
udevadm settle -t 30
[ ! -e /dev/volmgr/ram/uno ] && [ ! -e "/dev/$name" ] || die "still there"
[ ! -e /dev/disk/by-label/volume ] || die "udev still has its label"
v a lvchange -ay ram/uno >/dev/null
wait_for 60 test -e /dev/disk/by-label/volume
for _ in 1 2 3 4 5; do # as fast as it goes, with udev at it
    v a lvchange -an ram/uno
    v a lvchange -ay ram/uno >/dev/null
    [ -b /dev/volmgr/ram/uno ] || die "no device"
done
for lv in ram/uno ram/two ram/striped virt/spin sectors/big; do v a lvremove -y $lv; done
udevadm settle -t 30
[ ! -e /dev/volmgr ] || die "left: $(ls -R /dev/volmgr)"
! ls /dev/ublkb* /sys/block/ublkb* 2>/dev/null || die "devices are left"
