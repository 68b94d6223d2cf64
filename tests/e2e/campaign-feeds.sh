# limit: 120
# The campaign of tests/campaign/feeds, shortly: half a minute from a fixed seed.
set -euo pipefail
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }
BIN=$bin "$top/tests/campaign/feeds" 25 7
