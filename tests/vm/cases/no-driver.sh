# limit: 180
# Without the driver: asked for by name it is refused with the reason, else the volume is served by NBD.
. /job/guest.sh
need nbdinfo
[ ! -e /dev/ublk-control ] || die "the driver is loaded already"
ram_disks 1 64
node_start a
v a vgcreate vg /dev/ram0
v a lvcreate -n lv -L 16m --frontend ublk vg 2>/tmp/error && die "made a block device without a driver"
grep -q "modprobe ublk_drv" /tmp/error || die "does not say what to do: $(cat /tmp/error)"
[ -z "$(value a lvs -o lv_name)" ] || die "left a volume behind"
said=$(v a lvcreate -n lv -L 16m vg)
grep -q "nbd+unix:///vg/lv" <<<"$said" || die "no NBD offered: $said"
[ "$(value a lvs -o lv_io_mode)" = nbd ] || die "lv_io_mode"
[ "$(nbdinfo --size "nbd+unix:///vg/lv?socket=/run/a/nbd")" = $((16 << 20)) ] || die "NBD"
# With the driver the same volume becomes a device, for the asking.
v a lvchange -an vg/lv
modprobe ublk_drv
v a lvchange -ay --frontend both vg/lv >/tmp/said
grep -qx /dev/volmgr/vg/lv /tmp/said && grep -q "nbd+unix" /tmp/said || die "$(cat /tmp/said)"
v a lvchange -ay --frontend nbd vg/lv 2>/tmp/error && die "changed its front end while active"
grep -q "another front end" /tmp/error || die "$(cat /tmp/error)"
[ -b /dev/volmgr/vg/lv ] || die "no device"
