#!/bin/sh
# From photos to the shipped model: trains (or goes on where it stopped), exports, evaluates, writes manifest, model
# card and golden files.
#
#     training/make.sh --data DIR [--work DIR] [--out DIR] [--note TEXT]
#
# The note goes into the model card: what a reader of the recipe should know about this run of it.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/node_modules/.bin:$PATH
: "${PYTHON:=python3}"

usage='training/make.sh --data DIR [--work DIR] [--out DIR] [--note TEXT]'
data='' note='' work=.cache/training out=models/pets-resnet/1 golden=test/fixtures/golden
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) echo "$usage"; exit 0 ;;
    --data | --work | --out | --note) [ $# -ge 2 ] || { echo "Expected a value for $1; --help tells what there is" >&2; exit 2; } ;;
    *) echo "Unknown option $1; --help tells what there is" >&2; exit 2 ;;
  esac
  case $1 in
    --data) data=$2 ;;
    --work) work=$2 ;;
    --out) out=$2 ;;
    --note) note=$2 ;;
  esac
  shift 2
done
[ -n "$data" ] || { echo "Expected --data; --help tells what there is" >&2; exit 2; }

# The server takes a version that does not match its manifest for broken: nothing is shipped until all is there.
stage=$work/export/$(basename "$(dirname "$out")")/$(basename "$out")
rm -rf "$stage" && mkdir -p "$stage"

echo "1/6 train";         $PYTHON training/train.py --data "$data" --work "$work"
echo "2/6 export";        $PYTHON training/export.py --data "$data" --work "$work"
echo "3/6 quantise";      node training/quantize.ts --work "$work" --model "$stage/model.onnx"
echo "4/6 evaluate";      node training/evaluate.ts --work "$work" --model "$stage/model.onnx"
echo "5/6 golden files"
$PYTHON training/golden.py --out "$golden"
node training/golden.ts --work "$work" --model "$stage/model.onnx" --out "$golden"
echo "6/6 manifest";      node training/manifest.ts --work "$work" --golden "$golden" --out "$stage" --note "$note"
rm -rf "$out" && mkdir -p "$(dirname "$out")" && mv "$stage" "$out"
