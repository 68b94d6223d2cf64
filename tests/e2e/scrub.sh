# limit: 120
# Blocks that rot silently: plexsync --verify says which plexes differ where, and on which disk; with three plexes the majority mends them, under
# load; with two nobody is believed unless the admin names a plex, or a peer whose copy one of them equals. feedverify says where, too.
set -euo pipefail
[ -d /dev/shm ] && [ "$(df -m --output=avail /dev/shm | tail -n 1)" -gt 1024 ] && export TMPDIR=/dev/shm
. "$top/tests/lib/nodes.sh"
for p in nbdcopy qemu-io; do command -v $p >/dev/null || skip "$p is not installed"; done
node_start a; node_start b
disks a 3 64; disks b 2 64
v a vgcreate -s 1m vga "$work"/a/disk{1,2,3} >/dev/null
v b vgcreate -s 1m vgb "$work"/b/disk{1,2} >/dev/null
trust a b plaintext
head -c 8M /dev/urandom >"$work/data"

at() { # node LV plex offset: disk, and where on it
    v "$1" plexs "$2" --noheadings --units b --nosuffix -o plex_name,plex_segments | awk -v p="$3" -v o="$4" '$1 == p { split($2, s, "[:+]"); print s[1], s[2] + o }'
}
rot() { # node LV plex offset [bytes]: that many bytes are others, without a word
    local disk place
    read -r disk place < <(at "$1" "$2" "$3" "$4")
    head -c "${5:-3}" /dev/urandom | dd of="$disk" bs=4k seek="$place" oflag=seek_bytes conv=notrunc status=none
}
refused() { # status words-to-be-said verb...: and says so
    local status=0 want=$1 words=$2
    shift 2
    v a "$@" >"$work/out" 2>&1 || status=$?
    [ $status = "$want" ] || die "$* ended with $status: $(cat "$work/out")"
    grep -q -e "$words" "$work/out" || die "$* does not say '$words': $(cat "$work/out")"
}
says() { grep -qxF "$1" "$work/out" || die "not said: $1: $(cat "$work/out")"; }
equal() { # LV: all plexes, on the disks, and as the content was
    local raw
    rm -f "$work"/raw-*
    "$top/tests/lib/plex-content" "$bin/volmgr" "$work/a/volmgrd.sock" "$1" "$work/raw-"
    for raw in "$work"/raw-*; do cmp -n $((8 << 20)) "$work/data" "$raw" || die "$1: $raw is not as it was after $2"; done
    v a plexsync --verify "$1" >"$work/out" 2>&1 || die "$1 after $2: $(cat "$work/out")"
}
busy() { # LV: a client that writes behind the content, until idle
    rm -f "$work/enough"
    while [ ! -e "$work/enough" ]; do
        qemu-io -f raw -c "write -q -P $((RANDOM % 250)) $((8192 + RANDOM % 4000))k 16k" -c "write -q -P $((RANDOM % 250)) 9m 4k" "$(uri a "$1")" >/dev/null || exit
    done & busy=$!
}
idle() { touch "$work/enough"; wait $busy || true; }
event() { v a events | grep "$1" >/dev/null || die "no event $1: $(v a events | tail -n 5)"; }

# Three plexes: a block of one, two neighbouring ones of another.
v a lvcreate -n three -L 12m -m 2 vga >/dev/null
nbdcopy --flush "$work/data" "$(uri a vga/three)"
rot a vga/three plex1 $((3 << 20))
rot a vga/three plex0 $(((5 << 20) + 4090)) 12
refused 5 '--repair makes them equal' plexsync --verify vga/three
says "vga/three: plexes differ at byte $((3 << 20)), 4096 bytes: plex0, plex2 against plex1"
says "vga/three: plexes differ at byte $((5 << 20)), 8192 bytes: plex0 against plex1, plex2"
for plex in plex0 plex1 plex2; do
    read -r disk place < <(at a vga/three $plex $((3 << 20)))
    says "  $plex subdisk 0 on $disk: 4096 bytes at byte $place"
done
[ "$(grep -c 'plexes differ at' "$work/out")" = 2 ] || die "more than what differs: $(cat "$work/out")"
event plexes-differ
# The same for programs: a document, and nothing else, with a row for each place on a disk.
rows() { # verb...: "VG/LV start bytes sides state plex subdisk pv pv-start pv-bytes" by line, and the status
    local status=0
    v a "$@" --reportformat json >"$work/json" 2>"$work/complaint" || status=$?
    python3 -c 'import json, sys
for r in json.load(open(sys.argv[1]))["report"][0]["difference"]:
    d = "difference_"
    print("/".join([r["vg_name"], r["lv_name"]]), r[d + "start"], r[d + "bytes"], "|".join([r[d + "sides"], r[d + "state"]]), r["plex_name"],
        r["subdisk_number"], r["pv_name"], r[d + "pv_start"], r[d + "pv_bytes"])' "$work/json" >"$work/out" || die "not a document: $(cat "$work/json")"
    echo "$status" >"$work/status"
}
rows plexsync --verify vga/three
[ "$(cat "$work/status")" = 5 ] || die "ended with $(cat "$work/status")"
grep -q 'its plexes differ' "$work/complaint" || die "no word of it: $(cat "$work/complaint")"
for plex in plex0 plex1 plex2; do
    read -r disk place < <(at a vga/three $plex $((3 << 20)))
    says "vga/three $((3 << 20)) 4096 plex0, plex2 against plex1|differs $plex 0 $disk $place 4096"
