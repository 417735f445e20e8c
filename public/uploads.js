import { classify } from "./api.js";

/** Photos on their way at once; a browser opens at most six connections to one server. */
const PARALLEL = 4;

/**
 * Asks about photos, a few at once, each in a request of its own: an answer shows as soon as it is there, and a
 * refused photo refuses no other. A run lasts from the first photo asked until none is left.
 */
export class Uploads {
  #queue = [];
  #run = new Set();
  #active = 0;
  #onProgress;

  /** @param {() => void} onProgress called after every change of `progress` */
  constructor(onProgress) {
    this.#onProgress = onProgress;
  }

  /** Of this run: photos not yet answered, and the part of all bytes that has left, 0 to 1. */
  get progress() {
    let bytes = 0;
    let sent = 0;
    for (const job of this.#run) {
      bytes += job.photo.file.size;
      sent += job.photo.file.size * job.sent;
    }
    return { open: this.#queue.length + this.#active, sent: sent / bytes };
  }

  /**
   * @param {import("./photo.js").Photo} photo
   * @param {string[]} models
   * @returns {Promise<object>} the server's answer, with `roundTripMs` beside it
   * @throws {import("./problem.js").Problem}
   * @throws {DOMException} AbortError, when stopped
   */
  ask(photo, models) {
    return new Promise((resolve, reject) => {
      const job = { photo, models, sent: 0, stopper: new AbortController(), resolve, reject };
      photo.wait("Waiting for its turn");
      this.#run.add(job);
      this.#queue.push(job);
      this.#next();
    });
  }

  /** Stops asking about this photo, or about all. */
  stop(photo) {
    for (const job of this.#run) {
      if (photo && job.photo !== photo) continue;
      job.stopper.abort();
      const place = this.#queue.indexOf(job);
      if (place < 0) continue;
      this.#queue.splice(place, 1);
      job.reject(job.stopper.signal.reason);
    }
    this.#next();
  }

  #next() {
    while (this.#active < PARALLEL && this.#queue.length > 0) this.#work(this.#queue.shift());
    if (this.#active === 0) this.#run.clear();
    this.#onProgress();
  }

  async #work(job) {
    this.#active++;
    const started = performance.now();
    const onProgress = (sent) => {
      job.sent = sent;
      job.photo.upload(sent);
      this.#onProgress();
    };
    job.photo.upload(0);
    try {
      const answer = await classify(job.photo.file, job.models, { signal: job.stopper.signal, onProgress });
      job.resolve({ ...answer, roundTripMs: performance.now() - started });
    } catch (problem) {
      job.reject(problem);
    }
    job.sent = 1;
    this.#active--;
    this.#next();
  }
}
