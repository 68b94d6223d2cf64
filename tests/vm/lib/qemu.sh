# One or two guests for a case. Sourced by run; needs KERNEL_DIR, KERNEL_VERSION, out_top, scratch, header.

# Starts guest `node` in the background; its process is the last one in `guests`.
guest_start() { # out case node limit
    local out=$1 name=$2 node=$3 limit=$4 memory mib n=0 extra=() image
    memory=$(header "$name" memory)
    for mib in $(header "$name" disks); do
        image=$out/disk-$node-$n
        truncate -s "${mib}M" "$image"
        extra+=(-drive "file=$image,if=virtio,format=raw,cache=unsafe,discard=unmap")
        n=$((n + 1))
    done
    if [ "$(header "$name" nodes)" = 2 ]; then
        local peer=b mac=52:54:00:00:00:0a
        [ "$node" = a ] || { peer=a; mac=52:54:00:00:00:0b; }
        # Frames as datagrams between the two emulators: no order in which they must start, no port that is taken.
        extra+=(-netdev "dgram,id=n0,local.type=unix,local.path=$scratch/net-$node,remote.type=unix,remote.path=$scratch/net-$peer"
            -device "virtio-net-pci,netdev=n0,mac=$mac")
    else
        extra+=(-nic none)
    fi
    # Two phases of that length, where systemd is between them, and time to start and end.
    [ "$(header "$name" init)" != systemd ] || limit=$((limit * 2 + 60))
    # The host may be busy: the kernel does without its test of the timer, and waits longer before it says that a task has not run.
    timeout -k 5 $((limit + 90)) qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m "${memory:-2048}" \
        -kernel "$KERNEL_DIR/vmlinuz" -initrd "$out_top/initrd-$KERNEL_VERSION.gz" \
        -append "console=ttyS0 quiet panic=-1 no_timer_check rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60 vm_node=$node" -display none -vga none -serial "file:$out/serial-$node" -monitor none -no-reboot \
        -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$KERNEL_DIR/x,mount_tag=mods,security_model=none,readonly=on" \
        -virtfs "local,path=$out/job,mount_tag=job,security_model=none" "${extra[@]}" </dev/null >"$out/qemu-$node" 2>&1 &
    guests+=($!)
}

# Runs the guests of a case until they have powered off, or their time is over. Guest a runs the case and leaves `job/result`.
# False where a guest was lost before its first script: the case has not begun then.
guests_run() { # out case limit
    local out=$1 name=$2 limit=$3 node nodes=(a) booted=0
    rm -rf "$scratch"/net-* "$out"/job/out/* "$out"/job/calls/*
    guests=()
    [ "$(header "$name" nodes)" != 2 ] || nodes=(b a)
    for node in "${nodes[@]}"; do guest_start "$out" "$name" "$node" "$limit"; done
    if guests_boot "$out"; then
        # The last one is a. When it has gone, so has the case; b has been told, or will never be. Without b, a would wait for it.
        while kill -0 "${guests[-1]}" 2>/dev/null; do
            if ! kill -0 "${guests[0]}" 2>/dev/null && [ ! -e "$out/job/calls/end" ]; then
                sleep 20
                [ -e "$out/job/calls/end" ] || [ -e "$out/job/result" ] || { echo "FAILED: guest b has gone" >>"$out/job/out/output"; break; }
            fi
            sleep 1
        done
        for _ in $(seq 100); do
            [ "$(header "$name" nodes)" = 2 ] && kill -0 "${guests[0]}" 2>/dev/null || break
            sleep 0.1
        done
    else
        booted=1
    fi
    guests_end
    rm -f "$out"/disk-*
    return $booted
}

# Waits until each of the `nodes` runs its first script; false where its emulator ends before, or nothing comes of it.
guests_boot() { # out
    local i deadline=$((SECONDS + 180))
    for i in "${!nodes[@]}"; do
        until [ -e "$1/job/out/dmesg-${nodes[i]}" ]; do
            if [ $SECONDS -gt $deadline ] || ! kill -0 "${guests[i]}" 2>/dev/null; then
                [ -e "$1/job/out/dmesg-${nodes[i]}" ] || return 1 # it may have been a fast one
            fi
            sleep 0.2
        done
    done
}

guests_end() { # they are children of `timeout`, which passes this on and has the means to enforce it
    for pid in "${guests[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${guests[@]}"; do wait "$pid" 2>/dev/null || true; done
    guests=()
}
