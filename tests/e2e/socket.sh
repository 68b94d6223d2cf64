# limit: 60
# The control socket passed by a service manager (here a few lines that do what systemd does with volmgrd.socket): whoever connects
# starts the daemon and gets an answer, also from the next daemon after the first one; what cannot be a control socket is refused.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v python3 >/dev/null || skip "python3 is not installed"
cat >"$work/manager" <<'PY'
"""manager KIND PATH COMMAND...: listens at PATH and starts COMMAND with the socket whenever somebody connects and none runs."""
import os, select, signal, socket, sys
kind, path, command = sys.argv[1], sys.argv[2], sys.argv[3:]
os.umask(0o177)
sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM)]
sockets[0].bind(path)
if kind != "datagrams":
    sockets[0].listen(16)
if kind == "two":
    sockets.append(sockets[0].dup())
child = 0
def ended(*_):
    if child: os.kill(child, signal.SIGTERM); os.waitpid(child, 0)
    os._exit(0)
signal.signal(signal.SIGTERM, ended)
while True:
    if kind == "control": select.select(sockets, [], [])
    child = os.fork()
    if child == 0:
        for number, one in enumerate(sockets): os.dup2(one.fileno(), 100 + number, inheritable=False)
        for number in range(len(sockets)): os.dup2(100 + number, 3 + number, inheritable=True)
        os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES="x", LISTEN_PID=str(1 if kind == "foreign" else os.getpid()))
        os.execv(command[0], command)
    print(child, file=open(path + ".pid", "w"), flush=True)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    child = 0
    if kind != "control": sys.exit(status)
PY
daemon() { # name: its command line
    echo "$bin/volmgrd" --foreground --config "${config_of[$1]:-/dev/null}" --state-dir "$work/$1/state" --node "$1" --nbd "unix:$work/$1/nbd.sock"
}
mkdir -p "$work/a"
printf '[[hook]]\nevents = ["vg-created"]\nprogram = "/bin/sh"\nargs = ["-c", "env >%s; volmgr_=$VOLMGR_SOCKET; test -S $volmgr_"]\n' "$work/env" >"$work/a.toml"
config_of[a]=$work/a.toml
# shellcheck disable=SC2046
python3 "$work/manager" control "$work/a/volmgrd.sock" $(daemon a) >>"$work/a.log" 2>&1 & manager=$!
pids+=($manager)
for _ in $(seq 100); do [ -S "$work/a/volmgrd.sock" ] && break; sleep 0.1; done
[ ! -e "$work/a/volmgrd.sock.pid" ] || die "started before anyone has asked"

[ "$(ask a nodeshow -o node_name)" = a ] || die "the first question is not answered"
first=$(cat "$work/a/volmgrd.sock.pid")
grep -q 'the control socket is .*/a/volmgrd.sock, as the service manager passes it, and not ' "$work/a.log" || die "no word of the other path"
disks a 1 64
v a vgcreate vg0 "$work/a/disk1"
v a lvcreate -n web -L 16m --frontend nbd vg0 2>/dev/null || v a lvcreate -n web -L 16m vg0
for _ in $(seq 100); do grep -qs VOLMGR_SOCKET "$work/env" && break; sleep 0.1; done
grep -qx "VOLMGR_SOCKET=$work/a/volmgrd.sock" "$work/env" || die "a hook is told another socket"
! grep -q '^LISTEN_' "$work/env" || die "a hook believes that sockets are passed to it"

# Between two daemons nobody is told that there is none.
kill -TERM "$first"
for _ in $(seq 20); do [ "$(ask a lvs -o lv_name)" = web ] || die "not answered while the daemon is replaced"; done
for _ in $(seq 100); do kill -0 "$first" 2>/dev/null || break; sleep 0.1; done
[ -S "$work/a/volmgrd.sock" ] || die "the daemon has removed a socket that is not its own"
[ "$(ask a lvs -o lv_name)" = web ] || die "the next daemon does not answer"
second=$(cat "$work/a/volmgrd.sock.pid")
[ "$second" != "$first" ] || die "no other daemon"
kill -KILL "$second"
[ "$(ask a lvs -o lv_name)" = web ] || die "not answered after a kill"
kill "$manager"
wait "$manager" || true

# What is not for this process, and what no control socket can be.
mkdir -p "$work/b"
started() { # kind: the daemon's status, its words in said
    rm -f "$work/b/passed"
    # shellcheck disable=SC2046
    timeout 20 python3 "$work/manager" "$1" "$work/b/passed" $(daemon b) --socket "$work/b/volmgrd.sock" >"$work/said" 2>&1
}
for kind in two datagrams; do
    status=0
    started $kind || status=$?
    [ $status = 4 ] || die "$kind: status $status: $(cat "$work/said")"
    grep -q '^volmgrd: a socket passed by the service manager: ' "$work/said" || die "$kind: $(cat "$work/said")"
    [ "$(wc -l <"$work/said")" = 1 ] || die "$kind: more than one line: $(cat "$work/said")"
done
started foreign & pids+=($!)
for _ in $(seq 100); do v b nodeshow >/dev/null 2>&1 && break; sleep 0.1; done
v b nodeshow >/dev/null || die "a socket that was passed to another process has been taken: $(cat "$work/said")"
kill "$(cat "$work/b/passed.pid")"
