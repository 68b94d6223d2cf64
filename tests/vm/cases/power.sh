# limit: 3600
# memory: 3072
# disks: 900 900 1900
# needs: python3 dmsetup mkfs.ext4 mkfs.xfs xfs_repair
# The power is cut, many times over: ext4 and xfs on a mirror whose two disks lie on one dm-log-writes, so that what both held at any moment can
# be put on a copy: at moments right after an fsync was acknowledged, at flushes, between them, within a write. On each copy a new daemon finds the group, the
# filesystem needs no repair, has everything that was acknowledged, and the plexes become equal.
. /job/guest.sh
modprobe ublk_drv
modprobe dm_mod; modprobe dm_log_writes; modprobe dm_snapshot; modprobe brd rd_nr=1 rd_size=$((256 << 10)); modprobe xfs
export DM_DISABLE_UDEV=1
replay=/job/replay-log
EACH=2
[ ! -e /job/vars ] || . /job/vars # EACH=n: more moments
log=/dev/mapper/log
# What lies on the disks of the group lies on others, too: only those named are looked at.
printf '[scan]\ndevices = false\n' >/tmp/named-only
config_of[a]=/tmp/named-only config_of[r]=/tmp/named-only
stages() { # first MiB of the disks, MiB for each: where the group is, the copy, and the log, all zero as yet
    sectors=$(($2 << 11)) half=$((sectors / 2))
    dmsetup create base --table "0 $sectors linear /dev/vda $(($1 << 11))"
    dmsetup create replayed --table "0 $sectors linear /dev/vdb $(($1 << 11))"
    dmsetup create log --table "0 $((2 * sectors)) linear /dev/vdc $(($1 << 12))"
}
disks_over() { # device: the two disks of the group
    for n in 0 1; do dmsetup create "pv$n" --table "0 $half linear $1 $((n * half))"; done
}
no_disks() { dmsetup remove --retry pv0; dmsetup remove --retry pv1; }
none_scheduler() { for q in /sys/block/ublkb*/queue/scheduler; do [ ! -e "$q" ] || echo none >"$q"; done; }
stop_node() { # pid
    kill "$1" 2>/dev/null || true
    for _ in $(seq 300); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
    die "the daemon does not end"
}

record() { # filesystem, MiB: a load on it that says what was acknowledged, until the power goes
    local i
    step "a load on $1"
    dmsetup create logged --table "0 $sectors log-writes /dev/mapper/base $log"
    disks_over /dev/mapper/logged
    rm -rf /var/lib/node-a /tmp/truth; mkdir /tmp/truth
    node_start a
    v a vgcreate -s 1m vg /dev/mapper/pv0 /dev/mapper/pv1
    v a lvcreate -n fs -L "$2m" -m 1 vg
    device=$(readlink -f /dev/volmgr/vg/fs)
    none_scheduler
    case $1 in
    ext4) mkfs.ext4 -q "$device" ;;
    xfs) mkfs.xfs -q -f "$device" ;;
    esac
    mkdir -p /mnt/fs
    mount "$device" /mnt/fs
    mkdir /mnt/fs/files
    sync
    dmsetup message logged 0 mark begin
    # In the background what nobody asks to be durable, so that there are always writes that are not.
    (n=0; while [ ! -e /tmp/enough ]; do n=$((n + 1)); head -c $((RANDOM * 8)) "$bin/volmgr" >/mnt/fs/noise$((n % 16)); done) & noise=$!
    for i in $(seq 16); do
        # A new file, a line at the end of an old one, and a file renamed over another: each durable, then said to be.
        head -c $((RANDOM * 3 + 1)) /dev/urandom >"/mnt/fs/files/$i"
        sha256sum <"/mnt/fs/files/$i" >"/tmp/truth/$i"
        echo "line $i" >>/mnt/fs/lines
        echo "$i" >/mnt/fs/new; sync /mnt/fs/new
        mv /mnt/fs/new /mnt/fs/last
        sync "/mnt/fs/files/$i" /mnt/fs/files /mnt/fs/lines /mnt/fs
        dmsetup message logged 0 mark "ack-$i"
    done
    touch /tmp/enough; wait $noise || true; rm /tmp/enough
    # The log is over here; what follows is how the recording ends, not the volume.
    dmsetup message logged 0 mark end
    umount /mnt/fs
    v a vgchange -an vg
    stop_node "$pid_a"
    no_disks
    dmsetup remove --retry logged
}

