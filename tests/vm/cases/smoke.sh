# The guest itself: kernel, host's files, ublk driver.
. /job/guest.sh
uname -r
modprobe ublk_drv
[ -c /dev/ublk-control ] || die "no /dev/ublk-control"
ls "$bin"
