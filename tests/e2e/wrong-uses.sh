# limit: 300
# Wrong uses, a table: exit code, what the one line on standard error must say, and the command ($d is the folder with the disks). After
# each of them nothing has changed: not the metadata, not the listings, not the disks that are nobody's.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
node_start a
disks a 5 64
d=$work/a
v a vgcreate -s 1m vga "$d/disk1" "$d/disk2" >/dev/null
v a lvcreate -n web -L 16m -m 1 vga >/dev/null
v a lvcreate -a n -n idle -L 8m vga >/dev/null
v a vgcreate -s 1m vgb "$d/disk3" >/dev/null
v a lvcreate -a n -n db -L 8m vgb >/dev/null
v a vgcreate -s 1m vgc "$d/disk5" >/dev/null
v a vgcfgbackup -f "$d/vga.txt" vga >/dev/null
v a vgcfgbackup -f "$d/vgb.txt" vgb >/dev/null
head -c 2000 /dev/urandom >"$d/garbage"
sed '0,/"extents": 8,/s//"extents": 9,/' "$d/vgb.txt" >"$d/bent.txt"
truncate -s 64K "$d/tiny"
truncate -s 32M "$d/ext" && mke2fs -q -F -t ext4 "$d/ext"
long=$(head -c 128 /dev/zero | tr '\0' x)
v a peeradd known 127.0.0.1:1 --fingerprint "$(ask a nodeshow -o node_fingerprint)" >/dev/null

state() {
    local kind
    for kind in pvs vgs lvs plexs feeds peers points; do v a $kind --reportformat json -o all --units b; done
    cksum "$d/disk4" "$d/ext" "$d/tiny"
}

