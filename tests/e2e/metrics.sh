# limit: 100
# Metrics: what clients and feeds did is counted, by volume, plex, disk and feed; the text is what Prometheus takes; every metric of
# the dashboard and of the alerts exists; a real Prometheus scrapes, and its alerts fire. `top` shows the same numbers.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v nbdcopy >/dev/null || skip "nbdcopy is not installed"
metrics=$(free_port)
node_start a --metrics "127.0.0.1:$metrics"
node_start b
disks a 2 96
disks b 1 96
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"
v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L 32m -m 1 vga
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 30

scrape() { # -> $work/metrics, without the head
    exec 3<>"/dev/tcp/127.0.0.1/$metrics"
    printf 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n' >&3
    timeout 10 sed '1,/^\r$/d' <&3 >"$work/metrics"
    exec 3>&-
}
number() { # metric with labels, exactly -> its value
    grep -F "$1 " "$work/metrics" | awk '{print $NF}' | grep . || die "no $1 in: $(grep -F "${1%%\{*}" "$work/metrics" | head -n 20)"
}
head -c 8388608 /dev/urandom >"$work/data"
v a top -n 1 -d 3 --json >"$work/top" &
watching=$!
nbdcopy --connections=1 "$work/data" "$(uri a vga/web)"
wait $watching
scrape
c='vg="vga",lv="web"'
[ "$(number "volmgr_volume_bytes_total{$c,origin=\"client\",op=\"write\"}")" -ge 8388608 ] || die "bytes of clients"
writes=$(number "volmgr_volume_operations_total{$c,origin=\"client\",op=\"write\"}")
[ "$writes" -gt 0 ] || die "no writes counted"
[ "$(number "volmgr_volume_latency_seconds_bucket{$c,origin=\"client\",op=\"write\",le=\"+Inf\"}")" = "$writes" ] || die "each write is in the histogram"
for plex in plex0 plex1; do
    [ "$(number "volmgr_plex_bytes_total{$c,plex=\"$plex\",op=\"write\"}")" -ge 8388608 ] || die "bytes of $plex"
    [ "$(number "volmgr_plex_in_step{$c,plex=\"$plex\"}")" = 1 ] || die "$plex is in step"
done
[ "$(number "volmgr_disk_bytes_total{$c,pv=\"$work/a/disk1\",op=\"write\"}")" -ge 8388608 ] || die "bytes of the disk"
f="$c,peer=\"b\",direction=\"out\""
v a feedwait vga/web b --timeout 30 # it may have fallen behind
for _ in $(seq 100); do
    scrape
    [ "$(number "volmgr_feed_lag_bytes{$f}")" = 0 ] && break
    sleep 0.1
done
[ "$(number "volmgr_feed_lag_seconds{$f}")" = 0.000 ] || die "nothing lags at rest"
[ "$(number "volmgr_feed_state{$f,state=\"live\"}")" = 1 ] || die "the feed is live"
[ $(($(number "volmgr_feed_bytes_total{$f,kind=\"live\"}") + $(number "volmgr_feed_bytes_total{$f,kind=\"copy\"}"))) -ge 8388608 ] ||
    die "bytes of the feed"
[ $(($(number "volmgr_feed_payload_bytes_total{$f,path=\"kernel\"}") + $(number "volmgr_feed_payload_bytes_total{$f,path=\"copied\"}"))) -ge 8388608 ] ||
    die "payload by path"
if command -v jq >/dev/null; then
    jq -e '.report[0].top[0] | .lv_name == "web" and (.write_bytes_per_second | tonumber) > 1000000 and (.write_latency_us | tonumber) > 0' \
        "$work/top" >/dev/null || die "top: $(cat "$work/top")"
    jq -e '.report[0].feed[0].feed_state == "live"' "$work/top" >/dev/null || die "top: $(cat "$work/top")"
fi
v a top -n 1 -d 0.1 | grep -q '^vga/web *ok' || die "top in words"

# The peer is gone: what it misses, and for how long.
node_kill b
nbdcopy --connections=1 "$work/data" "$(uri a vga/web)"
sleep 2
scrape
[ "$(number "volmgr_feed_lag_bytes{$f}")" -ge 8388608 ] || die "what the peer misses"
number "volmgr_feed_lag_seconds{$f}" | awk '{exit !($1 > 1 && $1 < 60)}' || die "lag: $(number "volmgr_feed_lag_seconds{$f}")"

for file in dist/grafana/volmgr.json dist/prometheus/volmgr-alerts.yml; do
    for name in $(grep -oE '(volmgr|process)_[a-z_]+' "$top/$file" | sort -u | sed -E 's/_(bucket|sum|count)$//' | grep -v '^volmgr_alerts'); do
        grep -q "^# TYPE $name " "$work/metrics" || die "$file: there is no metric $name"
    done
done
if command -v promtool >/dev/null; then
    promtool check metrics <"$work/metrics" || die "promtool has objections"
    promtool check rules "$top/dist/prometheus/volmgr-alerts.yml"
    (cd "$top/dist/prometheus" && promtool test rules volmgr-alerts.test.yml)
else
    echo "figure: promtool is not installed: the rules were not run"
fi
command -v prometheus >/dev/null || exit 0
# Times for a test: fire at once, look every second.
sed 's/^\( *\)for: .*/\1for: 0s/' "$top/dist/prometheus/volmgr-alerts.yml" >"$work/volmgr-alerts.yml"
sed "s/15s/1s/; s/9750/$metrics/; s/^global:/global:\n  evaluation_interval: 1s/" "$top/dist/prometheus/prometheus.yml" >"$work/prometheus.yml"
web=$(free_port)
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --web.listen-address="127.0.0.1:$web" >"$work/prometheus.log" 2>&1 &
pids+=($!)
query() { promtool query instant "http://127.0.0.1:$web" "$1" 2>/dev/null || true; }
for _ in $(seq 250); do
    query 'ALERTS{alertname="VolmgrFeedDisconnected",lv="web",alertstate="firing"}' | grep -q . && break
    sleep 0.1
done
query 'ALERTS{alertstate="firing"}' >"$work/alerts"
grep -q 'alertname="VolmgrFeedDisconnected"' "$work/alerts" || die "no alert: $(cat "$work/alerts") $(tail -n 5 "$work/prometheus.log")"
grep -q 'VolmgrVolumeFailed\|VolmgrVolumeStuck\|VolmgrDown' "$work/alerts" && die "false alarm: $(cat "$work/alerts")"
query 'sum(volmgr_volume_bytes_total{lv="web",op="write"})' | grep -qE ' => [0-9]+' || die "prometheus knows no bytes"
v a lvchange --offline plex1 vga/web
for _ in $(seq 150); do
    query 'ALERTS{alertname="VolmgrVolumeDegraded",lv="web",alertstate="firing"}' | grep -q . && exit 0
    sleep 0.1
done
die "a degraded volume gives no alert"