judge() { # filesystem what: the copy is what the disks held at that moment; /tmp/marks has the marks before it
    local acked i lines
    acked=$(sed -n 's/.* mark ack-//p' /tmp/marks | tail -n 1)
    acked=${acked:-0}
    # What is done with the copy goes elsewhere, so that the next moment comes on top of this one.
    dmsetup create copy --table "0 $sectors snapshot /dev/mapper/replayed /dev/ram0 N 8"
    disks_over /dev/mapper/copy
    rm -rf /var/lib/node-r
    node_start r
    v r vgscan /dev/mapper/pv0 /dev/mapper/pv1 >/dev/null
    v r vgchange -ay vg >/dev/null || die "$1, $2: the volume is not served: $(v r events | tail -n 5)"
    device=$(readlink -f /dev/volmgr/vg/fs)
    none_scheduler
    mount "$device" /mnt/fs || die "$1, $2: it cannot be mounted"
    for i in $(seq "$acked"); do
        sha256sum <"/mnt/fs/files/$i" | cmp -s - "/tmp/truth/$i" || die "$1, $2: file $i was acknowledged and is not as it was"
    done
    if [ "$acked" -gt 0 ]; then
        lines=$(head -n "$acked" /mnt/fs/lines | sha256sum)
        [ "$lines" = "$(seq -f 'line %g' "$acked" | sha256sum)" ] || die "$1, $2: lines are missing"
        [ "$(cat /mnt/fs/last)" -ge "$acked" ] || die "$1, $2: last is $(cat /mnt/fs/last), acknowledged was $acked"
    fi
    umount /mnt/fs
    case $1 in
    ext4) e2fsck -fn "$device" >/tmp/fsck 2>&1 || { cat /tmp/fsck; die "$1, $2: e2fsck finds something"; } ;;
    xfs) xfs_repair -n "$device" >/tmp/fsck 2>&1 || { cat /tmp/fsck; die "$1, $2: xfs_repair finds something"; } ;;
    esac
    v r plexsync vg/fs >/dev/null
    same=($(v r plexs vg/fs --noheadings --units b --nosuffix -o plex_segments | sed 's/^ *//; s/[:+]/ /g'))
    v r vgchange -an vg >/dev/null
    cmp -n "${same[2]}" -i "${same[1]}:${same[4]}" "${same[0]}" "${same[3]}" || die "$1, $2: the plexes differ"
    stop_node "$pid_r"
    no_disks
    dmsetup remove --retry copy
    judged=$((judged + 1))
}

moments() { # filesystem: replays the log, and judges
    local begin end n at=0 next points
    $replay $log list >/tmp/list
    begin=$(awk '$3 == "begin" {print $1}' /tmp/list) end=$(awk '$3 == "end" {print $1}' /tmp/list)
    # After so many acknowledgements, at as many flushes or FUA writes, and at as many moments between or within.
    points=$({
        awk -v b="$begin" '$1 > b && $3 ~ /^ack-/ {print $1, "after-" $3}' /tmp/list | shuf -n "$EACH"
        awk -v b="$begin" -v e="$end" '$1 > b && $1 < e && $2 != "mark" {print $1 + 1, "after-a-" $2}' /tmp/list | shuf -n "$EACH"
        shuf -i "$((begin + 1))-$((end - 1))" -n "$EACH" | sed 's/$/ within/'
    } | sort -n | tr ' ' ':')
    judged=0
    for n in $points; do
        next=${n%:*}
        [ "$next" -ge "$at" ] || next=$at
        $replay $log apply /dev/mapper/replayed "$at" "$next"
        at=$next
        [ "${n#*:}" != within ] || $replay $log torn /dev/mapper/replayed "$next"
        awk -v n="$next" '$1 <= n && $2 == "mark"' /tmp/list >/tmp/marks
        echo "moment $next of $end, ${n#*:} ($(cut -d. -f1 /proc/uptime) s)"
        judge "$1" "${n#*:} $next"
    done
    echo "figure: $1: the power cut at $judged moments of $((end - begin)) writes, flushes and marks: clean, complete, plexes equal"
}

stages 1 140
record ext4 48
moments ext4
dmsetup remove base; dmsetup remove replayed; dmsetup remove log
stages 141 656
record xfs 304
moments xfs
