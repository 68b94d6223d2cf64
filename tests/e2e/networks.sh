# limit: 240
# Payload on a network of its own: control and data addresses differ, four connections, each network taken away and brought back
# (silently, as a pulled cable does it) in the middle of a resync and while live; IPv6; a source address; who does not listen there.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
for p in ip nbdcopy qemu-io ss; do command -v $p >/dev/null || skip "$p is not installed"; done
ns=volmgr-$$
ip netns add $ns 2>/dev/null || skip "network namespaces need root"
at_end 'ip netns del $ns; ip link del vc$$ 2>/dev/null; ip link del vd$$ 2>/dev/null'
link() { # name network
    ip link add "$1" type veth peer name "$1p" netns $ns 2>/dev/null || skip "this kernel gives no veth pair"
    ip addr add "10.213.$2.1/24" dev "$1"; ip link set "$1" up
    ip -n $ns addr add "10.213.$2.2/24" dev "$1p"; ip -n $ns link set "$1p" up
    ip addr add "fd00:213:$2::1/64" dev "$1" nodad; ip -n $ns addr add "fd00:213:$2::2/64" dev "$1p" nodad
}
link vc$$ 1
link vd$$ 2
ip -n $ns link set lo up
state() { ask a feeds vga/web -o feed_state; }
until_state() { # seconds state...
    local began; began=$(now_ms)
    until [[ " ${*:2} " == *" $(state) "* ]]; do
        [ $(($(now_ms) - began)) -lt $(($1 * 1000)) ] || die "still $(state) after $1 s: $(ask a feeds vga/web -o feed_reason)"
        sleep 0.2
    done
    took=$(($(now_ms) - began))
}

port_of[a]=$(free_port) port_of[b]=$(free_port)
data_port=$(free_port)
printf '[feeds]\nbulk_streams = 3\ndata_from = "vd%s"\n' $$ >"$work/a.toml"
printf '[feeds]\ndata_listen = ["10.213.2.2:%s", "[fd00:213:2::2]:%s"]\n' "$data_port" "$data_port" >"$work/b.toml"
config_of[a]=$work/a.toml config_of[b]=$work/b.toml addr_of[b]=10.213.1.2 addr_of[a]=10.213.1.1
node_start a
WRAP="ip netns exec $ns" node_start b
disks a 1 200; disks b 1 200
v a vgcreate vga "$work/a/disk1"; v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
fb=$(ask b nodeshow -o node_fingerprint)
data() { v a peeradd b "10.213.1.2:${port_of[b]}" --fingerprint "$fb" --plaintext --data "$1"; }
data "10.213.2.2:$data_port"
v a lvcreate -n web -L 128m vga
head -c 128M /dev/urandom >"$work/one"
nbdcopy --flush "$work/one" "$(uri a vga/web)"
bytes() { cat /sys/class/net/$1/statistics/tx_bytes; }
c0=$(bytes vc$$) d0=$(bytes vd$$)
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 60
c=$(($(bytes vc$$) - c0)) d=$(($(bytes vd$$) - d0))
[ $d -ge $((128 << 20)) ] || die "only $d bytes on the payload's network"
[ $c -lt $((1 << 20)) ] || die "$c bytes on the control network"
connections=$(ss -Htn state established "dst 10.213.2.2 and dport = :$data_port" | wc -l)
[ "$connections" = 4 ] || die "$connections data connections, not one live and three bulk"

# The payload's network is cut without a word while data flows; control goes on. Found in seconds, nothing stalls, and it comes back.
# Frames for a station that does not exist: nobody gets an error, nobody an answer.
nobody=02:00:00:00:00:99
cut() { # link network
    ip neigh replace "10.213.$2.2" lladdr $nobody nud permanent dev "$1"
    ip -n $ns neigh replace "10.213.$2.1" lladdr $nobody nud permanent dev "$1p"
}
mend() { ip neigh del "10.213.$2.2" dev "$1"; ip -n $ns neigh del "10.213.$2.1" dev "$1p"; }
cut vd$$ 2
began=$(now_ms)
timeout 20 qemu-io -f raw -c 'write -q -P 0x51 4m 8m' "$(uri a vga/web)" || die "a write waits for a dead network"
written=$(($(now_ms) - began))
until_state 20 disconnected connecting
found=$took
[ $((written + found)) -lt 16000 ] || die "a dead data path was found after $((written + found)) ms"
mend vd$$ 2
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b
echo "figure: a silent data network is given up after $((written + found)) ms (the writer waited $written ms); resync when it is back"

# The control network: its keepalives find out.
cut vc$$ 1
until_state 25 disconnected connecting
echo "figure: a silent control network is given up after $took ms"
qemu-io -f raw -c 'write -q -P 0x52 24m 1m' "$(uri a vga/web)"
mend vc$$ 1
v a feedwait vga/web b --timeout 60
v a feedverify vga/web b

# Nobody at the data address: said so, with the address; the feed tries on, and is there when it can.
v a feedpause vga/web b
data "10.213.2.3:$data_port"
v a feedresume vga/web b 2>/dev/null || true
until_state 20 disconnected
ask a feeds vga/web -o feed_reason | grep -q '10.213.2.3' || die "the reason does not name the address: $(ask a feeds vga/web -o feed_reason)"
# And over IPv6.
data "[fd00:213:2::2]:$data_port"
v a feedwait vga/web b --timeout 60
ss -Htn state established "dport = :$data_port" | grep -q 'fd00:213:2::2' || die "not over IPv6: $(ss -Htn state established)"
v a feeddetach vga/web b --point end
nbdcopy "$(uri a vga/web)" "$work/source"
v b lvchange -ay vgb/web >/dev/null
nbdcopy "$(uri b vgb/web)" "$work/sink"
cmp "$work/source" "$work/sink" || die "source and sink differ"
