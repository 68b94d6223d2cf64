# init: systemd
# nodes: 2
# disks: 8 96 96 96 96 96 96
# limit: 700
# memory: 1024
# needs: dpkg-deb apt-get systemctl udevadm mkfs.ext4 fsck.ext4
# docs/guide.md on two machines, command by command as it stands there, from the package to the restored file system and beyond. Only
# names of disks (vd for sd), sizes, the paths of packages and fingerprints are put in. out/session is the recording.
phase=$1
. /job/guest.sh
[ "$phase" = run ] || exit 0
[ "$here" = a ] || exit 0
record=/job/out/session

on() { # node command: run there; output into the recording, status kept
    local status=0
    if [ "$1" = a ]; then
        (cd /root && timeout 300 bash -c "$2") >/tmp/said 2>&1 || status=$?
    else
        call "cd /root && timeout 300 bash -c $(printf '%q' "$2")" >/tmp/said 2>&1 || status=$?
    fi
    cat /tmp/said >>$record
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
    line=${line//FINGERPRINT-OF-A/$(fingerprint a)}
    line=${line//FINGERPRINT-OF-B/$(fingerprint b)}
    echo "$1# $line" | tee -a $record
    on "$1" "$line" || { cat /tmp/said; die "$1# $2"; }
}
marker() {
    case $1 in
    restored)
        same_files /srv/web /tmp/sums
        echo "    (the files are those from before)" >>$record ;;
    disk-dies)
        disk=$(basename "$2" | sed 's/^sd/vd/')
        echo "    (disk /dev/$disk is pulled out)" >>$record
        echo 1 >"$(readlink -f "/sys/block/$disk/device")/../remove"
        sync -f /srv/web
        echo x >/srv/web/after-the-disk
        sync -f /srv/web
        wait_for 60 sh -c 'volmgr plexs --noheadings -o plex_state vg0/web | grep -q "failed\|offline\|stale"' ;;
    machine-dies)
        sums /srv/web >/tmp/sums
        wait_for 60 sh -c "volmgr feeds --noheadings -o feed_state vg0/web | grep -q live"
        umount /srv/web
        systemctl stop volmgrd
        rm -rf /var/lib/volmgr
        for d in b c e; do dd if=/dev/zero of=/dev/vd$d bs=1M count=90 status=none; done
        systemctl start volmgrd
        echo "    (machine a is another one now: other disks, another key)" >>$record ;;
    recovered)
        mount /dev/volmgr/vg0/web /srv/web
        same_files /srv/web /tmp/sums
        echo "    (mounted: the files are those of the lost machine)" >>$record
        umount /srv/web ;;
    *) die "no such marker: $1" ;;
    esac
}
for n in a b; do on $n "cp /job/packages/volmgr_*-1_*.deb /root/; rm -f /var/lib/man-db/auto-update"; done
while IFS= read -r line <&9; do
    case $line in
    '    a# mount '*)
        line=${line#    }
        run a "${line:3}"
        [ -e /tmp/sums ] || { fill /srv/web; sums /srv/web >/tmp/sums; } ;;
    '    a# '* | '    b# '*)
        line=${line#    }
        run "${line:0:1}" "${line:3}" ;;
    '## '*) echo >>$record; echo "### ${line#\#\# }" >>$record ;;
    '<!-- test: '*)
        line=${line#<!-- test: }
        # shellcheck disable=SC2086
        marker ${line% -->} ;;
    esac
done 9</job/docs/guide.md
systemctl --failed --no-legend --plain | grep . && die "units have failed"
echo "figure: $(grep -c '^[ab]# ' $record) commands of docs/guide.md"
