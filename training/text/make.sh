#!/bin/sh
# From messages to the spam model: trains, evaluates, writes manifest, model card and the tokenizer's golden file.
#
#     training/text/make.sh --data sms-spam.tsv [--work DIR] [--out DIR]
set -eu
cd "$(dirname "$0")/../.."
PATH=$PWD/node_modules/.bin:$PATH
: "${PYTHON:=python3}"

data='' work=.cache/training/text out=examples/models/spam-sms/1
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$2 ;;
    --work) work=$2 ;;
    --out) out=$2 ;;
    *) echo "Unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$data" ] || { echo "Usage: training/text/make.sh --data FILE [--work DIR] [--out DIR]" >&2; exit 2; }

# The server takes a version that does not match its manifest for broken: nothing is shipped until all is there.
stage=$work/$(basename "$(dirname "$out")")/$(basename "$out")
rm -rf "$stage" && mkdir -p "$stage"

echo "1/3 train";       $PYTHON training/text/train.py --data "$data" --work "$work" --out "$stage"
echo "2/3 evaluate";    node training/text/manifest.ts --work "$work" --out "$stage"
echo "3/3 golden file"; $PYTHON training/text/golden.py --out test/fixtures/golden
rm -rf "$out" && mkdir -p "$(dirname "$out")" && mv "$stage" "$out"
