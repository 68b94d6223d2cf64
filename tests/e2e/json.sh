# limit: 120
# Every listing as JSON: one report, the right row key, the fields that scripts rely on, all values strings.
set -euo pipefail
. "$top/tests/lib/nodes.sh"
command -v jq >/dev/null || skip "jq is not installed"
node_start a
node_start b
disks a 2 64
disks b 1 64
v a vgcreate vga "$work/a/disk1" "$work/a/disk2"
v b vgcreate vgb "$work/b/disk1"
trust a b plaintext
v a lvcreate -n web -L 16m -m 1 vga
v a feedattach vga/web b:vgb/web --create
v a feedwait vga/web b --timeout 30

check() { # verb key rows fields...
    local verb=$1 key=$2 rows=$3 field
    shift 3
    v a "$verb" --reportformat json --units b --nosuffix -o all >"$work/json"
    jq -e --arg key "$key" --argjson rows "$rows" \
        '(.report | length) == 1 and (.report[0] | keys) == [$key] and (.report[0][$key] | length) == $rows' "$work/json" >/dev/null ||
        die "$verb: wrong shape: $(head -c 300 "$work/json")"
    jq -e --arg key "$key" '[.report[0][$key][][] | type] | all(. == "string")' "$work/json" >/dev/null || die "$verb: a value is no string"
    for field in "$@"; do
        jq -e --arg key "$key" --arg f "$field" '.report[0][$key] | all(has($f))' "$work/json" >/dev/null || die "$verb: no field $field"
        v a "$verb" --noheadings -o "$field" >/dev/null || die "$verb -o $field"
    done
}
check pvs pv 2 pv_name pv_uuid pv_size pv_free vg_name pv_attr
check vgs vg 1 vg_name vg_uuid vg_size vg_free vg_extent_size pv_count lv_count vg_seqno vg_attr
check lvs lv 1 lv_name vg_name lv_uuid lv_size lv_path lv_active lv_open plex_count lv_health lv_role
check plexs plex 2 plex_name lv_name vg_name plex_type plex_state plex_layout plex_sync_percent devices
check feeds feed 1 lv_name vg_name peer_name peer_lv feed_direction feed_state feed_mode feed_sync_percent feed_rate feed_eta feed_dirty \
    feed_path payload_kernel_bytes payload_copied_bytes feed_consistent feed_reason
check peers peer 1 peer_name peer_addr peer_data_addrs peer_fingerprint peer_state peer_allow
check nodeshow node 1 node_name node_uuid node_location node_fingerprint node_listen node_version
v a feeddetach vga/web b --point p1
check points point 1 point_name lv_name vg_name point_time point_uuid
v a events --reportformat json | jq -e '.report[0].event | length > 5' >/dev/null || die "events"
[ "$(v a lvs --reportformat json --units b --nosuffix | jq -r '.report[0].lv[0].lv_size')" = $((16 << 20)) ] || die "plain bytes"
[ "$(v a lvs --noheadings -o +lv_io_mode | wc -l)" = 1 ] || die "lv_io_mode"
[ "$(v b lvs --noheadings -o lv_role | tr -d ' ')" = normal ] || die "the split sink is a normal volume"
