# The network of a campaign; sourced with $seed, $work and the nodes' functions there. Says how nodes are started (up), how a reaches b, and
# what the words mean:
#   cut           every connection is reset, new ones are taken
#   down / up     the address of b goes away, and is back
#   stall / up    nothing passes, nobody is told: half-open
#   delay MS      what passes takes up to so long
# NETWORK=proxy: a program between the two, which needs no root. NETWORK=veth: b in a network namespace behind a veth pair, half-open by frames
# for a station that does not exist; where the kernel has netem, each direction is late, by turns in another order, and loses frames.
: "${NETWORK:=proxy}"
wrap_b=
case $NETWORK in
proxy)
    network_ready() {
        local proxy_port
        proxy_port=$(free_port)
        mkfifo "$work/words"
        python3 "$here/proxy.py" "$proxy_port" "${port_of[b]}" "$seed" <"$work/words" >"$work/proxy.log" 2>&1 &
        pids+=($!)
        exec 9>"$work/words"
        for _ in $(seq 100); do grep -q ready "$work/proxy.log" && break; sleep 0.1; done
        v a peeradd b "127.0.0.1:$proxy_port" --fingerprint "$(ask b nodeshow -o node_fingerprint)" --allow all --plaintext >/dev/null
    }
    network() { echo "$*" >&9; }
    ;;
veth)
    nobody=02:00:00:00:00:99 netem=yes
    for p in ss tc; do command -v $p >/dev/null || skip "$p is not installed"; done
    . "$top/tests/lib/veth.sh"
    port_of[a]=$(free_port) port_of[b]=$(free_port)
    network_ready() { network delay 5; }
    connections() { ss -Htn state established dst $there_ip | awk '{print $3}' | sort; } # by the address here
    network() {
        case $1 in
        cut)
            local before
            before=$(connections)
            ss -K -t dst $there_ip >/dev/null
            inside ss -K -t dst $here_ip >/dev/null
            [ -z "$(comm -12 <(echo "$before" | grep .) <(connections))" ] || die "this kernel cannot reset connections"
            ;;
        down) inside ip addr del $there_ip/24 dev "$far" ;;
        stall)
            ip neigh replace $there_ip lladdr $nobody nud permanent dev "$near"
            inside ip neigh replace $here_ip lladdr $nobody nud permanent dev "$far"
            ;;
        up)
            inside ip addr replace $there_ip/24 dev "$far"
            ip neigh del $there_ip dev "$near" 2>/dev/null || true
            inside ip neigh del $here_ip dev "$far" 2>/dev/null || true
            ;;
        delay)
            [ $netem = yes ] || return 0
            local how="delay $2ms $(($2 / 2))ms loss $((RANDOM % 3))%"
            # shellcheck disable=SC2086
            if ! tc qdisc replace dev "$near" root netem $how 2>/dev/null || ! inside tc qdisc replace dev "$far" root netem $how; then
                netem=no
                echo "this kernel has no netem: no delays, no losses"
            fi
            ;;
        esac
    }
    ;;
*) die "NETWORK=$NETWORK: proxy or veth" ;;
esac
up() { case $1 in a) node_start a ;; b) WRAP=$wrap_b node_start b ;; esac }
