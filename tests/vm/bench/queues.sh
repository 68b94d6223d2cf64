# limit: 900
# memory: 3072
# needs: fio
# Hardware queues: our single-plex volume with one queue beside one with two, and `rublk add loop -z` with one and two (a thread for
# each), on RAM disks of one kind, no scheduler anywhere, in interleaved rounds; one writer or reader, and two.
# ROUNDS and EACH (seconds) may be set. Only the ratios mean anything: the processor is emulated.
. /job/guest.sh
. /job/figures.sh
[ ! -e /job/vars ] || . /job/vars
rounds=${ROUNDS:-3} each=${EACH:-2} size=128
modprobe ublk_drv
ram_disks 4 $((size + 32))
for n in 1 2; do
    printf '[ublk]\nqueues = %s\n' $n >/run/queues-$n
    config_of[q$n]=/run/queues-$n
    node_start q$n
    v q$n -q vgcreate vg$n /dev/ram$((n - 1))
    v q$n -q lvcreate -n one -L ${size}m vg$n
    device=$(readlink "/dev/volmgr/vg$n/one")
    [ "$(ls "/sys/block/${device##*/}/mq" | wc -l)" = $n ] || die "$device has $(ls "/sys/block/${device##*/}/mq" | wc -l) queues"
    pid=pid_q$n
    add "volmgr-q$n" "$device" "${!pid}"
    [ -x "$bin/rublk" ] || continue
    "$bin/rublk" add loop -n 2$n -f "/dev/ram$((n + 1))" -z -q $n --foreground >"/job/out/rublk-q$n.log" 2>&1 </dev/null & server=$!
    wait_for 10 test -b "/dev/ublkb2$n"
    add "rublk-z-q$n" "/dev/ublkb2$n" $server
done
no_schedulers
for name in "${order[@]}"; do dd if=/dev/zero of="${device_of[$name]}" bs=1M count=$((size - 8)) oflag=direct status=none; done
echo "figure: $(uname -r), volmgr moves its payload by $(value q1 lvs vg1/one -o lv_io_mode); $rounds rounds of $each s; two emulated processors"
patterns=${PATTERNS:-"randread,4k,32 randwrite,4k,32 write,128k,8"}
for round in $(seq "$rounds"); do
    for pattern in $patterns; do
        IFS=, read -r rw bs depth <<<"$pattern"
        for jobs in 1 2; do
            for name in "${order[@]}"; do measure "$round" "$rw-$bs-qd$depth-x$jobs" "$rw" "$bs" "$depth" "$name" $jobs; done
        done
    done
done
for pattern in $patterns; do
    IFS=, read -r rw bs depth <<<"$pattern"
    for jobs in 1 2; do
        table "$rw-$bs-qd$depth-x$jobs" volmgr-q2 volmgr-q1
        [ ! -x "$bin/rublk" ] || table "$rw-$bs-qd$depth-x$jobs" volmgr-q1 rublk-z-q1 rublk-z-q2
    done
done
