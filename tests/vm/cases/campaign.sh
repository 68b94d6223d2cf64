# limit: 1500
# campaign: yes
# needs: python3 nbdcopy ip ss tc
# A feed under everything that happens to feeds (tests/campaign/feeds), over a network of the kernel that is late, changes the order of
# frames and loses some, for CAMPAIGN=240 seconds from SEED=1.
. /job/guest.sh
[ ! -e /job/vars ] || . /job/vars
modprobe veth
modprobe sch_netem
mkdir -p /dev/shm
mountpoint -q /dev/shm || mount -t tmpfs none /dev/shm
NETWORK=veth BIN=/job/bin bash /job/tests/campaign/feeds "${CAMPAIGN:-240}" "${SEED:-1}" | tee /tmp/said
! grep -q 'no netem' /tmp/said || die "delays and losses are what this is for"
