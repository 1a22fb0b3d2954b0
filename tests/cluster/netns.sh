#!/usr/bin/env bash
# Four validators in four network namespaces: transfers all the time, one validator killed without a
# word (kill -9) and started again, then one that votes twice. Prints what each run measured as JSON
# lines and fails unless the chain went on each time, everyone ended on the same chain, and the one
# that voted twice was accused.
#
# usage: tests/cluster/netns.sh [TRANSFERS_PER_SECOND]
# Needs root (or CAP_NET_ADMIN and CAP_SYS_ADMIN) and iproute2; without them it says so and ends with
# status 77, which test harnesses read as "not run". CLUSTER names a built example to use instead of
# building one (release, features cluster and byzantine).
set -euo pipefail
cd "$(dirname "$0")/../.."
rate=${1:-4000}
skip() {
    echo "NOT RUN: $1" >&2
    exit 77
}
command -v ip >/dev/null || skip "ip (iproute2) is missing"
[ "$(id -u)" = 0 ] || skip "network namespaces need root"

if [ -z "${CLUSTER:-}" ]; then
    cargo build --release -p assay-evm --features byzantine --example cluster >&2
    CLUSTER=${CARGO_TARGET_DIR:-target}/release/examples/cluster
fi

id=asy$$
work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    for node in 0 1 2 3; do ip netns del "$id-$node" 2>/dev/null || true; done
    ip link del "$id" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

ip link add "$id" type bridge 2>/dev/null || skip "this machine does not let us add a bridge"
ip link set "$id" up
for node in 0 1 2 3; do
    ip netns add "$id-$node" 2>/dev/null || skip "this machine does not let us add a namespace"
    ip link add "v$$-$node" type veth peer name eth0 netns "$id-$node"
    ip link set "v$$-$node" master "$id" up
    ip -n "$id-$node" addr add "10.213.0.$((node + 1))/24" dev eth0
    ip -n "$id-$node" link set eth0 up
    ip -n "$id-$node" link set lo up
done
"$CLUSTER" keys "$work" 10.213.0.{1,2,3,4}:9400

# run NODE SECONDS RATE [twice]: one validator in its namespace, in the background.
run() {
    local node=$1
    ip netns exec "$id-$node" "$CLUSTER" node "$node" "$work" "${@:2}" >>"$work/out-$node" 2>>"$work/err-$node" &
    pids[node]=$!
}
# lines NODE: what the node's last run measured.
measured() { grep '"tps"' "$work/out-$1" | tail -n 1; }
field() { sed -E "s/.*\"$2\":\"?([^,\"}]*).*/\1/" <<<"$1"; }
fail() {
    echo "FAILED: $1" >&2
    tail -n 5 "$work"/err-* >&2 || true
    exit 1
}
height() { field "$(measured "$1")" height; }

echo "# four validators"
for node in 0 1 2 3; do run $node 20 "$rate"; done
wait "${pids[@]}" || true
for node in 0 1 2 3; do measured $node; done
before=$(height 0)
[ "${before:-0}" -gt 20 ] || fail "four validators finalised only ${before:-no} blocks"

echo "# one of them killed after five seconds, back after twelve"
for node in 0 1 2 3; do run $node 25 "$rate"; done
sleep 5
kill -9 "${pids[3]}"
wait "${pids[3]}" 2>/dev/null || true
sleep 7
run 3 13 0
wait "${pids[@]}" || true
for node in 0 1 2 3; do measured $node; done
after=$(height 0)
[ "$after" -gt $((before + 20)) ] || fail "the chain stood still without one validator"
[ "$(height 3)" -gt "$before" ] || fail "the validator that was killed did not come back"
[ $((after - $(height 3))) -lt 200 ] || fail "the validator that was killed did not catch up"

echo "# one of them votes twice"
for node in 0 1 2; do run $node 15 "$rate"; done
run 3 15 0 twice
wait "${pids[@]}" || true
for node in 0 1 2; do measured $node; done
[ "$(height 0)" -gt $((after + 20)) ] || fail "the chain stood still beside one that votes twice"
grep -hq '"accused":"0x' "$work"/out-[012] || fail "nobody accused the validator that votes twice"
grep -h -m 1 '"accused":"0x' "$work"/out-[012] | head -n 1
echo "# all of it as expected"
