# Fetches a Debian kernel by package into the cache, without touching the machine's own packages.
# kernel_fetch SUITE  -> sets KERNEL_DIR (vmlinuz, x/) and KERNEL_VERSION. apt checks the signatures. Runs at the same time wait for
# each other here.

cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/volmgr-vm}

kernel_fetch() {
    local lock
    mkdir -p "$cache"
    exec {lock}>"$cache/lock"
    flock -w 1200 "$lock" || { echo "vm: another run has been fetching a kernel for 20 minutes ($cache/lock)" >&2; return 1; }
    kernel_fetch_locked "$1" || { exec {lock}>&-; return 1; }
    exec {lock}>&-
}

kernel_fetch_locked() {
    local suite=$1 sources uri dir options version deb
    sources=/etc/apt/sources.list.d/debian.sources
    uri=$(awk '/^URIs:/{print $2; exit}' "$sources" 2>/dev/null || true)
    [ -n "$uri" ] || uri=$(awk '$1=="deb"{for(i=2;i<=NF;i++) if ($i ~ /:\/\//) {print $i; exit}}' /etc/apt/sources.list 2>/dev/null || true)
    [ -n "$uri" ] || { echo "vm: no Debian package source on this machine to fetch a kernel from" >&2; return 1; }
    dir=$cache/apt-$suite
    mkdir -p "$dir/etc" "$dir/lists/partial" "$dir/cache/archives/partial"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
        "$uri" "$suite" >"$dir/etc/kernel.sources"
    options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/etc" -o Dir::State::lists="$dir/lists"
        -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root -qq)
    timeout 300 apt-get "${options[@]}" update >"$dir/log" 2>&1 || { tail -n 3 "$dir/log" >&2; return 1; }
    version=$(apt-cache "${options[@]}" depends linux-image-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
    version=${version#linux-image-}
    [ -n "$version" ] || { echo "vm: suite $suite has no linux-image-amd64" >&2; return 1; }
    KERNEL_VERSION=$version
    KERNEL_DIR=$cache/$version
    [ -f "$KERNEL_DIR/complete" ] && return 0
    rm -rf "$KERNEL_DIR" "$KERNEL_DIR.new"
    mkdir -p "$KERNEL_DIR.new/debs"
    # From 7.x on the image package is split into binary and modules.
    (cd "$KERNEL_DIR.new/debs" &&
        { timeout 900 apt-get "${options[@]}" download "linux-binary-$version" "linux-modules-$version" ||
            timeout 900 apt-get "${options[@]}" download "linux-image-$version"; }) >>"$dir/log" 2>&1 ||
        { tail -n 3 "$dir/log" >&2; return 1; }
    for deb in "$KERNEL_DIR.new"/debs/*.deb; do dpkg -x "$deb" "$KERNEL_DIR.new/x"; done
    rm -rf "$KERNEL_DIR.new/debs"
    [ -d "$KERNEL_DIR.new/x/usr/lib/modules" ] || { mkdir -p "$KERNEL_DIR.new/x/usr/lib"; mv "$KERNEL_DIR.new/x/lib/modules" "$KERNEL_DIR.new/x/usr/lib/"; }
    cp "$(find "$KERNEL_DIR.new/x" -name 'vmlinuz*' -type f | head -n 1)" "$KERNEL_DIR.new/vmlinuz"
    depmod -b "$KERNEL_DIR.new/x/usr" "$version" 2>>"$dir/log" || true # the list of built-in modules is in neither package
    touch "$KERNEL_DIR.new/complete"
    mv "$KERNEL_DIR.new" "$KERNEL_DIR"
}

# The few modules needed to reach the host's files; everything else comes by modprobe from there.
kernel_initrd() { # output file
    local tree module found
    tree=$(mktemp -d)
    mkdir -p "$tree"/{bin,dev,proc,sys,ro,mods,tmpfs,newroot,job,m}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    for module in failover net_failover virtio_net virtio_blk netfs 9pnet 9pnet_virtio 9p overlay; do
        found=$(find "$KERNEL_DIR/x/usr/lib/modules/$KERNEL_VERSION/kernel" -name "$module.ko*" | head -n 1)
        [ -n "$found" ] || continue # built in
        case $found in
        *.xz) xz -dc "$found" ;;
        *.zst) zstd -qdc "$found" ;;
        *) cat "$found" ;;
        esac >"$tree/m/$(printf %02d "$(find "$tree/m" -type f | wc -l)")-$module.ko"
    done
    cp "$vm_dir/lib/init" "$tree/init"
    chmod 755 "$tree/init"
    (cd "$tree" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$1.$$"
    mv "$1.$$" "$1" # whole, also for a run that starts a guest now
    rm -rf "$tree"
}
