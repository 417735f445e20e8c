#!/usr/bin/env bash
# Installs @tensorflow/tfjs-node into .tfjs-node/, where the server looks for it, with the native TensorFlow that it needs.
# Its own installer downloads that; where it cannot, its addon is compiled against the library in TensorFlow's Python
# package, which needs Python 3 with venv, g++ and 1.3 gigabytes. Exit code 3: it cannot be had.
#
#     scripts/tfjs-node.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/node_modules/.bin:$PATH

version=$(node -p 'require("./package.json").peerDependencies["@tensorflow/tfjs-node"].replace("^", "")')
home=.tfjs-node
package=$home/node_modules/@tensorflow/tfjs-node
addon=$package/lib/napi-v8/tfjs_binding.node

works() {
  (cd "$home" && node -e '
    require("util").isNullOrUndefined ??= (value) => value == null; // Node 23 took it out.
    const tf = require("@tensorflow/tfjs-node");
    console.error(`tfjs-node ${tf.version["tfjs-node"]}, TensorFlow ${tf.backend().binding.TF_Version}`);')
}

if works 2>/dev/null; then exit 0; fi
mkdir -p "$home"
echo '{ "private": true }' >"$home/package.json"
npm install --prefix "$home" --ignore-scripts --no-audit --no-fund --silent "@tensorflow/tfjs-node@$version" node-api-headers
if (PATH=$PWD/$home/node_modules/.bin:$PATH && cd "$package" && timeout 300 node scripts/install.js) >/dev/null 2>&1 && works; then exit 0; fi

echo "tfjs-node's own download cannot be had: compiling against TensorFlow's Python package" >&2
command -v g++ >/dev/null || { echo "There is no g++ to compile tfjs-node with" >&2; exit 3; }
tensorflow=$(scripts/venv.sh tensorflow) || exit 3
tensorflow=$(echo "$tensorflow"/lib/python3*/site-packages/tensorflow)

rm -rf "$package/deps"
mkdir -p "$package/deps/lib" "$(dirname "$addon")"
for library in libtensorflow_cc.so.2 libtensorflow_framework.so.2; do
  # A second name for the same bytes where that is possible.
  ln "$tensorflow/$library" "$package/deps/lib/" 2>/dev/null || cp "$tensorflow/$library" "$package/deps/lib/"
done
g++ -O2 -std=c++17 -fPIC -shared -DNAPI_VERSION=8 -I"$home/node_modules/node-api-headers/include" -isystem "$tensorflow/include" \
  "$package/binding/tfjs_backend.cc" "$package/binding/tfjs_binding.cc" -o "$addon" \
  -L"$package/deps/lib" -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 -Wl,-rpath,'$ORIGIN/../../deps/lib'
works
