#!/usr/bin/env bash
# `npm run k8s:test`: gets the binaries of a control plane (build-control-plane.sh) and runs the tests on it.
set -euo pipefail
cd "$(dirname "$0")/../.."
K8S_BINARIES=$(k8s/test/build-control-plane.sh)
export K8S_BINARIES
exec node --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js \
  --config k8s/test/jest.config.ts "$@"
