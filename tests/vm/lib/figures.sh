# Sourced by what measures block devices in a guest: who is measured (`add`), how fast and at which cost in a window (`measure`),
# medians and ratios (`table`). Wants `each` (seconds of a window), `rounds`, and `size` (MiB of the devices).
declare -A device_of=() servers_of=()
order=()
add() { device_of[$1]=$2; servers_of[$1]=$3; order+=("$1"); } # name device pids-or-empty

no_schedulers() { # of all the kinds of disks that may be measured
    local queue
    for queue in /sys/block/{ram,ublkb,md,drbd}*/queue/scheduler; do
        [ ! -w "$queue" ] || echo none >"$queue" 2>/dev/null || true
    done
}

sectors() { awk '{print $3 + $7}' "/sys/block/${1##*/}/stat"; }
busy() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8; exit}' /proc/stat; } # of the whole machine, in 1/100 s
of_processes() { # pids...: 1/100 s of processor time that they have used
    local pid
    for pid in "$@"; do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{n += $12 + $13} END {print n + 0}'
}
milliseconds() { awk '{printf "%d", $1 * 1000}' /proc/uptime; }

# measure ROUND PATTERN RW BS DEPTH NAME [JOBS]: what passes the device in a window in which the program is at full speed.
measure() {
    local device=${device_of[$6]} servers=${servers_of[$6]} s0 b0 p0 t0 s1 b1 p1 t1 fio before
    before=$(sectors "$device")
    fio --name=x --filename="$device" --rw="$3" --bs="$4" --iodepth="$5" --numjobs="${7:-1}" --size=$((size - 8))m --ioengine=libaio --direct=1 \
        --time_based --runtime=300 --output=/dev/null </dev/null >/dev/null 2>&1 & fio=$!
    # It reads a little before it begins; then it takes a moment to get going.
    for _ in $(seq 600); do [ $(($(sectors "$device") - before)) -gt 2000 ] && break; kill -0 $fio || die "fio on $6"; sleep 0.05; done
    sleep 0.3
    # shellcheck disable=SC2086
    s0=$(sectors "$device") b0=$(busy) p0=$(of_processes $servers) t0=$(milliseconds)
    sleep "$each"
    # shellcheck disable=SC2086
    s1=$(sectors "$device") b1=$(busy) p1=$(of_processes $servers) t1=$(milliseconds)
    kill -INT $fio; wait $fio 2>/dev/null || true
    awk -v r="$1" -v p="$2" -v n="$6" -v s=$((s1 - s0)) -v bs="${4%k}" -v ms=$((t1 - t0)) -v b=$((b1 - b0)) -v d=$((p1 - p0)) \
        'BEGIN {ops = s / 2 / bs; if (ops < 1) ops = 1; printf "%d %s %s %.1f %.1f %.1f\n", r, p, n, ops * 1000 / ms, b * 10000 / ops, d * 10000 / ops}' \
        >>/job/out/figures
}

# table PATTERN OURS OTHERS...: medians, and the ratio of ours to each other within a round (least..most). A pattern whose name
# begins with `time-` holds milliseconds, so that less is better.
table() {
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
                if (p ~ /^time-/) line = sprintf("%-24s %-14s %9.0f ms", k == 1 ? p : "", name, median(a, m))
                else line = sprintf("%-24s %-14s %9.0f/s  %7.0f us busy, %7.0f us server an op", k == 1 ? p : "", name, median(a, m), median(c, m), median(o, m))
                if (k > 1) { x = median(q, m); line = line sprintf("   ours/its %.2f (%.2f..%.2f)", x, q[1], q[m]) }
                print "figure: " line
            }
        }' /job/out/figures
}
