# limit: 120
# The manual pages, rendered: one for each verb, the daemon and the concepts; groff has nothing to complain about, `man` shows them,
# `whatis` can read their names, and nothing of the markup is left in what a reader sees.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in groff man lexgrog; do command -v $p >/dev/null || skip "$p is not installed"; done
export LC_ALL=C.UTF-8
"$bin/volmgr" man --dir "$work/man"
verbs=$("$bin/volmgr" help | sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$verbs")" -gt 40 ] || die "few verbs: $verbs"
for verb in $verbs; do
    [ "$verb" = help ] || [ -e "$work/man/volmgr-$verb.1" ] || die "no page for $verb"
done
for page in volmgr.1 volmgr.8 volmgrd.8 feedplex.7; do [ -e "$work/man/$page" ] || die "no $page"; done
count=0
for page in "$work"/man/*; do
    name=$(basename "$page")
    groff -Kutf8 -man -ww -Tutf8 -rLL=100n -P-cbou "$page" >"$work/shown" 2>"$work/complaints" || die "$name: $(cat "$work/complaints")"
    [ ! -s "$work/complaints" ] || die "$name: $(head -n 3 "$work/complaints")"
    MANWIDTH=100 man --warnings -P cat -l "$page" >"$work/man-shown" 2>"$work/complaints" || die "man -l $name"
    [ ! -s "$work/complaints" ] || die "man --warnings: $name: $(head -n 3 "$work/complaints")"
    [ "$(wc -l <"$work/man-shown")" -gt 10 ] || die "$name is empty"
    lexgrog "$page" >/dev/null || die "$name: whatis cannot read its name"
    ! grep -nE '^\.[A-Z]{2}\b|\\f[BIRP]|\\-' "$work/shown" || die "$name: markup is left"
    case $name in
    volmgr-*) for section in NAME SYNOPSIS DESCRIPTION OPTIONS EXAMPLES; do
        grep -q "^$section" "$work/shown" || die "$name: no $section"
    done ;;
    esac
    count=$((count + 1))
done
echo "figure: $count manual pages rendered"
