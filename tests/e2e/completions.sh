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

# The other shells, where they are installed: their scripts are read, and in a running shell Tab puts in what the program says.
export VOLMGR_SOCKET=$work/a/volmgrd.sock PATH="$bin:$PATH" HOME=$work
for shell in zsh fish; do
    "$bin/volmgr" completions $shell >"$work/_volmgr.$shell"
    command -v $shell >/dev/null || { echo "figure: $shell is not installed: its completion was not run"; continue; }
    $shell -n "$work/_volmgr.$shell" || die "$shell cannot read its script"
done
if command -v fish >/dev/null; then
    tab_fish() { # line expected...
        local line=$1; shift
        local got
        got=$(timeout 20 fish -N -c "source '$work/_volmgr.fish'; complete -C '$line'" | cut -f 1 | sort | tr '\n' ' ')
        [ "$got" = "$* " ] || die "fish: Tab after '$line' gives '$got', not '$*'"
    }
    tab_fish 'volmgr lvremove vgalpha/' vgalpha/database vgalpha/web
    tab_fish 'volmgr feedattach vgalpha/web e' elsewhere
    tab_fish 'volmgr feeda' feedattach
    tab_fish 'volmgr lvcreate --mirr' --mirrors
fi
if command -v zsh >/dev/null; then
    cat >"$work/zsh-tab" <<'ZSH'
# zsh-tab SCRIPT LOG LINE...: each line with Tab behind it, typed at a terminal; what was called in the end goes to the log.
script=$1 log=$2
shift 2
zmodload zsh/zpty
zpty shell "TERM=dumb zsh -f -i"
type_in() { zpty -w "$@"; }
type_in shell "autoload -Uz compinit; compinit -u -D; . $script"
type_in shell "volmgr() { if [[ \$1 == complete ]]; then command volmgr \"\$@\"; else print -r -- \"\$*\" >>$log; fi }"
for line; do
    lines=$(wc -l <$log)
    type_in -n shell "$line"$'\t'
    sleep 1 # a Tab that comes with the end of the line is pasted text
    type_in -n shell $'\n'
    for _ in {1..100}; do
        (( $(wc -l <$log) > lines )) && break
        zpty -r -t shell said && seen+=$said
        sleep 0.1
    done
done
zpty -d shell
ZSH
    : >"$work/called"
    timeout 60 zsh -f "$work/zsh-tab" "$work/_volmgr.zsh" "$work/called" 'volmgr lvremove vgalpha/w' 'volmgr feedattach vgalpha/web e' 'volmgr lvcreate --mirr' ||
        die "zsh at a terminal"
    printf '%s\n' 'lvremove vgalpha/web' 'feedattach vgalpha/web elsewhere' 'lvcreate --mirrors' >"$work/expected"
    sed 's/ *$//' "$work/called" | cmp - "$work/expected" || die "zsh: Tab gives: $(cat "$work/called")"
fi
