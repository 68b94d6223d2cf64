# Nodes on this machine, for the demo and the end-to-end tests. Sourced with $top and $bin set.
# Everything lives in $work, which goes away at the end (KEEP=1 keeps it); every process started here is ended.

work=$(mktemp -d "${TMPDIR:-/tmp}/volmgr.XXXXXX")
pids=()          # everything to end
declare -A pid_of # node -> pid
declare -A port_of # node -> feed port, kept over restarts
declare -A addr_of # node -> address it listens at, if not the loopback one
declare -A config_of # node -> configuration file, if it has one
ending=()        # what else there is to do at the end: see at_end

die() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }
skip() { printf 'skipped: %s\n' "$*"; exit 77; }
now_ms() { date +%s%3N; }

# Numbers of processes are given out again: one that has ended long ago may be somebody else's by now.
is_ours() { grep -qsx "PPid:[[:space:]]*$$" "/proc/$1/status"; } # pid
end_process() { # pid
    is_ours "$1" && kill "$1" 2>/dev/null || return 0
    for _ in $(seq 150); do is_ours "$1" || break; grep -qs '^State:[[:space:]]*Z' "/proc/$1/status" && break; sleep 0.1; done
    ! is_ours "$1" || kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# at_end COMMAND: done at the end, before the processes are ended; the last one first. (A trap of its own would lose what the test ends with.)
at_end() { ending=("$1" "${ending[@]}"); }
nodes_cleanup() {
    local status=$? pid hook
    trap - EXIT INT TERM
    for hook in "${ending[@]}"; do eval "$hook" || true; done
    for pid in "${pids[@]}"; do end_process "$pid"; done
    if [ "$status" != 0 ] && [ "$status" != 77 ]; then
        for log in "$work"/*.log; do
            [ -f "$log" ] && { printf -- '--- last lines of %s\n' "$(basename "$log")"; tail -n "${LOG_LINES:-15}" "$log"; } >&2
        done
    fi
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
    exit "$status"
}
trap nodes_cleanup EXIT
trap 'exit 130' INT TERM

# v NODE VERB...: the tool, talking to a node.
v() { local node=$1; shift; "$bin/volmgr" --socket "$work/$node/volmgrd.sock" "$@"; }
# ask NODE VERB...: the same, one value without blanks.
ask() { v "$@" --noheadings | sed 's/^ *//; s/ *$//'; }
uri() { echo "nbd+unix:///$2?socket=$work/$1/nbd.sock"; }

node_start() { # name [options]
    local name=$1; shift
    mkdir -p "$work/$name"
    [ -n "${port_of[$name]:-}" ] || port_of[$name]=$(free_port)
    # shellcheck disable=SC2086
    ${WRAP:-} "$bin/volmgrd" --foreground --config "${config_of[$name]:-/dev/null}" --state-dir "$work/$name/state" --socket "$work/$name/volmgrd.sock" \
        --node "$name" --location "rack-$name" --listen "${addr_of[$name]:-127.0.0.1}:${port_of[$name]}" --nbd "unix:$work/$name/nbd.sock" "$@" \
        >>"$work/$name.log" 2>&1 &
    pid_of[$name]=$!
    pids+=($!)
    for _ in $(seq 300); do
        v "$name" nodeshow >/dev/null 2>&1 && return
        kill -0 "${pid_of[$name]}" 2>/dev/null || die "node $name did not start: $(tail -n 3 "$work/$name.log")"
        sleep 0.1
    done
    die "node $name does not answer"
}
same_at_point() { # source VG/LV sink VG/LV when: both hold the same where their feed has ended at a point; $work/source.img is that
    nbdcopy "$(uri "$1" "$2")" "$work/source.img"
    v "$3" lvchange -ay "$4" >/dev/null
    nbdcopy "$(uri "$3" "$4")" "$work/sink.img"
    v "$3" lvchange -an "$4"
    cmp "$work/source.img" "$work/sink.img" || die "source and sink differ after $5"
    rm -f "$work/sink.img"
    echo "ok: $5"
}
node_kill() { kill -9 "${pid_of[$1]}"; wait "${pid_of[$1]}" 2>/dev/null || true; }
node_stop() { end_process "${pid_of[$1]}"; }

free_port() { # a port nobody listens on now
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    die "no free port"
}

disks() { # node count size_mb -> sparse files disk1..diskN
    local d
    for d in $(seq "$2"); do truncate -s "${3}M" "$work/$1/disk$d"; done
}

trust() { # node node [plaintext]
    local fa fb
    fa=$(ask "$1" nodeshow -o node_fingerprint) fb=$(ask "$2" nodeshow -o node_fingerprint)
    v "$1" peeradd "$2" "${addr_of[$2]:-127.0.0.1}:${port_of[$2]}" --fingerprint "$fb" --allow all ${3:+--$3}
    v "$2" peeradd "$1" "${addr_of[$1]:-127.0.0.1}:${port_of[$1]}" --fingerprint "$fa" --allow all ${3:+--$3}
}
