import { element } from "./dom.js";
import { duration, percent, size } from "./format.js";
import { title, worthRetrying } from "./problem.js";

let photos = 0;

/**
 * One photo and its card: waiting → uploading → asking → answered | failed, and from either end back to uploading
 * when asked again.
 */
export class Photo {
  /** @type {"waiting" | "uploading" | "asking" | "answered" | "failed"} */
  state = "waiting";
  /** Models that gave an answer. */
  answered = new Set();
  #file;
  #status = element("p", { class: "status" });
  #meta = element("p", { class: "meta" });
  #body = element("div");
  #again = element("button", { type: "button", class: "button", hidden: "" });
  #remove;
  #countdown;
  #canRetry = true;

  /**
   * @param {File} file
   * @param {{onRemove: (photo: Photo) => void, onAgain: (photo: Photo) => void}} handlers
   */
  constructor(file, { onRemove, onAgain }) {
    this.#file = file;
    const id = `photo-${++photos}`;
    this.#remove = element("button", {
      type: "button",
      class: "remove",
      "aria-label": `Remove ${file.name}`,
    });
    this.#remove.addEventListener("click", () => onRemove(this));
    this.#again.addEventListener("click", () => {
      if (this.#again.getAttribute("aria-disabled") !== "true") onAgain(this);
    });
    this.card = element(
      "li",
      {},
      element(
        "article",
        { class: "photo", "aria-labelledby": id },
        preview(file),
        element(
          "div",
          { class: "photo-main" },
          element(
            "div",
            { class: "photo-head" },
            element("div", {}, element("h3", { id }, file.name), this.#meta),
            this.#remove,
          ),
          this.#status,
          this.#body,
          this.#again,
        ),
      ),
    );
    this.#meta.textContent = size(file.size);
    this.wait("Ready to ask");
  }

  get file() {
    return this.#file;
  }

  /** Whether asking can help: an unreadable photo stays unreadable. */
  get askable() {
    return this.state !== "failed" || this.#canRetry;
  }

  get busy() {
    return this.state === "uploading" || this.state === "asking";
  }

  /** Moves the focus to the button that removes this photo. */
  focus() {
    this.#remove.focus();
  }

  wait(status) {
    this.#enter("waiting", status);
  }

  /** @param {number} sent part of the photo that has left, 0 to 1 */
  upload(sent) {
    if (sent < 1) this.#enter("uploading", `Uploading: ${Math.floor(sent * 100)}%`);
    else this.#enter("asking", "Uploaded. The models are looking…");
  }

  /**
   * @param {object} answer what `POST /api/classify` gave, and `roundTripMs`, the time of the whole request
   * @param {(model: string) => string} questionOf
   */
  answer({ image, results, timing, roundTripMs }, questionOf) {
    this.#enter("answered", "");
    const entries = Object.entries(results);
    const answers = entries.map(([name, result]) => answerOf(name, questionOf(name), result));
    const problems = entries.flatMap(([, { error }]) => (error ? [error] : []));
    this.answered = new Set(entries.filter(([, { error }]) => !error).map(([name]) => name));
    this.#meta.textContent = `${image.width} × ${image.height} · ${image.format.toUpperCase()} · ${size(image.bytes)}`;
    this.#body.replaceChildren(
      element("div", { class: "answer-grid" }, ...answers),
      facts([
        ["Decoded in", duration(timing.decodeMs)],
        ["Answered in", duration(timing.totalMs)],
        ["With upload", duration(roundTripMs)],
      ]),
    );
    this.#offerRetry(problems.some(worthRetrying));
  }

  /** @param {import("./problem.js").Problem} problem */
  fail(problem) {
    this.#enter("failed", "");
    this.#canRetry = worthRetrying(problem);
    this.answered.clear();
    this.#body.replaceChildren(problemOf(problem));
    this.#offerRetry(this.#canRetry, problem.retryAfter);
  }

  /** Ends what would outlive the card. */
  dispose() {
    clearInterval(this.#countdown);
  }

  #enter(state, status) {
    clearInterval(this.#countdown);
    const focused = document.activeElement === this.#again;
    this.state = state;
    this.card.firstElementChild.dataset.state = state;
    this.#status.textContent = status;
    this.#status.hidden = status === "";
    this.#again.hidden = true;
    if (focused) this.focus();
    if (state === "uploading" || state === "waiting") this.#body.replaceChildren();
  }

  /** @param {number} [wait] seconds during which the server would refuse */
  #offerRetry(offered, wait = 0) {
    this.#again.hidden = !offered;
    const until = Date.now() + wait * 1000;
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      this.#again.setAttribute("aria-disabled", String(left > 0));
      this.#again.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
      if (left <= 0) clearInterval(this.#countdown);
    };
    this.#countdown = setInterval(tick, 250);
    tick();
  }
}

/** The photo itself. Its object URL lives only until the pixels are there: nothing to leak, whatever comes next. */
function preview(file) {
  const image = element("img", { alt: `Preview of ${file.name}`, class: "preview", decoding: "async" });
  const url = URL.createObjectURL(file);
  image.addEventListener("load", () => URL.revokeObjectURL(url));
  image.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    image.replaceWith(element("div", { class: "preview none" }, "No preview"));
  });
  image.src = url;
  return image;
}

function answerOf(name, question, result) {
  const heading = element("h4", {}, question);
  if (result.error) return element("section", { class: "answer" }, heading, problemOf(result.error, name));
  const { answer, probability, labels, model, node, batchSize, timing, cached } = result;
  return element(
    "section",
    { class: "answer" },
    heading,
    element(
      "p",
      { class: "verdict" },
      element("strong", { class: answer ? "yes" : "no" }, answer ? "Yes" : "No"),
      ` ${percent(answer ? probability : 1 - probability)} sure`,
    ),
    element("ul", { class: "labels", "aria-label": "Probabilities" }, ...labels.map(labelRow)),
    facts([
      ["Model", model.name],
      ["Version", String(model.version)],
      ["Node", node],
      ...(cached
        ? [["From", "cache"]]
        : [
            ["Batch", String(batchSize)],
            ["Queue", duration(timing.queueMs)],
            ["Compute", duration(timing.computeMs)],
          ]),
    ]),
  );
}

function labelRow({ label, probability }) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  // Through the object model: the server's content policy allows no style attributes.
  bar.style.setProperty("--part", String(probability));
  return element(
    "li",
    {},
    element("span", { class: "label" }, label),
    " ",
    bar,
    element("span", { class: "percent" }, percent(probability)),
  );
}

function facts(pairs) {
  return element(
    "dl",
    { class: "facts" },
    ...pairs.map(([term, value]) =>
      element("div", {}, element("dt", {}, term), " ", element("dd", {}, value)),
    ),
  );
}

function problemOf(problem, model) {
  const headline = title(problem);
  const details = [
    ...(problem.message && problem.message !== headline ? [element("p", {}, problem.message)] : []),
    ...(problem.requestId || model
      ? [
          element(
            "p",
            { class: "trace" },
            [model, problem.code, problem.requestId && `request ${problem.requestId}`]
              .filter(Boolean)
              .join(" · "),
          ),
        ]
      : []),
  ];
  return element("div", { class: "problem" }, element("p", {}, element("strong", {}, headline)), ...details);
}
