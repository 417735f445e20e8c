/**
 * After installing onnxruntime-node npm runs its script, which downloads a CUDA runtime of some hundred megabytes that
 * nothing here uses, from a host that many machines do not reach, and then fails. It can be told not to by a variable
 * only, or by a line in .npmrc that npm 11 warns about at each command; `allowScripts` in package.json is known to npm
 * 11 and later. So it meets this in place of its HTTP proxy package, whose `bootstrap` it calls first.
 */
exports.bootstrap = () => {
  process.env.ONNXRUNTIME_NODE_INSTALL ??= "skip";
};
