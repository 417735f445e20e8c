/** How long the server may stay silent, in milliseconds. Above the longest deadline it grants a request. */
const MODELS_TIMEOUT = 5_000;
const ANSWER_TIMEOUT = 60_000;

/**
 * The models now known to the server, and its limits where it tells them. Addresses are relative, so the page
 * also works behind a proxy that serves it below a path.
 *
 * @returns {Promise<{models: object[], limits?: {maxImageBytes?: number}}>}
 */
export async function fetchModels() {
  const response = await fetch("api/models", {
    cache: "no-store",
    signal: AbortSignal.timeout(MODELS_TIMEOUT),
  });
  if (!response.ok) throw new Error(`Status ${response.status}`);
  return response.json();
}

/**
 * Asks `models` about one photo. XMLHttpRequest, because `fetch` does not report the progress of an upload.
 *
 * @param {File} file
 * @param {string[]} models
 * @param {{signal: AbortSignal, onProgress: (sent: number) => void}} options `sent` runs from 0 to 1
 * @returns {Promise<object>} the answer as the server gave it
 * @throws {import("./problem.js").Problem} why there is none
 * @throws {DOMException} the signal's reason, when aborted
 */
export async function classify(file, models, { signal, onProgress }) {
  // A folder, or a file that has changed since: to XMLHttpRequest it would look like a broken network.
  await file
    .slice(0, 1)
    .arrayBuffer()
    .catch(() => {
      throw { code: "UNREADABLE_FILE" };
    });
  signal.throwIfAborted();
  return send(file, models, { signal, onProgress });
}

function send(file, models, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let patience;
    const abort = () => request.abort();

    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(loaded / total));
    request.upload.addEventListener("load", () => {
      onProgress(1);
      patience = setTimeout(() => {
        reject({ code: "NO_ANSWER", retryable: true });
        request.abort();
      }, ANSWER_TIMEOUT);
    });
    request.addEventListener("load", () => {
      const answer = parse(request.responseText);
      if (request.status === 200 && answer?.results) resolve(answer);
      else reject(problemOf(request.status, request.getResponseHeader("Retry-After"), answer));
    });
    request.addEventListener("error", () =>
      reject({
        code: "UNREACHABLE",
        message: "Check your connection, or whether the server is running.",
        retryable: true,
      }),
    );
    request.addEventListener("abort", () => reject(signal.reason));
    request.addEventListener("loadend", () => {
      clearTimeout(patience);
      signal.removeEventListener("abort", abort);
    });
    signal.addEventListener("abort", abort);

    const form = new FormData();
    form.append("image", file);
    request.open("POST", `api/classify?models=${models.map(encodeURIComponent).join(",")}`);
    request.send(form);
  });
}

/**
 * Asks one model about what is no photo: JSON, or a form with a clip.
 *
 * @param {string} model
 * @param {string | FormData} body
 * @param {AbortSignal} signal
 * @returns {Promise<object>} the answer as the server gave it
 * @throws {import("./problem.js").Problem} why there is none
 * @throws {DOMException} AbortError, when aborted
 */
export async function ask(model, body, signal) {
  const response = await fetch(`api/models/${encodeURIComponent(model)}/predict`, {
    method: "POST",
    body,
    ...(typeof body === "string" ? { headers: { "content-type": "application/json" } } : {}),
    signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT)]),
  }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw error.name === "TimeoutError" ? { code: "NO_ANSWER" } : { code: "UNREACHABLE" };
  });
  const answer = parse(await response.text());
  if (response.ok && answer?.results) return answer;
  throw problemOf(response.status, response.headers.get("Retry-After"), answer);
}

function problemOf(status, retry, answer) {
  if (!answer?.error) {
    return { code: "BAD_ANSWER", message: `Its status was ${status}.`, retryable: status > 500 };
  }
  const retryAfter = Number(retry);
  return { ...answer.error, ...(retryAfter > 0 ? { retryAfter } : {}) };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
