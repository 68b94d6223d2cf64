# limit: 240
# kill -9 of either daemon at random microseconds, under load that knows what it wrote, with commands that change metadata running; the long
# form is `make campaign`.
set -euo pipefail
KILLS=20 exec "$top/tests/campaign/run" 25 1
