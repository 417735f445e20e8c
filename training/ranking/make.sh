#!/bin/sh
# Generates tastes and makes the recommender of them: trains, evaluates, writes manifest and model card.
#
#     training/ranking/make.sh [--work DIR] [--out DIR]
set -eu
cd "$(dirname "$0")/../.."
PATH=$PWD/node_modules/.bin:$PATH
: "${PYTHON:=python3}"

work=.cache/training/ranking out=examples/models/films/1
while [ $# -gt 0 ]; do
  case $1 in
    --work) work=$2 ;;
    --out) out=$2 ;;
    *) echo "Unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done

# The server takes a version that does not match its manifest for broken: nothing is shipped until all is there.
stage=$work/$(basename "$(dirname "$out")")/$(basename "$out")
rm -rf "$stage" && mkdir -p "$stage"

echo "1/2 train";    $PYTHON training/ranking/train.py --work "$work" --out "$stage"
echo "2/2 evaluate"; node training/ranking/manifest.ts --work "$work" --out "$stage"
rm -rf "$out" && mkdir -p "$(dirname "$out")" && mv "$stage" "$out"
