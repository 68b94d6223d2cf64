# init: systemd
# nodes: 2
# disks: 8 96 96 96 96 96 96 96
# limit: 2700
# memory: 1024
# needs: dpkg-deb dpkg systemctl udevadm mkfs.ext4 fsck.ext4
# docs/guide.md on two machines under systemd, command by command as it stands there, from the package to the restored file system and
# beyond. Only names of disks (vd for sd), sizes and fingerprints are put in. out/session.md is the recording: docs/session.md is one.
phase=$1
. /job/guest.sh
case $phase in
prepare) # on both machines
    rm -f /var/lib/man-db/auto-update # the index of all manual pages takes minutes in an emulated machine
    rm -f /usr/sbin/policy-rc.d # of a host that is a container: it would keep services from being started
    cp /job/packages/volmgr_*-1_*.deb /root/
    modprobe ublk_drv
    exit 0 ;;
run) ;;
*) exit 0 ;;
esac
[ "$here" = a ] || exit 0
record=/job/out/session.md

on() { # node command: run there; output into the recording, status kept
    local status=0
    if [ "$1" = a ]; then
        (cd /root && timeout 900 bash -c "$2") >/tmp/said 2>&1 </dev/null || status=$?
    else
        call "cd /root && timeout 900 bash -c $(printf '%q' "$2")" >/tmp/said 2>&1 || status=$?
    fi
    # Of a line that was written over and over, its end.
    sed 's/^.*\r\(.\)/\1/; s/^/    /; s/[ \r]*$//' /tmp/said >>$record
    return $status
}
fingerprint() { # node
    local ask="volmgr nodeshow --noheadings -o node_fingerprint"
    { [ "$1" = a ] && $ask || call "$ask"; } | tr -d ' '
}
run() { # node command
    local line=$2
    line=${line//\/dev\/sd/\/dev\/vd}
    line=${line//10g/48m}
    case $line in *FINGERPRINT-OF-A*) line=${line//FINGERPRINT-OF-A/$(fingerprint a)} ;; esac
    case $line in *FINGERPRINT-OF-B*) line=${line//FINGERPRINT-OF-B/$(fingerprint b)} ;; esac
    echo "$1# $line ($(cut -d. -f1 /proc/uptime) s)"
    heading
    echo "    $1# $line" >>$record
    on "$1" "$line" || { cat /tmp/said; journalctl -b --no-pager -u volmgrd | tail -n 20; die "$1# $2"; }
}
heading() { # of a section in which something happens
    [ -z "$section" ] || printf '\n%s\n\n' "$section" >>$record
    section=
}
note() { heading; printf '\n*%s*\n\n' "$1" >>$record; } # what happened outside the guide
marker() {
    case $1 in
    restored)
        same_files /srv/web /tmp/sums
        note "All $(wc -l </tmp/sums) files in /srv/web are those from before, by their SHA-256." ;;
    disk-dies)
        local disk
        disk=$(basename "$2" | sed 's/^sd/vd/')
        note "The disk /dev/$disk is pulled out; the file system is written to."
        echo 1 >"$(readlink -f "/sys/block/$disk/device")/../remove"
        echo x >/srv/web/after-the-disk
        sync -f /srv/web
        wait_for 60 sh -c 'volmgr plexs --noheadings -o plex_state vg0/web | grep -q "failed\|offline\|stale"' ;;
    machine-dies)
        sums /srv/web >/tmp/sums
        wait_for 60 sh -c "volmgr feeds --noheadings -o feed_state vg0/web | grep -q live"
        umount /srv/web
        systemctl stop volmgrd.socket volmgrd
        rm -rf /var/lib/volmgr
        for d in b c e h; do dd if=/dev/zero of=/dev/vd$d bs=1M count=96 conv=fsync status=none; done # to the last block, where metadata are, too
        systemctl start volmgrd
        note "Machine a is another one now: other disks, another key." ;;
    recovered)
        mount /dev/volmgr/vg0/web /srv/web
        same_files /srv/web /tmp/sums
        umount /srv/web
        fsck.ext4 -fn /dev/volmgr/vg0/web >/dev/null || die "fsck of the recovered volume"
        note "Mounted again on the new a: all $(wc -l </tmp/sums) files are those of the lost machine." ;;
    *) die "no such marker: $1" ;;
    esac
}
cat >$record <<'TEXT'
# A session

Two machines (Debian under systemd, in emulation) and [guide.md](guide.md), typed as it stands there by `tests/vm/cases/guide.sh`; this is
what came back. What happened outside the guide is in italics. Disks are `vdX` instead of `sdX`, the volume is small, and the fingerprints are
those of the day.

TEXT
echo "Linux $(uname -r); the package was not installed before." >>$record
command -v volmgr >/dev/null && die "volmgr is there before the guide installs it"
commands=0 section=
while IFS= read -r line <&9; do
    case $line in
    '    a# '* | '    b# '*)
        line=${line#    }
        run "${line:0:1}" "${line:3}"
        commands=$((commands + 1))
        case $line in
        *'# mount '*) [ -e /tmp/sums ] || { fill /srv/web; sums /srv/web >/tmp/sums; } ;;
        esac ;;
    '## '*) section=$line ;;
    '<!-- test: '*)
        line=${line#<!-- test: }
        # shellcheck disable=SC2086
        marker ${line% -->} ;;
    esac
done 9</job/docs/guide.md
cat -s $record >/tmp/session && cp /tmp/session $record
systemctl --failed --no-legend --plain | grep . && die "units have failed"
[ $commands -gt 50 ] || die "only $commands commands in the guide"
echo "figure: $commands commands of docs/guide.md"
