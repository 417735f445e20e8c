import { ask } from "./api.js";
import { byId, element } from "./dom.js";
import { clock, percent, size } from "./format.js";
import { title } from "./problem.js";

/**
 * The models that photos are nothing to: a card with a form for each that takes texts, ranks items or looks at clips.
 * Cards are kept by name and changed in place, so a refresh takes nothing from who is just typing.
 */
export class Others {
  #section = byId("others");
  #list = byId("others-list");
  #cards = new Map();
  #tell;

  /** @param {(news: string) => void} tell says to screen readers what others see happen */
  constructor(tell) {
    this.#tell = tell;
  }

  /**
   * Shows what `GET /api/models` told.
   *
   * @param {object[]} models
   * @param {object} limits
   */
  show(models, limits) {
    const shown = models.filter(({ input }) => Object.hasOwn(FORMS, input.type));
    for (const [name, card] of this.#cards) {
      if (shown.some((model) => model.name === name && model.input.type === card.type)) continue;
      card.node.remove();
      this.#cards.delete(name);
    }
    for (const model of shown) {
      const card = this.#cards.get(model.name) ?? this.#add(model);
      card.refresh(model, limits, (name) => models.find((each) => each.name === name)?.question ?? name);
    }
    this.#section.hidden = shown.length === 0;
  }

  #add(model) {
    const card = new Card(model, this.#tell);
    this.#cards.set(model.name, card);
    this.#list.append(card.node);
    return card;
  }
}

/** One model: its question, a form, and what came of it last. */
class Card {
  #question = element("h3");
  #about = element("p", { class: "meta" });
  #answer = element("div", { class: "other-answer", role: "status" });
  #button = element("button", { type: "submit", class: "button" }, "Ask");
  #form;
  #fields;
  #name;
  #limits = {};
  #questionOf = (name) => name;
  #asking;

  constructor({ name, input }, tell) {
    this.#name = name;
    this.type = input.type;
    this.#fields = new FORMS[input.type](name);
    this.#form = element("form", {}, ...this.#fields.nodes, this.#button);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask(tell);
    });
    this.node = element(
      "li",
      { class: "photo other" },
      this.#question,
      this.#about,
      this.#form,
      this.#answer,
    );
  }

  refresh(model, limits, questionOf) {
    const ready = model.state === "ready";
    this.#question.textContent = model.question;
    this.#about.textContent = ready
      ? `${model.name} · version ${model.model.version}`
      : `${model.name} · not available now`;
    this.#limits = limits;
    this.#questionOf = questionOf;
    this.#fields.refresh(model, limits);
  }

  async #ask(tell) {
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    const problem = this.#fields.refusal(this.#limits);
    if (problem) return this.#fail(problem, tell);
    this.#answer.replaceChildren(element("p", { class: "status" }, "Asking…"));
    try {
      const { results } = await ask(this.#name, this.#fields.body(), asking.signal);
      const result = results[this.#name];
      if (result.error) throw result.error;
      const { nodes, spoken } = this.#fields.show(result, this.#questionOf);
      this.#answer.replaceChildren(...nodes);
      tell(spoken);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error, tell);
    }
  }

  #fail(problem, tell) {
    const headline = title(problem);
    const more = problem.message && problem.message !== headline ? [element("p", {}, problem.message)] : [];
    const node = element(
      "div",
      { class: "problem" },
      element("p", {}, element("strong", {}, headline)),
      ...more,
    );
    this.#answer.replaceChildren(node);
    tell(headline);
  }
}

class TextForm {
  #text;

