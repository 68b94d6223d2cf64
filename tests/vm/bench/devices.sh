# limit: 1500
# memory: 3072
# needs: fio mdadm
# Block devices side by side in one kernel, on RAM disks of one kind, no scheduler anywhere, in interleaved rounds: our volume
# with one plex beside `rublk add loop`, with and without zero copy; our mirror beside md raid1, with and without its bitmap.
# ROUNDS, EACH (seconds) and PATTERNS may be set. Only the ratios mean anything: the processor is emulated.
. /job/guest.sh
[ ! -e /job/vars ] || . /job/vars
rounds=${ROUNDS:-3} each=${EACH:-2} size=128
modprobe ublk_drv
modprobe raid1
ram_disks 9 $((size + 32))
declare -A device_of=() server_of=()
order=()
add() { device_of[$1]=$2; server_of[$1]=$3; order+=("$1"); } # name device pid-or-empty

node_start a
v a -q vgcreate vg /dev/ram0 /dev/ram1 /dev/ram2
v a -q lvcreate -n one -L ${size}m vg /dev/ram0
v a -q lvcreate -n two -L ${size}m -m 1 vg /dev/ram1 /dev/ram2
mode=$(value a lvs vg/one -o lv_io_mode)
add volmgr "$(readlink /dev/volmgr/vg/one)" "$pid_a"
rublk=$bin/rublk
rublk_add() { # name number options...: the device, or why there is none
    local name=$1 number=$2 disk=$3; shift 3
    if [ ! -x "$rublk" ]; then echo "figure: $name is left out: no rublk (tests/vm/bench/run installs it)"; return; fi
    "$rublk" add loop -n "$number" -f "$disk" "$@" --foreground >"/job/out/$name.log" 2>&1 </dev/null & local server=$!
    for _ in $(seq 100); do [ -b "/dev/ublkb$number" ] && break; sleep 0.1; done
    if [ -b "/dev/ublkb$number" ]; then
        add "$name" "/dev/ublkb$number" "$server"
    else
        echo "figure: $name is left out on $(uname -r): $(tr -d '\r' <"/job/out/$name.log" | grep -v '^ *$' | tail -n 1)"
    fi
}
rublk_add rublk-z 20 /dev/ram3 -z
rublk_add rublk 21 /dev/ram4
add volmgr-mirror "$(readlink /dev/volmgr/vg/two)" "$pid_a"
raid() { # name device bitmap disks...
    local name=$1 device=$2 bitmap=$3; shift 3
    mdadm --create "$device" --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean --bitmap="$bitmap" "$@" \
        >"/job/out/$name.log" 2>&1 </dev/null || { echo "figure: $name is left out: $(tail -n 1 "/job/out/$name.log")"; return; }
    add "$name" "$device" ""
}
raid md-bitmap /dev/md10 internal /dev/ram5 /dev/ram6
raid md /dev/md11 none /dev/ram7 /dev/ram8
for queue in /sys/block/{ram,ublkb,md}*/queue/scheduler; do [ -w "$queue" ] && echo none >"$queue" 2>/dev/null || true; done
for name in "${order[@]}"; do dd if=/dev/zero of="${device_of[$name]}" bs=1M count=$((size - 8)) oflag=direct status=none; done
echo "figure: $(uname -r), volmgr moves its payload by $mode; $rounds rounds of $each s; CPU is emulated, so only the ratios count"

sectors() { awk '{print $3 + $7}' "/sys/block/${1##*/}/stat"; }
busy() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8; exit}' /proc/stat; } # of the whole machine, in 1/100 s
of_process() { if [ -n "$1" ]; then sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; else echo 0; fi; }
milliseconds() { awk '{printf "%d", $1 * 1000}' /proc/uptime; }

# measure ROUND PATTERN RW BS DEPTH NAME: what passes the device in a window in which the program is at full speed.
measure() {
    local device=${device_of[$6]} server=${server_of[$6]} s0 b0 p0 t0 s1 b1 p1 t1 fio before
    before=$(sectors "$device")
    fio --name=x --filename="$device" --rw="$3" --bs="$4" --iodepth="$5" --size=$((size - 8))m --ioengine=libaio --direct=1 \
        --time_based --runtime=300 --output=/dev/null </dev/null >/dev/null 2>&1 & fio=$!
    # It reads a little before it begins; then it takes a moment to get going.
    for _ in $(seq 600); do [ $(($(sectors "$device") - before)) -gt 2000 ] && break; kill -0 $fio || die "fio on $6"; sleep 0.05; done
    sleep 0.3
    s0=$(sectors "$device") b0=$(busy) p0=$(of_process "$server") t0=$(milliseconds)
    sleep "$each"
    s1=$(sectors "$device") b1=$(busy) p1=$(of_process "$server") t1=$(milliseconds)
    kill -INT $fio; wait $fio 2>/dev/null || true
    awk -v r="$1" -v p="$2" -v n="$6" -v s=$((s1 - s0)) -v bs="${4%k}" -v ms=$((t1 - t0)) -v b=$((b1 - b0)) -v d=$((p1 - p0)) \
        'BEGIN {ops = s / 2 / bs; if (ops < 1) ops = 1; printf "%d %s %s %.1f %.1f %.1f\n", r, p, n, ops * 1000 / ms, b * 10000 / ops, d * 10000 / ops}' \
        >>/tmp/figures
}

table() { # pattern ours others...: medians, and the ratio of ours to each other within a round (least..most)
    local pattern=$1 ours=$2; shift 2
    awk -v p="$pattern" -v ours="$ours" -v others="$*" '
        function sorted(list, n,   i, j, x) { for (i = 2; i <= n; i++) { x = list[i]; for (j = i - 1; j > 0 && list[j] > x; j--) list[j + 1] = list[j]; list[j + 1] = x } }
        function median(list, n) { sorted(list, n); return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2 }
        $2 == p { rate[$3, $1] = $4; cpu[$3, $1] = $5; own[$3, $1] = $6; if ($1 > rounds) rounds = $1 }
        END {
            n = split(ours " " others, names, " ")
            for (k = 1; k <= n; k++) {
                name = names[k]; m = 0
                for (r = 1; r <= rounds; r++) if ((name, r) in rate) {
                    m++; a[m] = rate[name, r]; c[m] = cpu[name, r]; o[m] = own[name, r]
                    q[m] = rate[name, r] > 0 ? rate[ours, r] / rate[name, r] : 0
                }
                if (!m) continue
                line = sprintf("%-18s %-14s %9.0f/s  %7.0f us busy, %7.0f us server an op", k == 1 ? p : "", name, median(a, m), median(c, m), median(o, m))
                if (k > 1) { x = median(q, m); line = line sprintf("   ours/its %.2f (%.2f..%.2f)", x, q[1], q[m]) }
                print "figure: " line
            }
        }' /tmp/figures
}

patterns=${PATTERNS:-"randread,4k,1 randwrite,4k,1 randread,4k,32 randwrite,4k,32 read,128k,8 write,128k,8 read,1024k,4 write,1024k,4"}
for round in $(seq "$rounds"); do
    for pattern in $patterns; do
        IFS=, read -r rw bs depth <<<"$pattern"
        for name in "${order[@]}"; do measure "$round" "$rw-$bs-qd$depth" "$rw" "$bs" "$depth" "$name"; done
    done
done
for pattern in $patterns; do
    IFS=, read -r rw bs depth <<<"$pattern"
    table "$rw-$bs-qd$depth" volmgr rublk-z rublk
    table "$rw-$bs-qd$depth" volmgr-mirror md-bitmap md
done
cp /tmp/figures /job/out/figures
