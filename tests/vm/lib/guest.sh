# Sourced by every case, in the guest: helpers, and daemons with disks in RAM or virtio disks.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
bin=/run/vm-bin
node_pids=()
declare -A port_of=() # of daemons in this guest
declare -A config_of=() # node -> configuration file

die() { echo "FAILED: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || { echo "skipped: $1 is not installed on the host"; exit 77; }; }
wait_for() { # seconds command...: three times as long, because the host may be busy with other things
    local deadline=$((SECONDS + 3 * $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || die "waited in vain for: $*"
        sleep 0.1
    done
}
step() { echo "== $* ($(cut -d. -f1 /proc/uptime) s)"; }
mount --make-rshared / # as systemd has it
ip link set lo up 2>/dev/null || true

# Which guest this is, and, in a case of two, which one is the other: its commands are run there.
here=$(cat /run/vm-node)
[ -e /sys/class/net/eth0 ] && [ "$here" = a ] && there=b || there=
if [ -e /sys/class/net/eth0 ]; then
    [ "$here" = a ] && address=192.0.2.1 || address=192.0.2.2
else
    address=127.0.0.1
fi

# Runs a command in guest b, with these helpers; its output and status are the call's.
call() {
    local n
    n=$(cat /run/calls 2>/dev/null || echo 0)
    n=$((n + 1))
    echo "$n" >/run/calls
    printf '. /job/guest.sh\n%s\n' "$*" >"/job/calls/$n.new"
    mv "/job/calls/$n.new" "/job/calls/$n"
    until [ -e "/job/calls/$n.status" ]; do sleep 0.05; done
    cat "/job/calls/$n.out"
    return "$(cat "/job/calls/$n.status")"
}

node_start() { # name [extra options]; config=FILE before it
    local name=$1; shift
    [ "$name" != "$there" ] || { call "$(printf '%q ' node_start "$name" "$@")"; return; }
    mkdir -p "/run/$name"
    [ -n "${port_of[$name]:-}" ] || port_of[$name]=$((7750 + ${#port_of[@]})) # the same after a restart
    "$bin/volmgrd" --foreground --config "${config_of[$name]:-/dev/null}" --state-dir "/var/lib/node-$name" --socket "/run/$name/sock" --node "$name" \
        --listen "$address:${port_of[$name]}" --nbd "unix:/run/$name/nbd" "$@" >>"/job/out/volmgrd-$name.log" 2>&1 &
    node_pids+=($!)
    eval "pid_$name=$!"
    wait_for 60 "$bin/volmgr" --socket "/run/$name/sock" nodeshow
}
v() { # name verb...
    local name=$1; shift
    [ "$name" != "$there" ] || { call "$(printf '%q ' v "$name" "$@")"; return; }
    "$bin/volmgr" --socket "/run/$name/sock" "$@"
}
value() { local name=$1; shift; v "$name" "$@" --noheadings | sed 's/^ *//; s/ *$//'; }
ram_disks() { # count size_mb -> /dev/ram0...
    modprobe brd rd_nr="$1" rd_size=$(($2 * 1024))
}

trust() { # node node, both in this guest: each may do everything with the other's volumes, in the clear
    local fa fb
    fa=$(value "$1" nodeshow -o node_fingerprint) fb=$(value "$2" nodeshow -o node_fingerprint)
    v "$1" peeradd "$2" "127.0.0.1:${port_of[$2]}" --fingerprint "$fb" --allow all --plaintext
    v "$2" peeradd "$1" "127.0.0.1:${port_of[$1]}" --fingerprint "$fa" --allow all --plaintext
}
plexes() { # node VG/LV prefix: raw content of each plex, read from the disks themselves
    /job/plex-content "$bin/volmgr" "/run/$1/sock" "$2" "$3"
}
plexes_equal() { # node VG/LV: the plexes of a mirror that no one writes to, compared on the disks themselves
    plexes "$1" "$2" /tmp/equal-
    cmp /tmp/equal-0 /tmp/equal-1 || die "the plexes of $2 differ"
    rm /tmp/equal-?
}

# udev, as every distribution runs it: it looks at each device that appears or has been written, and makes names.
udev_start() {
    [ -x /usr/lib/systemd/systemd-udevd ] || { echo "skipped: systemd-udevd is not installed on the host"; exit 77; }
    mkdir -p /run/udev /run/udev/rules.d
    cp /job/*.rules /run/udev/rules.d/ # as `make install` would put them
    /usr/lib/systemd/systemd-udevd --daemon >/job/out/udevd.log 2>&1
    udevadm trigger --type=devices --subsystem-match=block
    udevadm settle -t 60
}
[ -e /run/udev/control ] || export DM_DISABLE_UDEV=1

# Directory -> files of many sizes in it, and their sums in a file outside.
fill() { # directory
    mkdir "$1/many" "$1/many/deep"
    cp "$bin/volmgrd" "$1/program"
    for i in $(seq 60); do head -c $((i * 997)) "$bin/volmgr" >"$1/many/$i"; done
    for i in $(seq 5); do tail -c $((i * 70001)) "$bin/volmgr" >"$1/many/deep/$i"; done
    ln "$1/many/7" "$1/many/hard"
    ln -s ../many/8 "$1/many/soft"
    truncate -s 3M "$1/sparse"
    printf 'x' | dd of="$1/sparse" bs=1 seek=2000001 conv=notrunc status=none
}
sums() { (cd "$1" && find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum); } # directory
same_files() { # directory file_with_sums
    sums "$1" | cmp - "$2" || die "files of $1 differ"
}

# A volume that should be a block device here moves its payload as this kernel lets it: asserted, so that a fallback does not go
# unseen.
io_mode() { # node VG/LV
    local mode wanted
    case $(uname -r) in
    6.*) wanted=user-copy ;;
    *) wanted=zero-copy ;;
    esac
    mode=$(value "$1" lvs "$2" -o lv_io_mode)
    echo "figure: $2 moves its payload by $mode"
    [ "$mode" = "$wanted" ] || die "lv_io_mode of $2 is $mode, not $wanted: $(value "$1" lvs "$2" -o lv_io_reason)"
}
