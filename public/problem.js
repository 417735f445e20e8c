/**
 * Why something has no answer. The server's `{code, message, retryable, requestId}` and the page's own reasons
 * share this one shape, so a card shows them all alike.
 *
 * @typedef {object} Problem
 * @property {string} code a code of the server's table, or one of the page's own in `TITLES`
 * @property {string} [message] the details, as the server put them
 * @property {boolean} [retryable] the same request may succeed later
 * @property {string} [requestId] finds the request in the server's log
 * @property {number} [retryAfter] seconds the server asks to wait
 */

/** What a person should read, and do, per code; a code without a row shows the server's message alone. */
const TITLES = {
  UNAUTHORIZED: "The server wants an API key.",
  FORBIDDEN: "The server does not allow this.",
  MODEL_NOT_FOUND: "This model is gone.",
  SLOW_REQUEST: "The upload was too slow.",
  PAYLOAD_TOO_LARGE: "This photo is too large.",
  UNSUPPORTED_MEDIA_TYPE: "This is not a photo the models can read.",
  INVALID_IMAGE: "This photo is damaged, or not a photo at all.",
  TOO_MANY_PIXELS: "This photo has too many pixels.",
  INVALID_VIDEO: "This clip cannot be looked at.",
  VIDEO_TOO_LONG: "This clip is too long.",
  CLIP_TOO_LARGE: "This clip is too large.",
  NO_FILE: "There is no clip yet.",
  DECODER_MISSING: "The server cannot read such clips.",
  RATE_LIMITED: "Too many photos in a short time.",
  INTERNAL: "Something broke on the server.",
  PREDICTION_FAILED: "The model failed on this photo.",
  POISON_REQUEST: "The models crash on this photo.",
  ENGINE_CRASHED: "The model crashed and is restarting.",
  QUEUE_FULL: "The model is busy.",
  MODEL_UNAVAILABLE: "The model is not available now.",
  DRAINING: "The server is restarting.",
  DEADLINE_EXCEEDED: "The answer took too long.",
  UNREACHABLE: "The server cannot be reached.",
  NO_ANSWER: "The server did not answer in time.",
  BAD_ANSWER: "Something between you and the server answered in its place.",
  EMPTY_FILE: "This file is empty.",
  UNREADABLE_FILE: "This file cannot be read.",
};

/** @param {Problem} problem */
export function title(problem) {
  return Object.hasOwn(TITLES, problem.code) ? TITLES[problem.code] : (problem.message ?? problem.code);
}

/** A deadline is not for programs to retry, lest they make a storm of it, but a person may. */
export function worthRetrying(problem) {
  return problem.retryable === true || problem.code === "DEADLINE_EXCEEDED";
}
