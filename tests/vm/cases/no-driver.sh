# limit: 400
# needs: nbdinfo setpriv
# Without the driver, without its control device, or without the right to it: what was asked for by name is refused with the
# reason and what to do; else the volume is served by NBD.
. /job/guest.sh
[ ! -e /dev/ublk-control ] || die "the driver is loaded already"

refused() { # node what must be said: ublk by name is refused in one line, and nothing is left behind
    v "$1" lvcreate -n lv -L 16m --frontend ublk vg 2>/tmp/error && die "made a block device: $2"
    grep -q "$2" /tmp/error || die "does not say '$2': $(cat /tmp/error)"
    grep -q "(choose --frontend nbd)" /tmp/error || die "does not say what to do: $(cat /tmp/error)"
    [ "$(wc -l </tmp/error)" = 1 ] || die "more than a line: $(cat /tmp/error)"
    [ -z "$(value "$1" lvs -o lv_name)" ] || die "left a volume behind"
}
offered() { # node: by default NBD, which works
    local said
    said=$(v "$1" lvcreate -n lv -L 16m vg)
    grep -q "nbd+unix:///vg/lv" <<<"$said" || die "no NBD offered: $said"
    [ "$(value "$1" lvs -o lv_io_mode)" = nbd ] || die "lv_io_mode"
    [ "$(nbdinfo --size "nbd+unix:///vg/lv?socket=/run/$1/nbd")" = $((16 << 20)) ] || die "NBD"
}

ram_disks 1 64
node_start a
v a vgcreate vg /dev/ram0
refused a "this kernel has no ublk: /dev/ublk-control does not exist (modprobe ublk_drv)"
offered a
v a lvremove -y vg/lv

# The driver, but not its device: a container that was not given it.
modprobe ublk_drv
mv /dev/ublk-control /dev/hidden
refused a "/dev/ublk-control does not exist"
offered a
mv /dev/hidden /dev/ublk-control

# With it the same volume becomes a device, for the asking.
v a lvchange -an vg/lv
v a lvchange -ay --frontend both vg/lv >/tmp/said
grep -qx /dev/volmgr/vg/lv /tmp/said && grep -q "nbd+unix" /tmp/said || die "$(cat /tmp/said)"
v a lvchange -ay --frontend nbd vg/lv 2>/tmp/error && die "changed its front end while active"
grep -q "another front end" /tmp/error || die "$(cat /tmp/error)"
[ -b /dev/volmgr/vg/lv ] || die "no device"

# An ordinary user, on files.
install -d -o nobody /run/u /var/lib/node-u
truncate -s 64M /run/u/disk; chown nobody /run/u/disk
setpriv --reuid nobody --clear-groups "$bin/volmgrd" --foreground --config /dev/null --state-dir /var/lib/node-u --socket /run/u/sock \
    --node u --listen 127.0.0.1:7799 --nbd unix:/run/u/nbd >/job/out/volmgrd-u.log 2>&1 &
wait_for 60 v u nodeshow
v u vgcreate vg /run/u/disk
refused u "/dev/ublk-control is not permitted for this user"
offered u
