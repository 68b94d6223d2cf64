#!/usr/bin/env bash
# need.sh WHAT...: names the programs that are missing for `build`, `demo`, `test`, `bench`, `deb`, `vm` or `vmbench`, and installs them where it
# may: as root on Debian or Ubuntu, with apt. Elsewhere it prints what to install and fails. NO_INSTALL=1 only looks.
set -euo pipefail

rust_wanted=1.90
# what: program=package of Debian and Ubuntu ...
declare -A programs=(
    [build]="cc=gcc"
    [demo]="qemu-img=qemu-utils qemu-io=qemu-utils mke2fs=e2fsprogs e2fsck=e2fsprogs debugfs=e2fsprogs"
    [test]="qemu-img=qemu-utils mke2fs=e2fsprogs e2fsck=e2fsprogs debugfs=e2fsprogs nbdcopy=libnbd-bin nbdinfo=libnbd-bin fio=fio socat=socat jq=jq strace=strace"
    [bench]="fio=fio nbdcopy=libnbd-bin nbdkit=nbdkit qemu-img=qemu-utils qemu-nbd=qemu-utils socat=socat"
    [deb]="dpkg-deb=dpkg dpkg-shlibdeps=dpkg-dev strip=binutils xz=xz-utils"
    [vmbench]="fio=fio mdadm=mdadm drbdmeta=drbd-utils clang=clang"
    [vm]="qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio xz=xz-utils depmod=kmod mkfs.ext4=e2fsprogs
        mkfs.xfs=xfsprogs xfs_growfs=xfsprogs mkfs.btrfs=btrfs-progs btrfs=btrfs-progs fio=fio git=git sqlite3=sqlite3 cryptsetup=cryptsetup-bin
        sfdisk=fdisk udevadm=udev nbd-client=nbd-client nbdinfo=libnbd-bin dmsetup=dmsetup pg_ctl=postgresql"
)

say() { printf 'need: %s\n' "$*" >&2; }
have() {
    local place
    command -v "$1" >/dev/null 2>&1 && return 0
    # Debian keeps PostgreSQL's programs in a folder for each version.
    for place in /usr/sbin /sbin /usr/lib/postgresql/*/bin; do [ ! -x "$place/$1" ] || return 0; done
    return 1
}

[ $# -gt 0 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 3; }

missing=() packages=()
for what in "$@"; do
    [ -n "${programs[$what]:-}" ] || { say "no such thing as '$what' (there are: ${!programs[*]})"; exit 3; }
    for pair in ${programs[$what]}; do
        have "${pair%%=*}" && continue
        [[ " ${missing[*]} " == *" ${pair%%=*} "* ]] || missing+=("${pair%%=*}")
        [[ " ${packages[*]} " == *" ${pair##*=} "* ]] || packages+=("${pair##*=}")
    done
done

if [ ${#missing[@]} -gt 0 ]; then
    say "missing: ${missing[*]}"
    if [ "$(id -u)" = 0 ] && have apt-get && [ -z "${NO_INSTALL:-}" ]; then
        say "installing: ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt=(timeout 600 apt-get -q -y -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0)
        "${apt[@]}" install --no-install-recommends "${packages[@]}" >&2 || {
            # Package lists that are old or not there are the usual reason.
            "${apt[@]}" update >&2
            "${apt[@]}" install --no-install-recommends "${packages[@]}" >&2
        }
        for program in "${missing[@]}"; do
            have "$program" || { say "$program is still missing"; exit 1; }
        done
    else
        say "on Debian or Ubuntu: apt install ${packages[*]}"
        exit 1
    fi
fi

[[ " $* " == *" build "* ]] || exit 0
new_enough() {
    rust=$(cargo --version 2>/dev/null | awk '{print $2}') || true
    [ -n "$rust" ] && [ "$(printf '%s\n' "$rust_wanted" "$rust" | sort -V | head -n 1)" = "$rust_wanted" ]
}
# Where the distribution has rustup, that brings a Rust that is new enough; its own one seldom is.
if ! new_enough && [ "$(id -u)" = 0 ] && [ -z "${NO_INSTALL:-}" ] && have apt-cache &&
    apt-cache show rustup >/dev/null 2>&1; then
    say "installing Rust with the package rustup"
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -q -y install --no-install-recommends rustup >&2
    timeout 900 rustup toolchain install stable --profile minimal --component clippy,rustfmt >&2
    rustup default stable >&2
fi
new_enough || {
    say "Rust $rust_wanted or newer is needed, found: ${rust:-none} (https://rustup.rs)"
    exit 1
}
