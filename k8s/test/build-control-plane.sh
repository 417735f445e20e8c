#!/usr/bin/env bash
# Prints the folder with the binaries of a Kubernetes control plane and of KWOK, for `npm run k8s:test`. They are built
# from their Go modules into a cache outside the repository, once a version: about 20 minutes of two cores that have
# other things to do. K8S_BINARIES names a folder that has them already; then nothing is built.
# Exit code 3: they are not here and cannot be built.
set -euo pipefail
cd "$(dirname "$0")/control-plane"

version=$(sed -n 's/^require k8s.io\/kubernetes //p' go.mod)
kwok=v0.8.0
folder=${K8S_BINARIES:-${XDG_CACHE_HOME:-$HOME/.cache}/dl-lambda/kubernetes-$version-kwok-$kwok}

missing() {
  for binary in kube-apiserver kube-controller-manager kube-scheduler kubectl kwok; do
    [ -x "$folder/$binary" ] || echo "$binary"
  done
}

build() { # binary, target
  echo "building $1" >&2
  if [ "$1" = kwok ]; then
    GOBIN=$(dirname "$2") go install -trimpath -ldflags "-s -w" "sigs.k8s.io/kwok/cmd/kwok@$kwok"
  else
    # A server tells its version to its clients, and decides by it which features it has.
    local flags="-s -w -X k8s.io/component-base/version.gitVersion=$version"
    IFS=. read -r major minor _ <<<"${version#v}"
    flags+=" -X k8s.io/component-base/version.gitMajor=$major -X k8s.io/component-base/version.gitMinor=$minor"
    go build -mod=readonly -trimpath -ldflags "$flags" -o "$2" "k8s.io/kubernetes/cmd/$1"
  fi
}

if ! command -v etcd >/dev/null && [ ! -x "$folder/etcd" ]; then
  echo "There is no etcd: install it (Debian: etcd-server)" >&2
  exit 3
fi
if [ -n "$(missing)" ]; then
  if [ -n "${K8S_BINARIES:-}" ]; then
    echo "K8S_BINARIES=$K8S_BINARIES lacks:" $(missing) >&2
    exit 3
  fi
  if ! command -v go >/dev/null; then
    echo "There is no Go to build" $(missing) "with; K8S_BINARIES may name a folder that has them" >&2
    exit 3
  fi
  export CGO_ENABLED=0
  mkdir -p "$folder"
  scratch=$(mktemp -d "$folder/building.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  for binary in $(missing); do
    build "$binary" "$scratch/$binary"
    # At once there or not at all: a build that was broken off leaves no half of a binary.
    mv "$scratch/$binary" "$folder/$binary"
  done
fi
echo "$folder"
