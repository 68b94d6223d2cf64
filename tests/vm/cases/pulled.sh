# limit: 900
# needs: fio dmsetup
# A plex's disk goes under fio's verify load and comes back: once as a table of errors (dm-error), once as a SCSI disk that is
# taken out of the machine. Nobody who uses the volume notices; the plex that is back gets what it missed, not everything.
. /job/guest.sh
export DM_DISABLE_UDEV=1 # there is none here
modprobe ublk_drv
modprobe dm_mod
modprobe sd_mod # which udev would load
modprobe scsi_debug dev_size_mb=160 delay=0
ram_disks 2 160
dmsetup create pulled --table "0 $((160 << 11)) linear /dev/ram1 0"
scsi_disk() { for d in /sys/block/sd*; do [ "$(cat "$d/device/model" 2>/dev/null | tr -d ' ')" = scsi_debug ] && basename "$d" && return; done; return 1; }
wait_for 30 scsi_disk
node_start a
v a vgcreate vg /dev/ram0 /dev/mapper/pulled "/dev/$(scsi_disk)"

load() { # device: fio until it is told to stop
    touch /tmp/go; : >/tmp/rounds
    (while [ -e /tmp/go ]; do
        fio --name=v --filename="$1" --rw=randrw --bsrange=4k-64k --size=32m --io_size=12m --ioengine=libaio --iodepth=16 --direct=1 \
            --verify=crc32c --verify_fatal=1 --randrepeat=0 --output-format=terse >/tmp/fio.out 2>/tmp/fio.err || exit 1
        echo round >>/tmp/rounds
    done) & load=$!
}
rounds() { # number: that many more rounds have been done
    local want=$(($(wc -l </tmp/rounds) + $1))
    wait_for 100 sh -c "[ \$(wc -l </tmp/rounds) -ge $want ] || ! kill -0 $load"
    kill -0 $load 2>/dev/null || { cat /tmp/fio.err; die "fio has failed"; }
}
unload() { rm /tmp/go; wait $load || { cat /tmp/fio.err; die "fio has failed"; }; }
state() { value a plexs "$1" -o plex_state | sort | tr '\n' ' '; }
away() { ! value a plexs "$1" -o plex_state | grep -vqx -e active -e "$2" && value a plexs "$1" -o plex_state | grep -qx "$2"; }
all_active() { [ "$(state "$1")" = "active active " ]; }
# A disk that answers with errors.
v a lvcreate -n errors -L 128m -m 1 vg /dev/ram0 /dev/mapper/pulled
wait_for 60 all_active vg/errors
load "$(readlink /dev/volmgr/vg/errors)"
rounds 1
dmsetup suspend --noflush pulled; dmsetup load pulled --table "0 $((160 << 11)) error"; dmsetup resume pulled
wait_for 60 away vg/errors failed
rounds 2
dmsetup suspend --noflush pulled; dmsetup load pulled --table "0 $((160 << 11)) linear /dev/ram1 0"; dmsetup resume pulled
missed=$(value a plexs vg/errors -o plex_name,plex_state,plex_sync_percent)
echo "before plexsync: $missed"
percent=$(value a plexs vg/errors -o plex_state,plex_sync_percent | awk '$1 != "active" {print int($2)}')
[ -n "$percent" ] && [ "$percent" -ge 60 ] || die "the plex would be filled anew: $missed"
v a vgscan # the disk was given up when it took no metadata
v a plexsync vg/errors
all_active vg/errors || die "after plexsync: $(state vg/errors)"
rounds 1
unload
plexes a vg/errors /tmp/plex
cmp /tmp/plex0 /tmp/plex1 || die "the plexes differ after dm-error"
rm /tmp/plex?
v a lvremove -y vg/errors

# A disk that is taken out and put back.
disk=$(scsi_disk)
v a lvcreate -n gone -L 128m -m 1 vg /dev/ram0 "/dev/$disk"
wait_for 60 all_active vg/gone
load "$(readlink /dev/volmgr/vg/gone)"
rounds 1
host=$(basename "$(readlink -f "/sys/block/$disk/device/../..")")
echo 1 >"/sys/block/$disk/device/delete"
not_whole() { ! all_active vg/gone; }
wait_for 60 not_whole
echo "after the removal: $(state vg/gone)"
rounds 2
echo "- - -" >"/sys/class/scsi_host/$host/scan"
wait_for 60 scsi_disk
echo "taken out as $disk, back as $(scsi_disk)"
v a vgscan
percent=$(value a plexs vg/gone -o plex_state,plex_sync_percent | sort -k 2 -n | head -n 1)
echo "after vgscan: $percent"
v a plexsync vg/gone
all_active vg/gone || die "after plexsync: $(state vg/gone)"
rounds 1
unload
plexes a vg/gone /tmp/plex
cmp /tmp/plex0 /tmp/plex1 || die "the plexes differ after the removal"
v a events | tail -n 30
dmesg | grep "I/O error, dev ublkb" && die "an error has reached the volume"
echo "figure: dm-error: $missed; removal: as $disk, back as $(scsi_disk): $percent"
