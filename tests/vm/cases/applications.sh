# limit: 1000
# disks: 320 320
# needs: mkfs.ext4 fsck.ext4 git sqlite3 sha256sum
# A real checkout by git and a real SQLite database on a mounted mirror; both judge themselves, before and after a remount.
. /job/guest.sh
modprobe ublk_drv
node_start a
v a vgcreate vg /dev/vda /dev/vdb
v a lvcreate -n app -L 256m -m 1 vg
dev=/dev/volmgr/vg/app
io_mode a vg/app
mkfs.ext4 -q -E lazy_itable_init=0 $dev
at=/mnt/app
mkdir -p $at
mount $dev $at
export HOME=/tmp GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
git config --global --add safe.directory '*'
git config --global gc.auto 0

step "a repository with a history, made in RAM"
mkdir /tmp/origin
cd /tmp/origin
git init -q -b main
cp /usr/share/perl/5*/*.p[lm] /usr/share/doc/git/*.txt . 2>/dev/null || true
cp /usr/share/misc/* . 2>/dev/null || true
ls | wc -l
for n in 1 2 3; do
    for i in $(seq 100); do echo "$n $i $RANDOM" >>file$((i % 40)); done
    git add -A
    git commit -q -m "change $n"
done
cd /

step "clone, branches, checkout"
git clone -q --no-local /tmp/origin $at/clone
cd $at/clone
for b in one two; do
    git checkout -q -b $b main~1
    for i in $(seq 60); do echo "$b $i" >>branch-$b-$((i % 20)); done
    git add -A
    git commit -q -m "on $b"
done
git checkout -q main
git merge -q -m merged one two
git repack -q -a -d
[ -z "$(git status --porcelain)" ] || die "the work tree differs from what was checked out"
git rev-parse main >/tmp/head
cd /

step "SQLite"
# 8000 rows in 160 transactions, each durable before the next; rows of up to some KiB, deletes and updates among them.
{
    echo 'pragma journal_mode=wal; pragma synchronous=full; pragma cache_size=200;'
    echo 'create table t(id integer primary key, k text unique, body blob, sum integer);'
    for n in $(seq 0 159); do
        echo "begin; with recursive c(i) as (select 1 union all select i+1 from c where i<50)
            insert into t(k,body,sum) select 'k'||($n*50+i), randomblob(abs(random())%3000), $n from c;
            update t set sum=sum+1 where id%97=$n%97; delete from t where id%89=$n%89 and sum<$n; commit;"
    done
    echo 'select count(*), sum(length(body)) from t;'
} >/tmp/load.sql
sqlite3 -bail $at/db </tmp/load.sql >/tmp/rows || die "SQLite: $(cat /tmp/rows)"
tail -n 1 /tmp/rows
judge() {
    step "integrity, $1"
    [ "$(sqlite3 $at/db 'pragma integrity_check;')" = ok ] || die "SQLite's integrity_check: $(sqlite3 $at/db 'pragma integrity_check;' | head)"
    [ "$(sqlite3 $at/db 'select count(*), sum(length(body)) from t;')" = "$(tail -n 1 /tmp/rows)" ] || die "SQLite: rows differ"
    git -C $at/clone fsck --full --strict >/tmp/fsck 2>&1 || die "git fsck: $(cat /tmp/fsck)"
    [ "$(git -C $at/clone rev-parse main)" = "$(cat /tmp/head)" ] || die "another commit"
    [ -z "$(git -C $at/clone status --porcelain)" ] || die "the work tree changed"
}
judge "as written"
umount $at
fsck.ext4 -fn $dev >/dev/null || die "fsck"
echo 3 >/proc/sys/vm/drop_caches
mount $dev $at
judge "after a remount"
# The clone is whole: a clone of it, off the volume, has the same commit.
git clone -q --no-local $at/clone /tmp/again
[ "$(git -C /tmp/again rev-parse HEAD)" = "$(cat /tmp/head)" ] || die "the clone's clone differs"
umount $at
plexes_equal a vg/app
v a lvchange -an vg/app
