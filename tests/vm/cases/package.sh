# init: systemd
# limit: 900
# disks: 160 160
# needs: dpkg-deb dpkg systemctl udevadm fio mkfs.ext4 fsck.ext4
# The Debian package in a machine that systemd runs: installed, at boot there before /etc/fstab mounts from a volume, reloaded,
# upgraded under load without an error, not removed while it is in use, there until the last file system is gone at shutdown.
phase=$1
. /job/guest.sh
deb() { echo /job/packages/volmgr_*-"$1"_*.deb; }
device=/dev/volmgr/vg0/web

case $phase in
prepare) # a machine without an init, as a chroot or an image is: the package is installed, nothing is started
    rm -f /var/lib/man-db/auto-update # the index of all manual pages takes minutes in an emulated machine
    rm -f /usr/sbin/policy-rc.d # of a host that is a container: it would keep services from being started
    dpkg -i "$(deb 1)" || die "it cannot be installed"
    [ ! -e /run/volmgr/volmgrd.sock ] || die "started without an init"
    grep -qs volmgrd /etc/systemd/system/local-fs.target.wants/volmgrd.service || die "not enabled"
    # What an earlier boot has left: a volume with a file system, mounted by /etc/fstab by its name, and one by its UUID.
    modprobe ublk_drv
    /usr/sbin/volmgrd --foreground >/job/out/volmgrd-prepare.log 2>&1 & daemon=$!
    wait_for 30 volmgr nodeshow
    volmgr vgcreate vg0 /dev/vda /dev/vdb
    volmgr lvcreate -n web -L 48m -m 1 vg0
    volmgr lvcreate -n raw -L 48m -m 1 vg0
    mkfs.ext4 -q -E lazy_itable_init=0 $device
    kill $daemon
    wait $daemon || die "volmgrd ended badly"
    mkdir -p /srv/web
    echo "$device /srv/web ext4 defaults 0 2" >/etc/fstab
    echo 'VOLMGRD_OPTIONS="--location vm"' >>/etc/default/volmgr
    cat >>/etc/volmgr/volmgrd.toml <<'TOML'
[[hook]]
events = ["lv-created"]
program = "/usr/bin/touch"
args = ["/run/volmgr/hook-ran"]
TOML
    ;;
