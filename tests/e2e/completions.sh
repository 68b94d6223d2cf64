# limit: 180
# Completion in a real bash: verbs, options, words, and the names of volumes, groups, disks, plexes and peers; without a daemon
# everything but names. The other shells' scripts are read by those that are installed.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 2 64
v a vgcreate vgalpha "$work/a/disk1" "$work/a/disk2" >/dev/null
v a lvcreate -a n -n web -L 8m -m 1 vgalpha >/dev/null
v a lvcreate -a n -n database -L 8m vgalpha >/dev/null
v a peeradd elsewhere 127.0.0.1:1 --fingerprint "$(ask a nodeshow -o node_fingerprint)" >/dev/null
export VOLMGR_SOCKET=$work/a/volmgrd.sock
cat >"$work/tab" <<'BASH'
# tab WORD...: what bash would offer for the last word.
source <("$1" completions bash)
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_volmgr
printf '%s\n' "${COMPREPLY[@]}"
BASH
tab() { # expected, one word each, then -- and the words
    local expected=()
    while [ "$1" != -- ]; do expected+=("$1"); shift; done
    shift
    local got
    got=$(bash "$work/tab" "$bin/volmgr" "$@" 2>&1 | grep . | tr '\n' ' ' || true)
    [ "$got" = "${expected[*]:+${expected[*]} }" ] || die "Tab after '$*' gives '$got', not '${expected[*]:-}'"
}
tab feedattach -- feeda
tab vgalpha/database vgalpha/web -- lvremove vgalpha/
tab vgalpha/web -- lvremove -y vgalpha/database vgalpha/w
tab vgalpha -- vgremove ''
tab vgalpha -- lvcreate -n new -L 1g ''
tab elsewhere -- feedattach vgalpha/web ''
tab elsewhere -- peerremove e
tab plex0 plex1 -- plexdetach vgalpha/web ''
tab plex0 -- plexdetach vgalpha/database ''
tab ublk nbd both -- lvchange -ay --frontend ''
tab --mirrors -- lvcreate --mirr
tab lv_name -- lvs -o lv_na
tab +lv_name,lv_path -- lvs -o +lv_name,lv_pat
bash "$work/tab" "$bin/volmgr" vgextend vgalpha "$work/a/di" >"$work/offered"
grep -q "^$work/a/disk2" "$work/offered" || die "no disks are offered"
touch "$work/backup.txt"
tab "$work/backup.txt" -- vgcfgrestore -f "$work/back"
export VOLMGR_SOCKET=$work/nobody
tab lvrename -- lvren
tab -- lvremove v # no names, and no complaint
for shell in zsh fish; do
    "$bin/volmgr" completions $shell >"$work/script"
    if command -v $shell >/dev/null; then $shell -n "$work/script" || die "$shell cannot read its script"; fi
done
