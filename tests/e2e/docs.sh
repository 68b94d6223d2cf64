# limit: 180
# What README.md and the other documents tell to type (docs/guide.md has a case of its own): README's quick start in its order on two
# nodes; each `volmgr …` of running text; each `VERB --option` there with objects put in, said to be done (--test). What only a
# situation brings is done by the case that makes the situation, and what needs systemd by those in virtual machines: both are held to it.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v qemu-img >/dev/null || skip "qemu-img is not installed"
export PATH="$bin:$PATH"
for n in a b; do
    mkdir -p "$work/$n" "$work/etc-$n"
    node_start $n
done
. "$top/tests/lib/typed.sh"
for n in a b; do for d in sdb sdc sdd sde sdf sdg; do truncate -s 80M "$work/$n/$d"; done; done

# README: what is typed on both first, then the rest.
sed -n '/^## Quick start/,/^## /p' "$top/README.md" >"$work/quick-start.md"
sed -n 's/^    \(volmgr .*\)/\1/p' "$work/quick-start.md" >"$work/both"
[ -s "$work/both" ] || die "README.md has nothing to type on both nodes"
for n in a b; do while IFS= read -r line; do run $n "$line"; done <"$work/both"; done
typed "$work/quick-start.md"
[ $ran -ge 12 ] || die "only $ran commands in README.md"
same "README's restore brings back something else"
v a feedwait vg0/web b --timeout 60
v a feeddetach vg0/web b --point tuesday

# The recording in docs/session.md is one of the guide as it is now.
typed_in() { sed -n 's/^    \([ab]# .*\)/\1/p' "$1" | sed -E 's/sha256:[0-9a-f]{64}|FINGERPRINT-OF-[AB]/FINGERPRINT/; s,/dev/sd,/dev/vd,g; s/ 10g / 48m /'; }
diff <(typed_in "$top/docs/guide.md") <(typed_in "$top/docs/session.md") || die "docs/session.md is not of this guide: run the VM case guide, and keep its session.md"

# Running text.
cat "$top/README.md" "$top"/docs/{guide,operating,troubleshooting,reliability,states,model,formats,performance}.md >"$work/text"
grep -oE '`[^`]+`' "$work/text" | tr -d '`' | sort -u >"$work/spans"
sed -n 's/^    \(volmgr [a-z].*\)/\1/p' "$top"/docs/operating.md >>"$work/spans"
v a help | sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p' >"$work/verbs"
v a lvcreate -n other -L 8m vg0 # without a feed
v a vgextend vg0 "$work/a/sdd" # with nothing on it
v a peeradd c 127.0.0.1:1 --fingerprint "$(fingerprint a)" # without a feed, too
v a vgcreate vg1 "$work/a/sdg" # with nothing in use
v a vgcfgbackup -f "$work/text-of-vg1" vg1
elsewhere() { # pattern, files: the situation is made there
    grep -qE -- "$1" "${@:2}" || die "no test does what the documents tell: $1"
}
objects() { # verb: what it wants, where the text leaves it out
    case $1 in
    feedattach) echo vg0/other b ;;
    feeddetach | feedset | feedswap | feedverify) echo vg0/web b ;;
    lvchange | lvs | plexs | plexsync | points) echo vg0/web ;;
    lvcreate) echo '' -n new -L 4m vg0 ;;
    peeradd) echo d 127.0.0.1:1 --fingerprint "$(printf 'sha256:%064d' 1)" ;;
    peerremove) echo c ;;
    pvcreate) echo "$work/a/sdf" ;;
    pvchange) echo "$work/a/sdd" ;;
    vgextend) echo vg0 "$work/a/sde" ;;
    vgreduce) echo vg0 ;;
    vgcfgrestore) echo -f "$work/text-of-vg1" vg1 ;;
    feeds | pvs | vgs | peers) ;;
    *) die "the test does not know what $1 wants" ;;
    esac
}
told=0
tell() { # words of a command, without "volmgr"
    timeout 30 "$bin/volmgr" --socket "$work/a/volmgrd.sock" "$@" >"$work/said" 2>&1 || die "volmgr $*: status $?: $(cat "$work/said")"
    told=$((told + 1))
}
while IFS= read -r line; do
    case $line in
    'volmgr vgchange --accept-older VG') elsewhere 'vgchange --accept-older' "$top/tests/e2e/recognised.sh" "$top"/tests/e2e/*.sh; continue ;;
    'volmgr feedverify VG/LV PEER --repair' | 'feedverify --repair') elsewhere 'feedverify .*--repair' "$top"/tests/e2e/*.sh; continue ;; # of a live feed
    'feedswap --while-open') elsewhere 'feedswap .*--while-open' "$top"/tests/{e2e,vm/cases}/*.sh; continue ;;
    'systemctl '* | 'journalctl '*) # typed in a machine that systemd runs
        words=($line)
        elsewhere "${words[0]} (.* )?${words[1]} .*volmgrd" "$top"/tests/vm/cases/{package,guide}.sh
        continue ;;
    esac
    line=${line//…/}
    line=${line//VG\/LV/vg0/web}
    line=${line//VERB/lvs}
    line=${line//DISK/$work/a/sdb}
    line=${line//RULE/all:vg0/*}
    line=${line/%VG/vg0}
    line=${line//[\[\]]/}
    line=${line/%--data/--data 127.0.0.1:2}
    set -f
    # shellcheck disable=SC2086
    set -- $line
    set +f
    if [ "$1" = volmgr ] && [ $# -gt 1 ]; then
        shift
        case $* in
        top) tell top -n 1 -d 0.1 ;;
        'events --follow') timeout 2 "$bin/volmgr" --socket "$work/a/volmgrd.sock" "$@" >"$work/said" || [ $? = 124 ]; grep -q lv-created "$work/said" || die "$*" ;;
        '--reportformat json') tell "$@" lvs ;;
        *' '* | status | events | plexs | nodeshow | vgscan) case $1 in
            # shellcheck disable=SC2046
            peeradd | pvchange) tell "$@" $(objects "$1") --test ;;
            *) tell "$@" ;;
            esac ;;
        # shellcheck disable=SC2046
        *) tell --test -y "$1" $(objects "$1") ;;
        esac
    elif [ $# -gt 1 ] && grep -qx -- "$1" "$work/verbs"; then
        # shellcheck disable=SC2046
        tell --test -y "$@" $(objects "$1")
    fi
done <"$work/spans"
[ $told -ge 40 ] || die "only $told commands in running text"
echo "figure: $ran commands of README.md, $told of running text"
