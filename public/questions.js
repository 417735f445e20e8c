import { byId, element } from "./dom.js";
import { counted } from "./format.js";

/**
 * The list of questions: one tick box for each image model. Rows are kept by name and changed in place, so a
 * refresh moves neither the focus nor a tick. New questions start ticked; a model that went away and came back
 * keeps what the visitor chose.
 */
export class Questions {
  #list = byId("questions-list");
  #note = byId("questions-note");
  #rows = new Map();
  #unticked = new Set();

  /** @param {() => void} onChange called when the visitor ticks or unticks */
  constructor(onChange) {
    this.#list.addEventListener("change", ({ target }) => {
      if (target.checked) this.#unticked.delete(target.value);
      else this.#unticked.add(target.value);
      onChange();
    });
  }

  /** Shows what `GET /api/models` told. Models of other inputs than images are not for this page. */
  show(models) {
    const images = models.filter(({ input }) => input.type === "image");
    for (const [name, { item }] of this.#rows) {
      if (images.some((model) => model.name === name)) continue;
      item.remove();
      this.#rows.delete(name);
    }
    images.forEach((model, index) => {
      const row = this.#rows.get(model.name) ?? this.#add(model.name);
      if (this.#list.children[index] !== row.item) {
        this.#list.insertBefore(row.item, this.#list.children[index] ?? null);
      }
      const ready = model.state === "ready";
      row.box.disabled = !ready;
      row.box.checked = ready && !this.#unticked.has(model.name);
      row.question.textContent = model.question;
      const about = ready
        ? `${model.name} · version ${model.model.version} · ${counted(model.replicas.length, "replica")}`
        : `${model.name} · not available now`;
      row.about.textContent = [about, ...troubleOf(model)].join(" · ");
    });
    this.#note.hidden = images.length > 0;
    this.#note.textContent = "No image model is running yet.";
  }

  /** Names of the models whose questions are ticked. */
  get ticked() {
    return [...this.#rows.values()].filter(({ box }) => box.checked).map(({ box }) => box.value);
  }

  /** What the visitor knows this model as. */
  textOf(name) {
    return this.#rows.get(name)?.question.textContent ?? name;
  }

  /** Moves the focus to the first question that can be ticked; false if there is none. */
  focus() {
    const box = this.#list.querySelector("input:enabled");
    box?.focus();
    return box !== null;
  }

  #add(name) {
    const id = `question-${name}`;
    const box = element("input", {
      type: "checkbox",
      id,
      name: "models",
      value: name,
      "aria-describedby": `${id}-about`,
    });
    const question = element("label", { for: id });
    const about = element("p", { id: `${id}-about` });
    const item = element("li", {}, box, question, about);
    const row = { item, box, question, about };
    this.#rows.set(name, row);
    return row;
  }
}

/** Which version newer than the one that answers cannot, and why; nothing if there is none. */
function troubleOf({ model, versions = [] }) {
  const failed = versions.find(({ version, state }) => state === "failed" && version > model.version);
  return failed ? [`version ${failed.version} cannot serve: ${failed.error}`] : [];
}
