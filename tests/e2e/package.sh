# limit: 240
# The Debian package in a machine of its own (a chroot that copies on write; as root only): installed and enabled, upgraded with the
# configuration kept, not removed while a volume is in use, removed, purged. Nothing is left but what is on the disks. What systemd
# does with it is shown by tests/vm/cases/package.sh.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
[ "$(id -u)" = 0 ] || skip "only root can have a chroot"
for p in dpkg dpkg-deb unshare deb-systemd-helper qemu-io; do command -v $p >/dev/null || skip "$p is not installed"; done
for revision in 1 2; do DEB_COMPRESSION=none "$top/dist/deb/build" "$bin" $revision "$work/deb" >"$work/build.log" 2>&1 || die "$(cat "$work/build.log")"; done
[ "$(dpkg-deb -f "$work"/deb/volmgr_*-1_*.deb Package)" = volmgr ] || die "not a package"

cat >"$work/inside" <<'INSIDE'
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
die() { echo "FAILED: $*" >&2; exit 1; }
deb() { echo /mnt/deb/volmgr_*-"$1"_*.deb; }
status() { dpkg-query -W -f '${db:Status-Status} ${Version}' volmgr 2>/dev/null || true; }
ours() { find /etc /usr /var/lib /var/cache -xdev -name '*volmgr*' -not -path '/var/lib/dpkg/*' | sort; }
rm -f /var/lib/man-db/auto-update
ours >/tmp/before
dpkg -i "$(deb 1)"
[ "$(ours | wc -l)" -gt $(($(wc -l </tmp/before) + 50)) ] || die "hardly a file has come: $(ours)"
version=$(dpkg-deb -f "$(deb 1)" Version)
[ "$(status)" = "installed $version" ] || die "$(status)"
[ -L /etc/systemd/system/local-fs.target.wants/volmgrd.service ] || die "not enabled"
[ -L /etc/systemd/system/sockets.target.wants/volmgrd.socket ] && [ -L /etc/systemd/system/volmgrd.service.wants/volmgrd.socket ] || die "the socket is not enabled"
[ -z "$(dpkg -V volmgr)" ] || die "files differ from the package's: $(dpkg -V volmgr)"
[ ! -e /run/volmgr/volmgrd.sock ] || die "started in a chroot"
man -w volmgr-lvcreate volmgrd feedplex >/dev/null || die "no manual pages"

volmgrd --foreground >/tmp/volmgrd.log 2>&1 & daemon=$!
for _ in $(seq 200); do volmgr nodeshow >/dev/null 2>&1 && break; sleep 0.1; done
truncate -s 64M /srv/disk
volmgr vgcreate vg0 /srv/disk
volmgr lvcreate -n web -L 16m --frontend nbd vg0 2>/dev/null || volmgr lvcreate -n web -L 16m vg0
address=$(volmgr lvs --noheadings -o lv_path vg0/web | tr -d ' ')
mkfifo /tmp/hold
qemu-io -f raw "$address" </tmp/hold >/tmp/client 2>&1 & client=$!
exec 3>/tmp/hold
echo 'write -P 7 0 4096' >&3
for _ in $(seq 100); do grep -q wrote /tmp/client && break; sleep 0.1; done
grep -q wrote /tmp/client || die "the client: $(cat /tmp/client)"

dpkg -r volmgr >/tmp/removal 2>&1 && die "removed while a volume is in use"
grep -q 'in use: vg0/web (unmount' /tmp/removal || die "no reason: $(cat /tmp/removal)"
[ "$(status)" = "installed $version" ] || die "after a refused removal: $(status)"

echo '# mine' >>/etc/volmgr/volmgrd.toml
dpkg -i "$(deb 2)"
[ "$(status)" = "installed $(dpkg-deb -f "$(deb 2)" Version)" ] || die "not upgraded: $(status)"
grep -q '# mine' /etc/volmgr/volmgrd.toml || die "the upgrade has taken the configuration"
kill -0 $daemon || die "the upgrade has ended a daemon that no systemd runs"
echo 'read -P 7 0 4096' >&3
echo quit >&3
exec 3>&-
wait $client
grep -q 'read 4096/4096' /tmp/client || die "the client did not go on: $(cat /tmp/client)"
! grep -qi 'failed\|error' /tmp/client || die "the client had errors: $(cat /tmp/client)"

kill $daemon
wait $daemon || die "volmgrd ended badly: $(tail -n 5 /tmp/volmgrd.log)"
dpkg -r volmgr
[ ! -e /usr/sbin/volmgrd ] && [ -e /etc/volmgr/volmgrd.toml ] && [ -d /var/lib/volmgr ] || die "a removal keeps the configuration and the state"
dpkg -P volmgr
[ -z "$(status)" ] || [ "$(status)" = "not-installed " ] || die "$(status)"
ours >/tmp/after
cmp -s /tmp/before /tmp/after || die "left behind: $(comm -13 /tmp/before /tmp/after)"
[ ! -e /var/lib/volmgr ] || die "the state is still there after a purge"
grep -q -a vg0 /srv/disk || die "the disk has lost its group"
INSIDE

# Its own mounts; they end with the process.
export work
unshare --mount --propagation private bash -euo pipefail -c '
    mkdir "$work/layer"
    mount -t tmpfs tmpfs "$work/layer" || exit 77
    mkdir "$work"/layer/{up,work,root}
    mount -t overlay -o "lowerdir=/,upperdir=$work/layer/up,workdir=$work/layer/work" overlay "$work/layer/root" || exit 77
    cd "$work/layer/root"
    mount -t proc proc proc
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    mount -t tmpfs tmpfs dev
    for d in null zero random urandom tty; do : >dev/$d; mount --bind /dev/$d dev/$d; done
    ln -s /proc/self/fd dev/fd
    mkdir -p mnt/deb
    mount --bind "$work/deb" mnt/deb
    cp "$work/inside" tmp/inside
    exec chroot . /bin/bash /tmp/inside
' || {
    status=$?
    [ $status != 77 ] || skip "this kernel gives no overlay here"
    die "status $status"
}
