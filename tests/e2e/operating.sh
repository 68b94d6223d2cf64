# limit: 60
# Running it: hooks on events (bounded, failing ones are told of), the configuration read again on SIGHUP, requests traced while the
# daemon runs, events and all this over a restart, trees of `status` and `lvdisplay`.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
CONFIG=$work/volmgrd.toml
config_of[a]=$CONFIG
cat >"$work/hook" <<'HOOK'
#!/bin/sh
[ "$1" != slow ] || { sleep 300 & echo $! >"$2"; wait; }
[ "$1" != fail ] || exit 7
read -r line
echo "$VOLMGR_NODE $VOLMGR_EVENT_KIND $VOLMGR_EVENT_OBJECT $line" >>"$2"
HOOK
chmod +x "$work/hook"
cat >"$CONFIG" <<TOML
[[hook]]
events = ["lv-*"]
objects = ["vg0/*"]
program = "$work/hook"
args = ["note", "$work/notes"]
[[hook]]
events = ["vg-renamed"]
program = "$work/hook"
args = ["fail"]
[[hook]]
events = ["lv-renamed"]
program = "$work/hook"
args = ["slow", "$work/sleeper"]
timeout = 1
TOML
wait_for() { # what, command...
    local what=$1; shift
    for _ in $(seq 100); do "$@" && return; sleep 0.1; done
    die "$what"
}
event() { v a events -o event_kind,event_text --noheadings | grep -q "$1"; }
node_start a
disks a 2 64
v a vgcreate vg0 "$work/a/disk1" "$work/a/disk2"
v a lvcreate -an -n web -L 16m -m 1 vg0
wait_for "the hook has not run" grep -qs '^a lv-created vg0/web {.*"kind":"lv-created"' "$work/notes"
! grep -q vg-created "$work/notes" || die "it ran on what was not asked for"
began=$(now_ms)
v a lvrename vg0/web www
[ $(($(now_ms) - began)) -lt 900 ] || die "a slow hook holds a verb up"
wait_for "a hook that takes too long is not killed" event '^ *hook-failed .*killed after 1 s'
gone() { ! kill -0 "$(cat "$work/sleeper")" 2>/dev/null; }
wait_for "what the hook has started is still there" gone
v a vgrename vg0 vg1
wait_for "a failing hook is not told of" event 'hook-failed .*exit code 7'
[ "$(v a events -o event_kind --noheadings | grep -c hook-failed)" = 2 ] || die "events about hooks run no hooks"

# A new configuration, one that makes no sense, and a filter.
kill -HUP "${pid_of[a]}"
wait_for "no reload" event '^ *reloaded .*read again$'
cat >"$CONFIG" <<TOML
metrics = "127.0.0.1:1"
[[hook]]
events = ["vg-renamed"]
program = "$work/hook"
args = ["note", "$work/notes2"]
TOML
kill -HUP "${pid_of[a]}"
wait_for "no word of what only a restart changes" event '^ *reloaded .*only a restart changes: metrics'
v a vgrename vg1 vg0
wait_for "the new hook has not run" grep -qs 'vg-renamed vg0' "$work/notes2"
echo 'nonsense = 1' >"$CONFIG"
kill -HUP "${pid_of[a]}"
wait_for "no word of a bad configuration" event 'reload-failed .*nonsense.*nothing changed'
kill -0 "${pid_of[a]}" || die "a bad configuration ends the daemon"

v a lvchange -ay vg0/www
[ "$(v a logfilter)" = info ] || die "the filter is $(v a logfilter)"
head -c 1048576 /dev/urandom >"$work/data"
copy() { qemu-img convert -n -f raw -O raw "$work/data" "$(uri a vg0/www)"; }
copy
! grep -q 'volmgr::request' "$work/a.log" || die "requests are traced unasked"
status=0
v a logfilter 'volmgr=[' 2>"$work/err" || status=$?
[ $status = 3 ] || die "a filter that makes no sense: status $status, $(cat "$work/err")"
v a logfilter info,volmgr::request=trace
copy
grep -q 'request{volume=vg0/www op=Write offset=[0-9]* bytes=[0-9]* origin=[A-Za-z]*}: volmgr::request: close time.busy=' "$work/a.log" ||
    die "no traces: $(grep volmgr::request "$work/a.log" | head -n 3)"
! grep -q 'volmgr::disk' "$work/a.log" || die "disks are traced unasked"
v a logfilter --reset
lines=$(grep -c volmgr::request "$work/a.log")
copy
[ "$(grep -c volmgr::request "$work/a.log")" = "$lines" ] || die "still traced"

# Trees; colour only for those who look.
v a lvdisplay vg0/www >"$work/tree"
for words in '^vg0/www  16.00m  ok  ' 'plex0  concatenated  active$' 'disk  .*disk1  extents 1-4$' 'log  '; do
    grep -qE "$words" "$work/tree" || die "lvdisplay without '$words': $(cat "$work/tree")"
done
v a status >"$work/status"
grep -q '^node a  ' "$work/status" && grep -q 'group vg0  ok  2 disk(s)' "$work/status" && grep -q '─ vg0/www  16.00m  ok' "$work/status" ||
    die "status: $(cat "$work/status")"
! grep -q $'\x1b' "$work/tree" "$work/status" || die "colour in a file"
if command -v script >/dev/null; then
    TERM=xterm script -qec "'$bin/volmgr' --socket '$work/a/volmgrd.sock' lvdisplay vg0/www" /dev/null >"$work/coloured" </dev/null
    grep -q $'\x1b\\[32mactive\x1b\\[0m' "$work/coloured" || die "no colour on a terminal: $(cat -v "$work/coloured")"
    TERM=xterm timeout 10 script -qec "'$bin/volmgr' --socket '$work/a/volmgrd.sock' top -n 2 -d 0.2" /dev/null >"$work/coloured" </dev/null
    [ "$(grep -c $'\x1b\\[H' "$work/coloured")" = 2 ] || die "top draws the screen anew: $(cat -v "$work/coloured")"
fi
v a lvchange --offline plex1 vg0/www
v a lvdisplay vg0/www | grep -q 'plex1  concatenated  offline' || die "an offline plex"

node_stop a
echo >"$CONFIG"
mv "$work/a/disk1" "$work/late1"
mv "$work/a/disk2" "$work/late2"
node_start a
event 'hook-failed .*exit code 7' || die "events do not survive a restart"

# Disks that come late: what was active then is active again, with vgscan as udev has it run.
[ -z "$(v a lvs --noheadings)" ] || die "a group without disks"
mv "$work/late1" "$work/a/disk1"
mv "$work/late2" "$work/a/disk2"
v a vgscan
[ "$(ask a lvs -o lv_active vg0/www)" = active ] || die "not activated when its disks came"
node_stop a
printf '[scan]\nwait = 20\n' >"$CONFIG"
mv "$work/a/disk1" "$work/late1"
(sleep 1.5; mv "$work/late1" "$work/a/disk1") &
node_start a
wait_for "not active" sh -c "'$bin/volmgr' --socket '$work/a/volmgrd.sock' lvs --noheadings -o lv_active,lv_health vg0/www | grep -q 'active *degraded'"
[ "$(ask a plexs -o plex_state vg0/www | tr '\n' ' ')" = "active offline " ] || die "a disk that came in time counts as missing: $(v a plexs)"
