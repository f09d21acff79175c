#!/usr/bin/env bash
# Hand a run to a Ray cluster whose dashboard is at RAY_API_SERVER_ADDRESS; needs ray[default] here and there, and
# rpucluster on every node.  Run as it is on a cluster of one node (`ray start --head` on the same machine, Ray 2.60).
set -euo pipefail

: "${RAY_API_SERVER_ADDRESS:=http://127.0.0.1:8265}"
export RAY_API_SERVER_ADDRESS
ray job submit -- \
    rpucluster run digits --cluster laptop --address auto --out /shared/runs/digits --checkpoint-every "5 min" --quiet
