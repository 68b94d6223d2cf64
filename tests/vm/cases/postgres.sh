# limit: 1200
# disks: 500 500
# needs: mkfs.xfs xfs_repair setpriv
# PostgreSQL with data checksums on xfs on a mirror: pgbench's load, the server killed under it, recovery from its log; then
# pg_amcheck, pg_checksums and the books balanced.
. /job/guest.sh
pg=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$pg" ] && [ -x "$pg/pg_amcheck" ] && [ -x "$pg/pgbench" ] || { echo "skipped: PostgreSQL 14 or newer is not installed on the host (package postgresql)"; exit 77; }
getent passwd postgres >/dev/null || { echo "skipped: no user postgres on the host"; exit 77; }
modprobe ublk_drv
modprobe xfs
node_start a
v a vgcreate vg /dev/vda /dev/vdb
v a lvcreate -n db -L 400m -m 1 vg
dev=/dev/volmgr/vg/db
io_mode a vg/db
mkfs.xfs -q -f $dev
at=/mnt/db
mkdir -p $at /run/pg
mount $dev $at
chown postgres $at /run/pg
cd /
as() { setpriv --reuid postgres --regid postgres --clear-groups env PGHOST=/run/pg PGDATABASE=bench HOME=/run/pg "$@"; }
server_start() { as "$pg/pg_ctl" -D $at/data -w -t 200 -l /run/pg/log start >/dev/null || { cat /run/pg/log; die "the server does not start"; }; }

step initdb
as "$pg/initdb" -D $at/data --data-checksums --no-locale -E UTF8 -A trust >/tmp/initdb 2>&1 || { cat /tmp/initdb; die initdb; }
cat >>$at/data/postgresql.conf <<'CONF'
listen_addresses = ''
unix_socket_directories = '/run/pg'
shared_buffers = 16MB
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 30s
wal_sync_method = fdatasync
autovacuum = on
CONF
server_start
as "$pg/createdb" bench
step "pgbench's tables"
as "$pg/pgbench" -i -q -s 1 >/tmp/pgbench 2>&1 || { cat /tmp/pgbench; die "pgbench -i"; }
step load
as "$pg/pgbench" -n -c 4 -T 15 >/tmp/pgbench 2>&1 || { cat /tmp/pgbench; die pgbench; }
sed -n 's/^number of transactions actually processed: /figure: transactions of pgbench in 15 s: /p' /tmp/pgbench

step "killed under load"
(as "$pg/pgbench" -n -c 4 -T 60 >/tmp/pgbench 2>&1 || true) & load=$!
sleep 6
done_before=$(as "$pg/psql" -Atc 'select count(*) from pgbench_history')
kill -KILL "$(head -n 1 $at/data/postmaster.pid)"
wait $load
wait_for 90 sh -c '! pgrep -x postgres'
rm -f $at/data/postmaster.pid
umount $at || { sleep 3; umount $at; }
echo 3 >/proc/sys/vm/drop_caches
mount $dev $at
server_start
grep -q 'redo done\|redo is not required' /run/pg/log || die "no recovery from the log"
[ "$(as "$pg/psql" -Atc 'select count(*) from pgbench_history')" -ge "$done_before" ] || die "committed transactions are lost"

step judgement
# Every account, teller and branch has the sum of its history.
[ "$(as "$pg/psql" -Atc "select (select sum(abalance) from pgbench_accounts)=(select sum(delta) from pgbench_history) and
    (select sum(tbalance) from pgbench_tellers)=(select sum(delta) from pgbench_history) and
    (select sum(bbalance) from pgbench_branches)=(select sum(delta) from pgbench_history)")" = t ] || die "the books do not balance"
as "$pg/psql" -qc 'create extension amcheck' || die "amcheck is not there (package postgresql-contrib)"
as "$pg/pg_amcheck" -d bench --heapallindexed >/tmp/amcheck 2>&1 || { cat /tmp/amcheck; die pg_amcheck; }
as "$pg/pg_ctl" -D $at/data -w -m fast stop >/dev/null || die "the server does not stop"
as "$pg/pg_checksums" -D $at/data --check >/tmp/sums 2>&1 || { cat /tmp/sums; die pg_checksums; }
grep -i "bad checksums" /tmp/sums
umount $at
xfs_repair -n $dev >/tmp/check 2>&1 || { tail /tmp/check; die xfs_repair; }
plexes_equal a vg/db
v a lvchange -an vg/db
