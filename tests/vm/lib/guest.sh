# Sourced by every case, in the guest: helpers, and a daemon with disks in RAM.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DM_DISABLE_UDEV=1 LC_ALL=C
bin=/job/bin
node_pids=()
declare -A port_of=()
declare -A config_of=() # node -> configuration file

die() { echo "FAILED: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || { echo "skipped: $1 is not installed on the host"; exit 77; }; }
wait_for() { # seconds command...
    local n=$(($1 * 10)); shift
    for _ in $(seq "$n"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
    die "waited in vain for: $*"
}
mount --make-rshared / # as systemd has it
ip link set lo up 2>/dev/null || true

node_start() { # name [extra options]
    local name=$1; shift
    mkdir -p "/run/$name"
    [ -n "${port_of[$name]:-}" ] || port_of[$name]=$((7750 + ${#port_of[@]})) # the same after a restart
    "$bin/volmgrd" --foreground --config "${config_of[$name]:-/dev/null}" --state-dir "/var/lib/node-$name" --socket "/run/$name/sock" --node "$name" \
        --listen "127.0.0.1:${port_of[$name]}" --nbd "unix:/run/$name/nbd" "$@" >>"/job/out/volmgrd-$name.log" 2>&1 &
    node_pids+=($!)
    eval "pid_$name=$!"
    wait_for 20 "$bin/volmgr" --socket "/run/$name/sock" nodeshow
}
v() { local name=$1; shift; "$bin/volmgr" --socket "/run/$name/sock" "$@"; }
value() { local name=$1; shift; v "$name" "$@" --noheadings | sed 's/^ *//; s/ *$//'; }
ram_disks() { # count size_mb -> /dev/ram0...
    modprobe brd rd_nr="$1" rd_size=$(($2 * 1024))
}

trust() { # node node: each may do everything with the other's volumes, in the clear
    local fa fb
    fa=$(value "$1" nodeshow -o node_fingerprint) fb=$(value "$2" nodeshow -o node_fingerprint)
    v "$1" peeradd "$2" "127.0.0.1:${port_of[$2]}" --fingerprint "$fb" --allow all --plaintext
    v "$2" peeradd "$1" "127.0.0.1:${port_of[$1]}" --fingerprint "$fa" --allow all --plaintext
}
plexes() { # node VG/LV prefix: raw content of each plex, read from the disks themselves
    /job/plex-content "$bin/volmgr" "/run/$1/sock" "$2" "$3"
}
