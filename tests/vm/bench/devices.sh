# limit: 1500
# memory: 3072
# needs: fio mdadm
# Block devices side by side in one kernel, on RAM disks of one kind, no scheduler anywhere, in interleaved rounds: our volume
# with one plex beside `rublk add loop`, with and without zero copy; our mirror beside md raid1, with and without its bitmap.
# ROUNDS, EACH (seconds) and PATTERNS may be set. Only the ratios mean anything: the processor is emulated.
. /job/guest.sh
. /job/figures.sh
[ ! -e /job/vars ] || . /job/vars
rounds=${ROUNDS:-3} each=${EACH:-2} size=128
modprobe ublk_drv
modprobe raid1
ram_disks 9 $((size + 32))

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
no_schedulers
for name in "${order[@]}"; do dd if=/dev/zero of="${device_of[$name]}" bs=1M count=$((size - 8)) oflag=direct status=none; done
echo "figure: $(uname -r), volmgr moves its payload by $mode; $rounds rounds of $each s; CPU is emulated, so only the ratios count"

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
