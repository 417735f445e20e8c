#!/usr/bin/env bash
# Builds the image and uses it as it is meant to be: read-only root, no capabilities, no user of its own on the host.
# It must be ready, answer a photo, end on SIGTERM, and be no more than 260 MB on top of its base.
#
#   npm run image:test                       on a base made here: Debian (debootstrap), the `node` of node_modules, npm
#   BASE=node:24-slim npm run image:test     on a base that buildah can pull
#
# Needs root, buildah, podman, runc and debootstrap (Debian: apt-get install buildah podman runc debootstrap), and
# `npm ci` done. Ends with 77 where they are missing or may not run containers.
set -euo pipefail
cd "$(dirname "$0")/.."

MAX_MB=260
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/dl-lambda/image"
STORE=(--root "$CACHE/storage" --runroot "$CACHE/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
IMAGE=localhost/dl-lambda
# Limits that need not be raised, for hosts that may not.
LIMITS=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
PORT="${PORT:-18300}"
ADMIN_PORT=$((PORT + 1))

buildah() { command buildah "${STORE[@]}" "$@"; }
podman() { command podman "${STORE[@]}" --cgroup-manager=cgroupfs --runtime runc "$@"; }
say() { echo "── $*"; }
fail() {
  echo "image: $*" >&2
  exit 1
}

unable() {
  echo "image: not tested here: $*" >&2
  exit 77
}

for tool in buildah podman runc debootstrap; do
  command -v $tool >/dev/null || unable "$tool is missing"
done
[ "$(id -u)" = 0 ] || unable "needs root"
mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9

# A stand-in for node:24-slim, as it is where no registry of images can be reached. npm in it is set up as npm is here.
make_base() {
  local rootfs="$CACHE/rootfs" name root npm
  [ -e "$rootfs/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$rootfs" >"$CACHE/debootstrap.log"
  name=$(buildah from scratch)
  root=$(buildah mount "$name")
  cp -a "$rootfs/." "$root/"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}
  npm=$(readlink -f "$(command -v npm)")
  mkdir -p "$root/usr/local/lib/node_modules" "$root/etc/ssl/certs"
  cp node_modules/node/bin/node "$root/usr/local/bin/node"
  cp -a "${npm%/bin/npm-cli.js}" "$root/usr/local/lib/node_modules/npm"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  buildah config \
    --env "npm_config_registry=$(npm config get registry 2>/dev/null)" \
    --env npm_config_cafile=/etc/ssl/certs/ca-certificates.crt \
    "$name"
  buildah unmount "$name" >/dev/null
  buildah commit --quiet --rm "$name" "$BASE" >/dev/null
}

build() { # tag, context
  buildah bud --quiet --format docker --isolation chroot --layers --build-arg "BASE=$BASE" \
    --volume "$(npm config get cache 2>/dev/null):/root/.npm" \
    --tag "$1" "$2" >/dev/null
}

bytes() { # image
  local name
  name=$(buildah from --pull-never "$1")
  du -sb "$(buildah mount "$name")" | cut -f1
  buildah rm "$name" >/dev/null
}

layers() { buildah inspect --type image --format '{{range .OCIv1.RootFS.DiffIDs}}{{println .}}{{end}}' "$1" | grep sha256; }

run() { # name, options
  local name=$1
  shift
  podman run --detach --name "$name" --network host --read-only --read-only-tmpfs=false --cap-drop all \
    --security-opt no-new-privileges --no-healthcheck \
    "${LIMITS[@]}" \
    --env "PORT=$PORT" --env "ADMIN_PORT=$ADMIN_PORT" --env HOST=127.0.0.1 --env LOG_FORMAT=json "$@" "$IMAGE" >/dev/null
  CONTAINER=$name
  for _ in $(seq 120); do
    curl --silent --fail --output /dev/null "127.0.0.1:$PORT/health/ready" && return
    [ "$(podman inspect --format '{{.State.Running}}' "$name")" = true ] || break
    sleep 0.5
  done
  podman logs "$name" >&2
  fail "$name did not become ready"
}

stop() { # name
  podman stop --time 30 "$1" >/dev/null
  local code
  code=$(podman inspect --format '{{.State.ExitCode}}' "$1")
  podman rm --force "$1" >/dev/null
  CONTAINER=
  [ "$code" = 0 ] || fail "ended with $code at SIGTERM"
}

CONTAINER=
cleanup() { [ -z "$CONTAINER" ] || podman rm --force "$CONTAINER" >/dev/null 2>&1 || true; }
trap cleanup EXIT

LOCAL_BASE="localhost/dl-lambda-base:$(node_modules/.bin/node -p process.versions.node)"
BASE="${BASE:-$LOCAL_BASE}"
if [ "$BASE" = "$LOCAL_BASE" ] && ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
  say "making a base"
  make_base
fi

podman run --rm --network host "${LIMITS[@]}" "$BASE" node --version >/dev/null || unable "podman cannot run a container"

say "building on $BASE"
build "$IMAGE" .

base=$(bytes "$BASE")
whole=$(bytes "$IMAGE")
mb=$(((whole - base + 999999) / 1000000))
say "$mb MB on top of a base of $((base / 1000000)) MB"
[ "$mb" -le "$MAX_MB" ] || fail "$mb MB on top of the base, at most $MAX_MB"

user=$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$IMAGE")
[[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]] || fail "the user is \"$user\", not a number: runAsNonRoot cannot check it"

say "a changed service file"
context=$(mktemp -d)
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --preserve=mode,timestamps -t "$context"
echo "// changed" >>"$context/services/resnet-cat.service.ts"
build "$IMAGE-changed" "$context"
rm -rf "$context"
changed=$(comm -13 <(layers "$IMAGE" | sort) <(layers "$IMAGE-changed" | sort) | wc -l)
[ "$changed" = 1 ] || fail "$changed layers are new, expected 1"

say "running it, models baked in"
run "dl-lambda-baked-$$"
photo=$(ls test/fixtures/golden/*.png | head -n1)
answer=$(curl --silent --fail --form "image=@$photo;type=image/png" "127.0.0.1:$PORT/api/classify")
[[ $answer == *'"answer":'* ]] || fail "no answer to $photo: $answer"
curl --silent --fail "127.0.0.1:$ADMIN_PORT/metrics" | grep -q '^http_requests_total{route="/api/classify",status="200"} 1$' ||
  fail "the admin port has no metrics of the request"
# As the image says, by hand: podman has systemd do it.
buildah inspect --type image --format '{{.Docker.Config.Healthcheck.Test}}' "$IMAGE" | grep -q bin/healthcheck.ts || fail "no health check"
podman exec "$CONTAINER" node bin/healthcheck.ts || fail "the health check fails"
podman exec "$CONTAINER" sh -c 'touch /app/x 2>/dev/null' && fail "the root can be written to"
stop "$CONTAINER"

say "starting it again: what Node compiles is there already"
compiled=$(podman run --rm --no-healthcheck --network host "${LIMITS[@]}" --entrypoint sh "$IMAGE" -c \
  'ls node_modules/.cache/node/*-1000/* | wc -l; du -sm node_modules/.cache | cut -f1')
[ "$(head -n1 <<<"$compiled")" -gt 300 ] || fail "only $compiled files in the compile cache"
say "compile cache: $(tr '\n' ' ' <<<"$compiled")files and MB"

say "running it, models mounted"
run "dl-lambda-mounted-$$" --volume "$PWD/models:/mnt/models:ro" --env MODELS_DIR=/mnt/models
curl --silent --fail "127.0.0.1:$PORT/api/models" | grep -q '"state":"ready"' || fail "no model is ready"
stop "$CONTAINER"

say "$mb MB, ready, answered, ended in order"
