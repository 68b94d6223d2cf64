# limit: 900
# memory: 3072
# disks: 96 96 96
# needs: cc
# A program that changes its buffer while it is being written with O_DIRECT. With zero copy each plex and feed reads the buffer at
# its own time, so they differ then: verification finds that, and it is gone with the next write. `lvchange --stable-copy y`
# copies once instead, and they are equal whatever the program does; where the kernel has no zero copy they are in any case.
. /job/guest.sh
modprobe ublk_drv
ram_disks 1 96
cat >/tmp/scribble.c <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
enum { LEN = 128 << 10 };
static volatile unsigned long *buffer;
static volatile int enough;
static void *scribble(void *unused) {
    for (unsigned long n = 1; !enough; n++)
        for (int at = 0; at < LEN / 8; at += 512) buffer[at] = n;
    return unused;
}
int main(int argc, char **argv) { /* device, writes */
    int fd = open(argv[1], O_RDWR | O_DIRECT);
    pthread_t thread;
    void *memory;
    if (argc != 3 || fd < 0 || posix_memalign(&memory, 4096, LEN)) { perror(argv[1]); return 1; }
    buffer = memory;
    if (pthread_create(&thread, 0, scribble, 0)) return 1;
    for (long n = 0; n < atol(argv[2]); n++)
        if (pwrite(fd, memory, LEN, n % 64 * LEN) != LEN) { perror("pwrite"); return 1; }
    enough = 1;
    return pthread_join(thread, 0) || fsync(fd);
}
C
cc -O1 -pthread -o /tmp/scribble /tmp/scribble.c
bytes() { value a "$@" --units b --nosuffix; }
node_start a
node_start b
trust a b
v a vgcreate va /dev/vda /dev/vdb /dev/vdc
v b vgcreate vb /dev/ram0
v a lvcreate -n two -L 12m -m 1 va /dev/vda /dev/vdb
v a lvcreate -n one -L 12m va /dev/vdc
two=/dev/volmgr/va/two one=/dev/volmgr/va/one
stable() { cat "/sys/block/$(basename "$(readlink "$1")")/queue/stable_writes"; }
mode=$(value a lvs va/two -o lv_io_mode)
[ "$(value a lvs va/two -o lv_stable_copy)" = n ] || die "on by itself"
quiet() { dd if=/dev/urandom of="$1" bs=1M count=9 oflag=direct status=none; }
quiet $two; quiet $one
v b lvcreate -n one -L 12m vb --frontend nbd
v a feedattach va/one b:vb/one --discard-peer
v a feedwait va/one b --timeout 120
settled() { sync; v a feedwait va/one b --timeout 60; }

if [ "$mode" = zero-copy ]; then
    step "without copies: found by verification, once, and gone with the next write"
    # Also where one plex is all there is: a feed may come while a filesystem is mounted.
    [ "$(stable $two) $(stable $one)" = "1 1" ] || die "stable_writes: $(stable $two) $(stable $one)"
    /tmp/scribble $two 64
    v a plexsync --verify va/two 2>/tmp/verify && die "nothing found: the case shows nothing"
    grep -q "its plexes differ" /tmp/verify || die "$(cat /tmp/verify)"
    [ "$(v a events | grep -c plexes-differ)" = 1 ] || die "$(v a events)"
    echo "figure: without copies: $(grep -o '[0-9]* bytes in [0-9]* range' /tmp/verify)s differ after 8 MiB of writes that were scribbled on"
    quiet $two
    v a plexsync --verify va/two || die "still different after a quiet write"
    [ "$(v a events | grep -c plexes-differ)" = 1 ] || die "reported twice"
    /tmp/scribble $one 128
    settled
    v a feedverify va/one b 2>/tmp/verify && die "the feed's other side is the same: the case shows nothing"
    v a feedverify va/one b --repair || true
    settled
    v a feedverify va/one b || die "still different after the repair"
    [ "$(bytes lvs va/two -o lv_copied_bytes)" = 0 ] || die "copied"
fi

copies() { # what was before: harmless now
    local before
    before=$(bytes lvs va/two -o lv_copied_bytes)
    for _ in 1 2; do
        /tmp/scribble $two 64
        v a plexsync --verify va/two || die "plexes differ $1"
    done
    [ $(($(bytes lvs va/two -o lv_copied_bytes) - before)) -ge $((16 << 20)) ] || die "the copies are not counted $1"
    /tmp/scribble $one 128
    settled
    v a feedverify va/one b || die "the feed's sides differ $1"
    plexes_equal a va/two
}

step "each write copied first"
v a lvchange --stable-copy y va/two va/one
[ "$(value a lvs va/two -o lv_stable_copy)" = y ] || die "not shown by lvs"
v a lvdisplay va/two | grep -q "stable copy" || die "not shown by lvdisplay"
if [ "$mode" = zero-copy ]; then
    grep -q "stable copy" <<<"$(value a lvs va/two -o lv_io_reason)" || die "reason: $(value a lvs va/two -o lv_io_reason)"
    [ "$(value a lvs va/two -o lv_io_mode)" = zero-copy ] || die "reads have changed"
fi
copies "in copy mode"
# Reads still go without, where they did.
before=$(bytes lvs va/two -o lv_copied_bytes)
dd if=$two of=/dev/null bs=1M count=8 iflag=direct status=none
[ "$mode" != zero-copy ] || [ "$(bytes lvs va/two -o lv_copied_bytes)" = "$before" ] || die "reads are copied"

step "it lasts: beyond the daemon's death, and beyond deactivation"
kill -KILL "$pid_a"; wait "$pid_a" || true
node_start a
wait_for 30 sh -c "$bin/volmgr --socket /run/a/sock lvs --noheadings -o lv_path va/two | grep -q /dev/volmgr"
v a feedwait va/one b --timeout 60
copies "after recovery"
v a lvchange -an va/two
v a lvchange -ay va/two >/dev/null
copies "after activation"

step "and ends"
v a lvchange --stable-copy n va/two va/one
[ "$(value a lvs va/two -o lv_stable_copy)" = n ] || die "still on"
if [ "$mode" = zero-copy ]; then
    before=$(bytes lvs va/two -o lv_copied_bytes)
    quiet $two
    [ "$(bytes lvs va/two -o lv_copied_bytes)" = "$before" ] || die "still copied"
fi
quiet $two
v a plexsync --verify va/two
v a lvchange -an va/two
v a lvchange -an va/one
