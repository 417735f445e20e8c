/**
 * The page: choose photos, tick questions, read answers. Plain ES modules and one style sheet, as the browser loads
 * them: one screen with two lists needs no framework, and without a build there is nothing to keep up to date and
 * nothing between this source and what a visitor runs.
 */
import { fetchModels } from "./api.js";
import { byId, element } from "./dom.js";
import { counted, percent, size } from "./format.js";
import { Others } from "./others.js";
import { Photo } from "./photo.js";
import { title } from "./problem.js";
import { Questions } from "./questions.js";
import { Uploads } from "./uploads.js";

/** How often the list of models is read again, in milliseconds. */
const REFRESH = 5_000;
/** A run shorter than this, in milliseconds, shows no progress bar: it would only flicker. */
const SHORT_RUN = 200;
/** Lines of news kept for a screen reader. */
const NEWS = 20;

/** @type {Photo[]} in the order they came */
const photos = [];
const input = byId("files");
const ask = byId("ask");
const upload = byId("upload");
const questions = new Questions(showAsk);
const uploads = new Uploads(showProgress);
const others = new Others(tell);
let limits = {};
let longRun;
let refreshing;

// Photos

input.addEventListener("change", () => {
  add([...input.files]);
  input.value = "";
});

document.addEventListener("paste", (event) => add([...event.clipboardData.files]));

/** Clips are dropped on the field that takes them. */
const isPhotos = ({ target }) => !target.closest?.("#others input");

// The whole page takes drops: a photo that misses the frame must not replace the page.
document.addEventListener("dragover", (event) => {
  if (!isPhotos(event)) return;
  event.preventDefault();
  byId("drop").classList.toggle("over", event.dataTransfer.types.includes("Files"));
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!isPhotos(event)) return;
  event.preventDefault();
  byId("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});

function add(files) {
  if (files.length === 0) return;
  tell(`${counted(files.length, "photo")} added.`);
  for (const file of files) {
    const photo = new Photo(file, { onRemove: remove, onAgain: (again) => start([again]) });
    photos.push(photo);
    byId("photos").append(photo.card);
    const problem = refusal(file);
    if (problem) fail(photo, problem);
  }
  say("");
  showAsk();
}

/** Why this file need not travel, if so. A type the browser does not know is for the server to judge. */
function refusal({ size: bytes, type }) {
  if (bytes === 0) return { code: "EMPTY_FILE" };
  if (type !== "" && !input.accept.split(",").includes(type)) {
    return { code: "UNSUPPORTED_MEDIA_TYPE", message: "Use JPEG, PNG, WebP, GIF, AVIF or TIFF." };
  }
  if (bytes > limits.maxImageBytes) {
    const message = `It has ${size(bytes)}; the limit is ${size(limits.maxImageBytes)}.`;
    return { code: "PAYLOAD_TOO_LARGE", message };
  }
  return undefined;
}

function fail(photo, problem) {
  photo.fail(problem);
  tell(`${photo.file.name}: ${title(problem)}`);
}

function remove(photo) {
  const place = photos.indexOf(photo);
  drop([photo]);
  const neighbour = photos[place] ?? photos[place - 1];
  if (neighbour) neighbour.focus();
  else input.focus();
  tell(`${photo.file.name} removed.`);
}

byId("clear").addEventListener("click", () => {
  drop([...photos]);
  input.focus();
  tell("All photos removed.");
});

function drop(gone) {
  for (const photo of gone) {
    photos.splice(photos.indexOf(photo), 1);
    uploads.stop(photo);
    photo.dispose();
    photo.card.remove();
  }
  showAsk();
}

// Asking

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const open = unanswered();
  const targets = open.length > 0 ? open : photos.filter((photo) => photo.askable && !photo.busy);
  if (photos.length === 0) {
    say("Choose a photo first.");
    input.focus();
  } else if (targets.length > 0) {
    start(targets);
    targets[0].card.scrollIntoView({ block: "nearest" });
  } else if (!photos.some((photo) => photo.busy)) {
    say("None of these photos can be asked about. Choose another.");
    input.focus();
  }
});