done
[ "$(wc -l <"$work/out")" = 6 ] || die "not two ranges on three plexes: $(cat "$work/out")"
v a -t plexsync --verify --repair vga/three | grep 'would compare' >/dev/null || die "--test says nothing"
refused 5 'its plexes differ' plexsync --verify vga/three
refused 3 'verify' plexsync --repair vga/three

# Mended while a client writes behind the content; nothing else looks different meanwhile.
busy vga/three
v a plexsync --verify --repair vga/three >"$work/out" 2>&1 || die "$(cat "$work/out")"
says "vga/three: plexes differ at byte $((3 << 20)), 4096 bytes: plex0, plex2 against plex1; made equal to plex0"
says "vga/three: plexes differ at byte $((5 << 20)), 8192 bytes: plex0 against plex1, plex2; made equal to plex1"
[ "$(grep -c 'plexes differ at' "$work/out")" = 2 ] || die "a false alarm: $(cat "$work/out")"
event plexes-repaired
node_kill a # what was said to be repaired stays so
idle
node_start a
for _ in $(seq 100); do [ "$(ask a lvs vga/three -o lv_active)" = active ] && break; sleep 0.1; done
equal vga/three "the majority's repair"
# Two of three rot in the same block: there is no majority.
rot a vga/three plex0 4096; rot a vga/three plex1 4096
refused 5 'no content is that of more than half of 3' plexsync --verify --repair vga/three
says "vga/three: plexes differ at byte 4096, 4096 bytes: plex0 against plex1 against plex2"
v a plexsync --verify --repair --believe plex2 vga/three >/dev/null
equal vga/three "plex2's word"

# Two plexes: nobody is believed unasked.
v a lvcreate -n two -L 12m -m 1 vga >/dev/null
nbdcopy --flush "$work/data" "$(uri a vga/two)"
rot a vga/two plex0 $((1 << 20))
refused 5 '--repair --believe PLEX' plexsync --verify vga/two
refused 5 'more than half of 2' plexsync --verify --repair vga/two
refused 5 'its plexes differ' plexsync --verify vga/two
refused 5 'it has no plex7' plexsync --verify --repair --believe plex7 vga/two
v a plexsync --verify --repair --believe plex1 vga/two >/dev/null
equal vga/two "plex1's word"
v a lvchange --offline plex1 vga/two
refused 5 'two are needed' plexsync --verify --repair --believe plex0 vga/two
v a lvchange --online plex1 vga/two
v a plexsync vga/two >/dev/null

# A peer says which of two is right, and only that.
v a feedattach vga/two b:vgb/two --create >/dev/null
v a feedwait vga/two b --timeout 60 >/dev/null
v a plexsync --verify --repair --peer b vga/two >/dev/null
rot a vga/two plex1 $((2 << 20)) 9000
busy vga/two
v a plexsync --verify --repair --peer b vga/two >"$work/out" 2>&1 || die "$(cat "$work/out")"
[ "$(grep -c 'plexes differ at' "$work/out")" = 1 ] || die "a false alarm: $(cat "$work/out")"
says "vga/two: plexes differ at byte $((2 << 20)), 12288 bytes: plex0 against plex1; made equal to plex0"
# The same over there, where the writes come from the feed.
v b plexattach vgb/two "$work/b/disk2" >/dev/null
v b plexsync vgb/two >/dev/null
rot b vgb/two plex0 $((3 << 20)) 5000
v b plexsync --verify --repair --peer a vgb/two >"$work/out" 2>&1 || die "$(cat "$work/out")"
says "vgb/two: plexes differ at byte $((3 << 20)), 8192 bytes: plex0 against plex1; made equal to plex1"
[ "$(grep -c 'plexes differ at' "$work/out")" = 1 ] || die "a false alarm: $(cat "$work/out")"
idle
v b plexsync --verify vgb/two >/dev/null
v a feedwait vga/two b --timeout 60 >/dev/null
v a feedverify vga/two b >/dev/null || die "the two sides differ"
equal vga/two "the peer's word"
rot a vga/two plex0 $((4 << 20)); rot a vga/two plex1 $((4 << 20))
refused 5 'no plex has what b has' plexsync --verify --repair --peer b vga/two
v a plexsync --verify --repair --believe plex0 vga/two >/dev/null
# That is not what was written: the peer still has it, and feedverify says where that lies here.
refused 5 'the two sides differ' feedverify vga/two b
says "differs: $((4 << 20))+4096 bytes"
read -r disk place < <(at a vga/two plex1 $((4 << 20)))
says "  plex1 subdisk 0 on $disk: 4096 bytes at byte $place"
rows feedverify vga/two b
read -r disk place < <(at a vga/two plex0 $((4 << 20)))
says "vga/two $((4 << 20)) 4096 a against b|differs plex0 0 $disk $place 4096"
echo "ok: scrubbed"