run)
    step "boot: mounted before local-fs.target, by its name"
    systemctl is-system-running --wait || true
    systemctl --failed --no-legend --plain | tee /tmp/failed
    [ ! -s /tmp/failed ] || die "units have failed"
    findmnt -no SOURCE,FSTYPE /srv/web || { journalctl -b --no-pager | tail -n 40; die "not mounted at boot"; }
    [ "$(systemctl is-active volmgrd volmgr-unmount local-fs.target | sort -u)" = active ] || die "$(systemctl status volmgrd)"
    at() { systemctl show -P "$2" "$1"; }
    [ "$(at volmgrd ActiveEnterTimestampMonotonic)" -lt "$(at local-fs.target ActiveEnterTimestampMonotonic)" ] || die "after local-fs.target"
    echo "figure: volmgrd is there $(($(at volmgrd ActiveEnterTimestampMonotonic) / 1000)) ms after the kernel's start, mounted $(($(at srv-web.mount ActiveEnterTimestampMonotonic) / 1000)) ms"
    [ "$(volmgr nodeshow --noheadings -o node_location | tr -d ' ')" = vm ] || die "options of /etc/default/volmgr"
    udevadm settle -t 30
    uuid=$(volmgr lvs --noheadings -o lv_uuid vg0/web | tr -d ' ')
    [ "$(readlink -f "/dev/disk/by-id/volmgr-$uuid")" = "$(readlink -f $device)" ] || die "no name by UUID: $(ls -l /dev/disk/by-id)"
    io_mode_of=$(volmgr lvs --noheadings -o lv_io_mode vg0/web | tr -d ' ')
    echo "figure: under the unit's restrictions: $io_mode_of"
    case $(uname -r) in 6.*) wanted=user-copy ;; *) wanted=zero-copy ;; esac
    [ "$io_mode_of" = $wanted ] || die "$io_mode_of, not $wanted: $(journalctl -u volmgrd --no-pager | tail)"
    [ "$(awk '/^Seccomp:/{print $2}' "/proc/$(systemctl show -P MainPID volmgrd)/status")" = 2 ] || die "no system call filter"

    step "hooks and reload under the unit's restrictions"
    volmgr lvcreate -n other -L 4m vg0
    wait_for 10 test -e /run/volmgr/hook-ran
    volmgr lvremove -y vg0/other
    systemctl reload volmgrd
    wait_for 10 sh -c "volmgr events | grep -q 'reloaded '"

    step "an upgrade under load"
    touch /tmp/go
    (exec 9<>/dev/volmgr/vg0/raw # in use between fio's rounds, too
    while [ -e /tmp/go ]; do
        fio --name=v --filename=/dev/volmgr/vg0/raw --rw=randwrite --bs=16k --size=24m --io_size=2m --ioengine=libaio --iodepth=8 --direct=1 \
            --verify=crc32c --verify_fatal=1 --randrepeat=0 --output-format=terse >/tmp/fio.out 2>/tmp/fio.err || exit 1
        echo round >>/tmp/rounds
        sleep 0.5
    done) & load=$!
    (i=0; while [ -e /tmp/go ]; do i=$((i + 1)); head -c 300000 /usr/bin/volmgr >/srv/web/$((i % 30)) && sync -f /srv/web || exit 1; sleep 0.3; done) & writer=$!
    before=$(systemctl show -P MainPID volmgrd)
    node=$(volmgr nodeshow --noheadings -o node_fingerprint)
    sleep 2
    dpkg -i "$(deb 2)" || die "no upgrade"
    systemctl is-active volmgrd || die "not running after the upgrade"
    [ "$(systemctl show -P MainPID volmgrd)" != "$before" ] || die "the old daemon runs on"
    [ "$(dpkg-query -W -f '${Version}' volmgr)" = "$(basename "$(deb 2)" | cut -d_ -f2)" ] || die "not the new version"
    grep -q lv-created /etc/volmgr/volmgrd.toml || die "the configuration is gone"
    [ "$(volmgr nodeshow --noheadings -o node_fingerprint)" = "$node" ] || die "another key after an upgrade"
    wait_for 30 sh -c 'volmgr events | grep -c ublk-recovered | grep -qx 2'
    : >/tmp/rounds
    wait_for 60 grep -q round /tmp/rounds
    kill -0 $load 2>/dev/null || { cat /tmp/fio.err; die "fio has failed"; }
    rm /tmp/go
    wait $load || { cat /tmp/fio.err; die "fio found an error"; }
    wait $writer || die "a write to the file system failed"
    findmnt -no SOURCE /srv/web >/dev/null || die "unmounted by the upgrade"

    step "killed, it comes back by itself"
    kill -KILL "$(systemctl show -P MainPID volmgrd)"
    { head -c 3000000 /usr/bin/volmgr >/srv/web/across && sync -f /srv/web; } || die "a write across the kill"
    systemctl is-active --quiet volmgrd || wait_for 30 systemctl is-active volmgrd

    step "the socket: to ask starts a daemon that was stopped, and who uses its volumes goes on"
    [ "$(systemctl is-active volmgrd.socket)" = active ] || die "the socket is $(systemctl is-active volmgrd.socket)"
    systemctl stop volmgrd
    [ "$(systemctl is-active volmgrd)" = inactive ] || die "it still runs"
    [ "$(volmgr lvs --noheadings -o lv_name vg0/web | tr -d ' ')" = web ] || die "no answer"
    systemctl is-active --quiet volmgrd || die "not started by a question"
    { head -c 3000000 /usr/sbin/volmgrd >/srv/web/asked && sync -f /srv/web; } || die "a write behind the pause"
    systemctl disable --now volmgrd.socket
    systemctl restart volmgrd
    volmgr nodeshow >/dev/null || die "no socket of its own"
    [ "$(systemctl is-active volmgrd.socket)" = inactive ] || die "a disabled socket has been started"
    systemctl enable volmgrd.socket
    systemctl restart volmgrd # as an upgrade does
    [ "$(systemctl is-active volmgrd.socket volmgrd | sort -u)" = active ] || die "$(systemctl status volmgrd.socket volmgrd)"
    volmgr nodeshow >/dev/null || die "no answer at systemd's socket"

    step "not removed while it is in use"
    [ "$(volmgr lvs --noheadings -o lv_open vg0/web | tr -d ' ')" -gt 0 ] || die "the daemon does not see who uses it"
    dpkg -r volmgr >/tmp/removal 2>&1 && die "removed under a mounted file system"
    grep -q 'in use: vg0/web (unmount' /tmp/removal || die "no reason: $(cat /tmp/removal)"
    systemctl is-active --quiet volmgrd || die "stopped all the same"
    [ "$(dpkg-query -W -f '${db:Status-Status}' volmgr)" = installed ] || die "$(dpkg-query -W -f '${Status}' volmgr)"
    sums /srv/web >/tmp/sums
    ;;
stopped) # at shutdown, after volmgrd
    systemctl is-active --quiet volmgrd && die "it still runs"
    findmnt -no SOURCE /srv/web && die "it ended under a mounted file system"
    journalctl -b --no-pager -u volmgrd | tail -n 3
    grep -qs 'I/O error' /job/out/dmesg-a && die "I/O errors at shutdown"
    # And what a removal leaves: run by hand, as systemd is on its way out.
    modprobe ublk_drv
    ( /usr/sbin/volmgrd --foreground >/job/out/volmgrd-stopped.log 2>&1 & echo $! >/tmp/pid )
    wait_for 30 test -e $device # it answers before it serves its volumes
    mkdir -p /tmp/look
    fsck.ext4 -fn $device || die "fsck after the shutdown"
    mount -o ro $device /tmp/look
    same_files /tmp/look /tmp/sums
    umount /tmp/look
    plexes_equal_of() { volmgr plexsync --verify "$1" || die "plexsync --verify $1"; }
    plexes_equal_of vg0/web
    kill "$(cat /tmp/pid)"
    while kill -0 "$(cat /tmp/pid)" 2>/dev/null; do sleep 0.1; done
    ;;
esac