byId("stop").addEventListener("click", () => uploads.stop());

function start(targets) {
  const models = questions.ticked;
  if (models.length === 0) {
    say(questions.focus() ? "Tick a question first." : "No model is ready to answer yet.");
    return;
  }
  say("");
  tell(`Asking about ${counted(targets.length, "photo")}.`);
  for (const photo of targets) answer(photo, models);
}

async function answer(photo, models) {
  const asked = uploads.ask(photo, models);
  showAsk();
  try {
    const answer = await asked;
    photo.answer(answer, (model) => questions.textOf(model));
    tell(`${photo.file.name}: ${spoken(answer.results)}`);
  } catch (problem) {
    if (problem.name === "AbortError") photo.wait("Stopped");
    else fail(photo, problem);
    if (problem.code === "UNREACHABLE") refresh();
  }
  showAsk();
}

/** Photos that lack an answer to a ticked question. */
function unanswered() {
  const { ticked } = questions;
  return photos.filter(
    (photo) => photo.askable && !photo.busy && ticked.some((model) => !photo.answered.has(model)),
  );
}

// What the visitor sees and hears

function showAsk() {
  const open = unanswered().length;
  const again = photos.some(({ state }) => state === "answered");
  ask.textContent = open > 0 ? `Ask about ${counted(open, "photo")}` : again ? "Ask again" : "Ask";
  byId("empty").hidden = photos.length > 0;
  byId("clear").hidden = photos.length < 2;
}

function showProgress() {
  const { open, sent } = uploads.progress;
  if (open === 0) {
    clearTimeout(longRun);
    longRun = undefined;
    if (upload.contains(document.activeElement)) ask.focus();
    upload.hidden = true;
    return;
  }
  longRun ??= setTimeout(() => {
    upload.hidden = false;
  }, SHORT_RUN);
  const part = Math.floor(sent * 100);
  byId("upload-bar").value = part;
  byId("upload-label").textContent =
    part < 100 ? `Uploading: ${part}%` : `Uploaded. Waiting for ${counted(open, "answer")}…`;
}

function spoken(results) {
  return Object.entries(results)
    .map(([model, { answer, probability, error }]) => {
      const word = error ? title(error) : answer ? "Yes" : "No";
      const sure = error ? "" : `, ${percent(answer ? probability : 1 - probability)} sure.`;
      return `${questions.textOf(model)} ${word}${sure}`;
    })
    .join(" ");
}

/** What keeps the visitor from asking; "" once nothing does. */
function say(text) {
  byId("missing").textContent = text;
  byId("missing").hidden = text === "";
}

/** A line for screen readers: what others see happen. */
function tell(text) {
  const news = byId("news");
  news.append(element("p", {}, text));
  while (news.children.length > NEWS) news.firstElementChild.remove();
}

// The server

async function refresh() {
  try {
    const told = await fetchModels();
    limits = told.limits ?? {};
    questions.show(told.models);
    others.show(told.models, limits);
    const all = told.models.length;
    const ready = told.models.filter(({ state }) => state === "ready").length;
    if (ready === 0 || ready === all)
      showServer(ready > 0 ? "up" : "idle", `${counted(ready, "model")} ready`);
    else showServer("partly", `${ready} of ${counted(all, "model")} ready`);
    byId("files-limit").textContent = limits.maxImageBytes ? ` up to ${size(limits.maxImageBytes)}` : "";
  } catch {
    showServer("down", "Server unreachable");
  }
  showAsk();
  clearTimeout(refreshing);
  if (!document.hidden) refreshing = setTimeout(refresh, REFRESH);
}

function showServer(state, text) {
  const server = byId("server");
  server.dataset.state = state;
  // A status that is set is read aloud, changed or not.
  if (server.textContent !== text) server.textContent = text;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
window.addEventListener("online", refresh);

byId("command").textContent = `curl -F image=@photo.jpg '${new URL("api/classify", document.baseURI)}'`;
refresh();
