# The commands of a document, typed as they stand there, on nodes a and b. Sourced after nodes.sh by cases that have started both, with
# their configuration in $work/etc-NODE and files sdb, sdc, … as their disks. What needs a block device or an init is done in another way:
# mkfs and find by writing a volume, systemctl by ending and starting the daemon. Mounting is left out.

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' "$top/Cargo.toml")
fingerprint() { ask "$1" nodeshow -o node_fingerprint; }
head -c 16M /dev/urandom >"$work/data"
head -c 16M /dev/zero >"$work/empty"
write() { qemu-img convert -n -f raw -O raw "$1" "$(uri a vg0/web)"; }
same() { qemu-img compare -q -f raw -F raw "$work/data" "$(uri a vg0/web)" || die "$1"; }
ran=0

run() { # node command
    local node=$1 line=$2
    case $line in
    volmgr\ *)
        line=${line//\/dev\/sd/$work/$node/sd}
        line=${line//100g/16m}
        line=${line//10g/16m}
        line=${line//192.0.2.1:7750/127.0.0.1:${port_of[a]}}
        line=${line//192.0.2.2:7750/127.0.0.1:${port_of[b]}}
        line=${line//FINGERPRINT-OF-A/$(fingerprint a)}
        line=${line//FINGERPRINT-OF-B/$(fingerprint b)}
        [[ $line != *feedwait* ]] || line+=" --timeout 60"
        VOLMGR_SOCKET=$work/$node/volmgrd.sock timeout 90 bash -c "$line" || die "$node# $2"
        ran=$((ran + 1)) ;;
    mkfs.ext4\ *) write "$work/data" ;;
    find\ *-delete) write "$work/empty" ;;
    "dpkg -i volmgr_$version-1_amd64.deb") ;;
    sed\ -i\ *)
        bash -c "${line//\/etc\/volmgr/$work/etc-$node}"
        grep -qx 'listen = "0.0.0.0:7750"' "${config_of[$node]}" || die "the packaged configuration has no such line for: $line" ;;
    "systemctl restart volmgrd")
        node_stop "$node"
        node_start "$node" ;;
    mkdir\ -p\ /srv/*) bash -c "${line//\/srv/$work/srv}" ;;
    echo\ *fstab)
        bash -c "${line//\/etc\/fstab/$work/fstab}"
        grep -q '^/dev/volmgr/vg0/web /srv/web ext4 ' "$work/fstab" || die "not a line of fstab: $line"
        if command -v systemd-escape >/dev/null; then
            SYSTEMD_FSTAB=$work/fstab sh "$top/dist/systemd/volmgr-generator" "$work/units"
            grep -q After=volmgrd.service "$work/units/srv-web.mount.d/50-volmgr.conf" || die "the generator does not know: $line"
        fi ;;
    "mount /dev/volmgr/vg0/web /srv/web" | "umount /srv/web" | "fsfreeze -f /srv/web" | "fsfreeze -u /srv/web") ;;
    *) die "the test does not know: $line" ;;
    esac
}

# Types what stands behind `a#` and `b#` in a document; its `<!-- test: WORD… -->` call `marker WORD…`.
typed() { # document
    local line
    while IFS= read -r line; do
        case $line in
        '    a# '* | '    b# '*)
            line=${line#    }
            echo "$line"
            run "${line:0:1}" "${line:3}" ;;
        '<!-- test: '*)
            line=${line#<!-- test: }
            # shellcheck disable=SC2086
            marker ${line% -->} ;;
        esac
    done <"$1"
}
