#!/usr/bin/env bash
# Prints the folder of a Python environment with the packages of testkit/python/<name>.txt. It is made once and kept
# outside the repository. Exit code 3: it is not here and cannot be made.
#
#     scripts/venv.sh tensorflow
#     scripts/venv.sh --made tensorflow     where it was not made before, it is not made now
set -euo pipefail
cd "$(dirname "$0")/../testkit/python"

made=
[ "$1" != --made ] || { made=1; shift; }
name=$1
lists=("$name.txt")
[ ! -f "$name.no-deps.txt" ] || lists+=("$name.no-deps.txt")
digest=$(cat "${lists[@]}" | sha256sum | cut -c1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/dl-lambda/$name-$digest

if [ ! -f "$folder/complete" ]; then
  [ -z "$made" ] || exit 3
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  rm -rf "$folder"
  echo "installing Python packages: $name" >&2
  if ! {
    "${PYTHON:-python3}" -m venv "$folder" &&
      "$folder/bin/pip" install --quiet --retries 1 --disable-pip-version-check -r "$name.txt" &&
      { [ ! -f "$name.no-deps.txt" ] || "$folder/bin/pip" install --quiet --retries 1 --disable-pip-version-check --no-deps -r "$name.no-deps.txt"; }
  } >"$log" 2>&1; then
    echo "$name cannot be installed: $(tail -n 1 "$log")" >&2
    exit 3
  fi
  touch "$folder/complete"
fi
echo "$folder"