table() {
    cat <<'TABLE'
2|no such verb|frobnicate
2|did you mean lvcreate|lvcreat -n x -L 1g vga
3|missing|lvcreate
3|missing|lvcreate -n x vga
3|missing|lvcreate -L 8m vga
3|not a unit|lvcreate -n x -L 10q vga
3|is nothing|lvcreate -n x -L 0 vga
3|too large|lvcreate -n x -L 99999999e vga
3|leave out the sign|lvcreate -n x -L +1g vga
3|not a percentage|lvcreate -n x -L 101%FREE vga
3|neither a number of extents|lvcreate -n x -l 1.5 vga
3|not allowed in a name|lvcreate -n b@d -L 8m vga
3|127 are the most|lvcreate -n $long -L 8m vga
3|must not start with|lvcreate -n=-x -L 8m vga
3|the group is vga|lvcreate -n vgb/x -L 8m vga
3|add -i STRIPES|lvcreate -n x -L 8m -I 64k vga
3|the stripe size cannot be|lvcreate -n x -L 8m -i 2 -I 3k vga
3|0 is not in|lvcreate -n x -L 8m -i 0 vga
3|one of ublk|lvcreate -n x -L 8m --frontend iscsi vga
5|different disks.*vgextend|lvcreate -n x -L 8m -i 9 vga
5|different disks.*vgextend|lvcreate -n x -L 8m -m 5 vga
5|free.*vgextend|lvcreate -n x -L 1t vga
5|exists already|lvcreate -n web -L 8m vga
5|no such volume group.*vgs|lvcreate -n x -L 8m nogroup
5|not a disk of vga.*pvs|lvcreate -n x -L 8m vga $d/disk3
5|not larger.*lvreduce|lvextend -L 8m vga/web
3|lvreduce makes smaller|lvextend -L -1m vga/web
3|lvreduce makes smaller|lvextend -l -1 vga/web
5|free|lvextend -L 1t vga/web
5|no such volume.*lvs|lvextend -L +1m vga/none
5|active.*lvchange -an|lvreduce -y -L 4m vga/web
3|lvextend makes larger|lvreduce -L +4m vga/idle
5|not smaller.*lvextend|lvreduce -y -L 1g vga/idle
5|will be lost.*shrink the file system|lvreduce -L 4m vga/idle
5|active|lvremove vga/web
5|no such volume.*lvs|lvremove -y vga/none
3|VG/LV|lvremove -y web
5|active.*lvchange -an|lvrename vga/web www
5|exists already|lvrename vga/idle web
3|not allowed in a name|lvrename vga idle a/b
5|no such volume|lvchange -ay vga/none
3|--frontend goes with -ay|lvchange -an --frontend nbd vga/web
3|missing|lvchange vga/web
3|not allowed in a tag|lvchange --addtag a,b vga/web
3|cannot be used with|lvchange -ay --addtag x vga/web
5|no such volume.*lvs|lvchange --addtag x vga/none
5|no volume has this tag.*lv_tags|lvremove -y @nobody
5|no group has this tag.*vg_tags|vgchange -an @nobody
3|missing|vgchange --addtag x
3|cannot be used with|lvchange -ay --offline plex0 vga/web
5|cannot activate: .*\(.*\)|lvchange -ay --frontend both vga/web
5|no plex9.*it has plex0, plex1|lvchange --offline plex9 vga/web
5|last active plex.*attach another|lvchange --offline plex0 vga/idle
5|last active plex.*attach another|plexdetach vga/idle plex0
5|no plex7.*it has|plexdetach vga/web plex7
5|disk|plexattach vga/web
5|not active.*lvchange -ay|plexsync --verify vga/idle
3|not a number of mirrors|lvconvert -m many vga/idle
3|it has 1 plex|lvconvert -m -1 vga/idle
5|disk|lvconvert -m 3 vga/idle
5|exists already|vgcreate vga $d/disk4
3|not allowed in a name|vgcreate v/g $d/disk4
3|power of two|vgcreate -s 3m vgx $d/disk4
3|power of two|vgcreate -s 2g vgx $d/disk4
5|vga|vgcreate vgx $d/disk1
5|no such file|vgcreate vgx $d/nowhere
5|ext4.*force|vgcreate vgx $d/ext
5|vgb|vgextend vga $d/disk3
5|in use by.*move or remove|vgreduce vga $d/disk1
5|not one of its disks.*pvs|vgreduce vga $d/disk4
5|in use by db|vgreduce vgb $d/disk3
5|last disk.*vgremove|vgreduce vgc $d/disk5
3|missing|vgreduce vgc
5|2 volume.*remove them first|vgremove vga
5|no such volume group|vgremove nogroup
5|active.*vgchange -an|vgrename vga vgz
5|exists already|vgrename vgb vga
3|that is one group|vgsplit vga vga $d/disk1
3|missing|vgsplit vga vgx
3|cannot be used with|vgsplit -n web vga vgx $d/disk1
3|not allowed in a name|vgsplit vga v/g $d/disk1
5|not one of its disks.*pvs|vgsplit vga vgx $d/disk3
5|last disk.*vgremove|vgsplit vgb vgx $d/disk3
5|no such volume.*lvs|vgsplit -n none vga vgx
5|no such volume group|vgsplit nogroup vgx $d/disk1
5|active.*lvchange -an vga/web|vgmerge vgb vga
3|that is one group|vgmerge vga vga
5|no such volume group|vgmerge vga nogroup
3|missing|pvchange $d/disk1
3|not allowed in a tag|pvchange --addtag a,b $d/disk1
5|not a disk of a group.*vgextend|pvchange --addtag x $d/disk4
5|no disk has this tag.*pv_tags|vgextend vga @nobody
5|active.*vgchange -an|vgexport vga
5|not exported|vgimport vgb
5|no such volume group|vgchange -ay nogroup
5|active.*vgchange -an|vgcfgrestore -y -f $d/vga.txt vga
5|no such file|vgcfgrestore -y -f $d/nowhere vgb
5|another group|vgcfgrestore -y -f $d/vga.txt vgb
5|stream did not contain valid UTF-8|vgcfgrestore -y -f $d/garbage vgb
5|does not cover|vgcfgrestore -y --force -f $d/bent.txt vgb
3|cannot be used with|vgcfgrestore --list -f $d/vgb.txt vgb
5|vga.*vgreduce|pvremove $d/disk1
5|not a PV.*pvs|pvremove $d/disk4
5|small|pvcreate $d/tiny
5|ext4.*force|pvcreate $d/ext
5|neither a block device nor a regular file|pvcreate $d
5|not a known PV.*pvs|pvresize $d/disk4
5|not a disk of any group|pvmove $d/disk4
5|cannot move to itself|pvmove $d/disk1 $d/disk1
5|disk|pvmove -n web $d/disk1
5|has nothing there|pvmove -n none $d/disk1
3|missing|pvmove -b
5|peer|feedattach vga/web stranger
5|feed|feedwait vga/web known
5|feed|feeddetach vga/web known
5|feed|feedswap vga/web known
5|feed|feedverify vga/web known
5|feed|feedpause vga/web known
3|VG/LV|feedattach web known
3|hexadecimal|peeradd bad 127.0.0.1:1 --fingerprint nonsense
3|not a port|peeradd bad 127.0.0.1:99999 --fingerprint nonsense
5|peer|peerremove nobody
3|no such field.*-o help|lvs -o colour
3|no such field.*-o help|lvs -O colour
3|cannot select.*size|lvs -S lv_size>big
3|cannot select.*field|lvs -S colour=red
3|one letter|lvs --units x
5|no such volume|lvs vga/none
5|not found|pvs /nowhere
3|zsh|completions tcsh
5|no such file|pvck $d/nowhere
4|no daemon.*start volmgrd|--socket $d/nobody lvs
TABLE
}

before=$(state)
count=0 bad=0
wrong() { # what: the table is read to its end nevertheless
    bad=$((bad + 1))
    echo "WRONG: $1"
}
while IFS='|' read -r code pattern command; do
    read -ra words <<<"$command"
    words=("${words[@]//\$d/$d}")
    words=("${words[@]//\$long/$long}")
    status=0
    [ "${words[0]}" = --socket ] || words=(--socket "$d/volmgrd.sock" "${words[@]}")
    "$bin/volmgr" "${words[@]}" >"$work/out" 2>"$work/err" </dev/null || status=$?
    said=$(cat "$work/err")
    [ "$status" = "$code" ] || wrong "exit $status instead of $code from: $command ($said)"
    [ "$(wc -l <"$work/err")" = 1 ] || wrong "not one line from: $command ($said)"
    [[ $said == "volmgr: "* ]] || wrong "'$said' does not say who speaks"
    grep -qiE -- "$pattern" "$work/err" || wrong "'$said' does not say '$pattern'"
    after=$(state)
    [ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after") >&2 || true; wrong "something changed by: $command"; before=$after; }
    count=$((count + 1))
    echo "$code: $said"
done < <(table)
[ "$bad" = 0 ] || die "$bad of $count uses went wrong"
[ "$count" -ge 60 ] || die "only $count uses"
echo "figure: $count wrong uses"
