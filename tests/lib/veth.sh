# A network namespace behind a veth pair; sourced after nodes.sh. Sets wrap_b, the prefix of what runs in there, and the addresses of nodes a
# (here) and b (there).
ns=volmgr-$$ near=vn$$ far=vf$$ here_ip=10.214.1.1 there_ip=10.214.1.2
command -v ip >/dev/null || skip "ip is not installed"
ip netns add "$ns" 2>/dev/null || skip "network namespaces need root"
at_end 'ip netns del "$ns"; ip link del "$near" 2>/dev/null'
ip link add "$near" type veth peer name "$far" netns "$ns" 2>/dev/null || skip "this kernel gives no veth pair"
wrap_b="ip netns exec $ns"
inside() { ip netns exec "$ns" "$@"; }
ip addr add $here_ip/24 dev "$near"; ip link set "$near" up
inside ip addr add $there_ip/24 dev "$far"; inside ip link set "$far" up; inside ip link set lo up
addr_of[a]=$here_ip addr_of[b]=$there_ip