  constructor(name) {
    const id = `text-${name}`;
    this.#text = element("textarea", { id, rows: "3", maxlength: "100000" });
    this.nodes = [element("label", { for: id, class: "field" }, "A text"), this.#text];
  }

  refresh() {}

  refusal() {
    return undefined;
  }

  body() {
    return JSON.stringify({ text: this.#text.value });
  }

  show({ answer, probability, outputs }) {
    if (answer === undefined)
      return { nodes: [element("pre", {}, JSON.stringify(outputs))], spoken: "Answered." };
    const word = answer ? "Yes" : "No";
    const sure = `${percent(answer ? probability : 1 - probability)} sure`;
    const verdict = element(
      "p",
      { class: "verdict" },
      element("strong", { class: answer ? "yes" : "no" }, word),
      ` ${sure}`,
    );
    return { nodes: [verdict], spoken: `${word}, ${sure}.` };
  }
}

class RankingForm {
  #user;
  #history;
  #catalogue = [];

  constructor(name) {
    const [user, history] = [`user-${name}`, `history-${name}`];
    this.#user = element("input", { id: user, type: "text", maxlength: "64", autocomplete: "off" });
    this.#history = element("select", { id: history, multiple: "", size: "6" });
    this.nodes = [
      element("label", { for: user, class: "field" }, "Who: an id, if the model may know them"),
      this.#user,
      element("label", { for: history, class: "field" }, "What they liked"),
      this.#history,
    ];
  }

  refresh({ items = [] }) {
    // The same catalogue again must not take away what is chosen.
    if (items.map(({ id }) => id).join() === this.#catalogue.join()) return;
    this.#catalogue = items.map(({ id }) => id);
    this.#history.replaceChildren(...items.map(({ id, title }) => element("option", { value: id }, title)));
  }

  refusal() {
    return undefined;
  }

  body() {
    const user = this.#user.value.trim();
    const history = [...this.#history.selectedOptions].map(({ value }) => value);
    return JSON.stringify({ ...(user ? { user } : {}), history });
  }

  show({ items, basedOn }) {
    const known = basedOn && (basedOn.user || basedOn.history > 0);
    const basis = !basedOn || known ? "" : "Nothing is known of them: what most people like.";
    return {
      nodes: [
        element("ol", { class: "ranked" }, ...items.map(({ title }) => element("li", {}, title))),
        element("p", { class: "meta" }, basis),
      ],
      spoken: items.length > 0 ? `First: ${items[0].title}.` : "There is nothing to rank.",
    };
  }
}

class VideoForm {
  #file;
  #hint = element("p", { class: "meta" });

  constructor(name) {
    const id = `clip-${name}`;
    this.#file = element("input", {
      id,
      type: "file",
      accept: "video/mp4,video/quicktime,video/webm,video/x-matroska,video/x-msvideo,.mkv,.avi",
    });
    this.nodes = [element("label", { for: id, class: "field" }, "A clip"), this.#file, this.#hint];
  }

  refresh({ input }, { maxVideoBytes }) {
    const most = maxVideoBytes ? ` and ${size(maxVideoBytes)}` : "";
    this.#hint.textContent = `MP4, QuickTime, WebM, Matroska or AVI, up to ${clock(input.maxSeconds)} min${most}`;
  }

  refusal({ maxVideoBytes }) {
    const [file] = this.#file.files;
    if (!file) return { code: "NO_FILE", message: "Choose a clip first." };
    if (!(file.size > maxVideoBytes)) return undefined;
    const message = `It has ${size(file.size)}; the limit is ${size(maxVideoBytes)}.`;
    return { code: "CLIP_TOO_LARGE", message };
  }

  body() {
    const form = new FormData();
    form.append("video", this.#file.files[0]);
    return form;
  }

  show({ moments, summary }, questionOf) {
    const rows = Object.entries(summary).map(([model, of]) =>
      timelineOf(questionOf(model), model, of, moments),
    );
    const spoken = Object.entries(summary).map(([model, of]) => `${questionOf(model)} ${inWords(of)}`);
    return { nodes: rows, spoken: spoken.join(" ") };
  }
}

/** A question's answers along the clip: a cell for each moment that was looked at. */
function timelineOf(question, model, summary, moments) {
  const cells = moments.map(({ atSeconds, answers }) => {
    const { answer, probability, error } = answers[model] ?? {};
    const word = error || answer === undefined ? "no answer" : answer ? "Yes" : "No";
    const sure = probability === undefined ? "" : `, ${percent(answer ? probability : 1 - probability)} sure`;
    const text = `${clock(atSeconds)}: ${word}${sure}`;
    return element(
      "li",
      { class: answer ? "yes" : answer === false ? "no" : "none", title: text },
      element("span", { class: "unseen" }, text),
    );
  });
  const ends = [moments[0], moments.at(-1)].map(({ atSeconds }) => element("span", {}, clock(atSeconds)));
  return element(
    "section",
    { class: "answer" },
    element("h4", {}, question),
    element("ol", { class: "timeline" }, ...cells),
    element("p", { class: "timeline-ends" }, ...ends),
    element("p", {}, inWords(summary)),
  );
}

/** "Yes in 4 of 6 moments: 0:00–0:02, 0:05; most clearly at 0:01 (98%)." */
function inWords({ moments, yes, spans, likeliest }) {
  if (yes === 0) return `No, in all ${moments} moments.`;
  const times = spans.map(({ fromSeconds, toSeconds }) =>
    fromSeconds === toSeconds ? clock(fromSeconds) : `${clock(fromSeconds)}–${clock(toSeconds)}`,
  );
  const most = `most clearly at ${clock(likeliest.atSeconds)} (${percent(likeliest.probability)})`;
  return `Yes in ${yes} of ${moments} moments: ${times.join(", ")}; ${most}.`;
}

/** By the type of input that a model takes. */
const FORMS = { text: TextForm, ranking: RankingForm, video: VideoForm };
