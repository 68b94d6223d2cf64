# limit: 240
# docs/guide.md: its commands, in its order, on two nodes, with the packaged configuration.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v qemu-img >/dev/null || skip "qemu-img is not installed"
export PATH="$bin:$PATH"
for n in a b; do
    mkdir -p "$work/etc-$n"
    config_of[$n]=$work/etc-$n/volmgrd.toml
    # Disks that this test takes away do not come back by waiting.
    sed 's/^wait = 10$/wait = 0/' "$top/dist/volmgrd.toml" >"${config_of[$n]}"
    node_start $n
done
. "$top/tests/lib/typed.sh"
for n in a b; do for d in sdb sdc sdd sde sdf sdg sdh; do truncate -s 80M "$work/$n/$d"; done; done
marker() { # word argument
    case $1 in
    restored) same "the restore brings back something else" ;;
    disk-dies)
        node_stop a
        rm "$work/a/$(basename "$2")"
        node_start a
        v a feedwait vg0/web b --timeout 60 ;;
    machine-dies)
        same "before the machine dies"
        node_kill a
        rm -r "$work/a/state" "$work"/a/sd[bcdeh]
        node_start a ;;
    recovered)
        same "the recovered volume is something else"
        [ "$(ask a lvs -o lv_role vg0/web)$(ask b lvs -o lv_role vg0/web)" = normalfeed ] || die "the roles: $(v a lvs; v b lvs -o +lv_role)" ;;
    *) die "the test does not know the marker $1" ;;
    esac
}
typed "$top/docs/guide.md"
[ $ran -gt 50 ] || die "only $ran commands in the guide"
echo "figure: $ran commands of docs/guide.md"
