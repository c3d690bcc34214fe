// The grid of pictures: tiles with answers, selection by mouse and keyboard.

import { at, bar, counted, make, share, shot } from "./parts.js";

const UNSURE = 0.6;

/** The grid; `changed` is called after every change of what is selected. */
export class Grid {
  #list = at("grid");
  #changed;
  #last = null;
  pictures = [];
  /** Share of known pictures that may be given up: what is less familiar is called a stranger. */
  reject = 0;

  constructor(changed) {
    this.#changed = changed;
    this.#list.addEventListener("click", (event) => this.#click(event));
    this.#list.addEventListener("keydown", (event) => this.#key(event));
  }

  get selected() {
    return this.pictures.filter((picture) => picture.selected);
  }

  add(picture) {
    picture.tile = make("li", { className: "tile", role: "option", tabIndex: this.pictures.length ? -1 : 0 });
    picture.tile.picture = picture;
    this.pictures.push(picture);
    this.#list.append(picture.tile);
    this.draw(picture);
  }

  remove(pictures) {
    const gone = new Set(pictures);
    for (const picture of gone) {
      picture.tile.remove();
      if (picture.thumbnail) URL.revokeObjectURL(picture.thumbnail);
    }
    this.pictures = this.pictures.filter((picture) => !gone.has(picture));
    if (this.pictures.length) this.#list.firstElementChild.tabIndex = 0;
    this.#changed();
  }

  select(pictures, value) {
    for (const picture of pictures) {
      picture.selected = value;
      picture.tile.setAttribute("aria-selected", value);
    }
    this.#changed();
  }

  order(by) {
    const certainty = ({ answer }) => (isStrange(answer, this.reject) ? 0 : (answer?.probability ?? (answer ? -1 : 2)));
    const orders = {
      added: (a, b) => a.number - b.number,
      unsure: (a, b) => certainty(a) - certainty(b),
      class: (a, b) => (a.answer?.class ?? "").localeCompare(b.answer?.class ?? "") || certainty(b) - certainty(a),
    };
    this.pictures.sort(orders[by]);
    const tiles = this.pictures.map(({ tile }) => tile);
    // A tile that is moved loses the focus: nothing is moved that stands where it belongs.
    if (tiles.some((tile, place) => tile !== this.#list.children[place])) this.#list.append(...tiles);
  }

  /** Draw a tile anew: its answer, what it was taught as, whether it is selected. */
  draw(picture) {
    const { tile, answer, taught, folder } = picture;
    const told = spoken(picture, this.reject);
    tile.dataset.kind = told.kind;
    tile.setAttribute("aria-selected", picture.selected ?? false);
    tile.setAttribute("aria-label", `${picture.file.name}: ${told.all}`);
    tile.title = picture.file.name;
    const name = make("div", { className: "answer-name" }, make("span", { textContent: told.name }), make("span", { textContent: told.share }));
    const text = make("div", { className: "answer" }, name);
    if (told.share) text.append(bar(answer.probability));
    if (told.second) text.append(make("div", { className: "second", textContent: told.second }));
    const tick = make("span", { className: "tick", textContent: "✓", "aria-hidden": "true" });
    const parts = [shot(picture), tick, text];
    if (taught) parts.push(make("span", { className: "taught", textContent: taught }));
    else if (folder) parts.push(make("span", { className: "taught folder", textContent: folder }));
    tile.replaceChildren(...parts);
  }

  #click(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const tiles = [...this.#list.children];
    if (event.shiftKey && this.#last?.isConnected) {
      const [from, to] = [tiles.indexOf(this.#last), tiles.indexOf(tile)].sort((a, b) => a - b);
      this.select(tiles.slice(from, to + 1).map((one) => one.picture), true);
    } else {
      this.select([tile.picture], !tile.picture.selected);
    }
    this.#focus(tile);
    this.#last = tile;
  }

  #key(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const tiles = [...this.#list.children];
    const across = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
    const place = tiles.indexOf(tile);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
    if (event.key in steps) this.#focus(tiles[place + steps[event.key]] ?? tile);
    else if (event.key === "Home") this.#focus(tiles[0]);
    else if (event.key === "End") this.#focus(tiles.at(-1));
    else if (event.key === " ") this.select([tile.picture], !tile.picture.selected);
    else if (event.key === "Enter") {
      if (!tile.picture.selected) this.select([tile.picture], true);
      at("label").focus();
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.select(this.pictures, true);
    else if (event.key === "Escape") this.select(this.selected, false);
    else if (event.key === "Delete") this.remove(this.selected.length ? this.selected : [tile.picture]);
    else return;
    event.preventDefault();
  }

  #focus(tile) {
    for (const one of this.#list.children) one.tabIndex = one === tile ? 0 : -1;
    tile.focus();
  }
}

const isStrange = (answer, reject) => answer?.class === null || (answer?.familiarity ?? 1) < reject;

/** What is said of a picture's answer. */
function spoken({ answer, pending }, reject) {
  if (!answer) {
    const name = pending ? "looking…" : "not asked yet";
    return { kind: "waiting", name, share: "", second: "", all: name };
  }
  if (answer.error) return { kind: "fault", name: "not readable", share: "", second: answer.error, all: answer.error };
  if (answer.untaught) return { kind: "waiting", name: "no class yet", share: "", second: "", all: "the model knows no class yet" };
  if (isStrange(answer, reject)) {
    const best = answer.top?.[0];
    const second = best ? `nearest: ${best.class}` : "";
    return { kind: "unknown", name: "none of these", share: "", second, all: `none of the known classes, ${second}` };
  }
  const others = (answer.top ?? []).slice(1, 3).filter((one) => one.probability >= 0.01);
  const second = others.map((one) => `${one.class} ${share(one.probability)}`).join(", ");
  const certain = share(answer.probability);
  const kind = answer.probability < UNSURE ? "unsure" : "sure";
  return { kind, name: answer.class, share: certain, second, all: `${answer.class}, ${certain}${second ? `; or ${second}` : ""}` };
}

/** A sentence on all pictures. */
export function summary(pictures) {
  const unknown = pictures.filter(({ tile }) => tile.dataset.kind === "unknown").length;
  const unsure = pictures.filter(({ tile }) => tile.dataset.kind === "unsure").length;
  const faults = pictures.filter(({ answer }) => answer?.error).length;
  const parts = [counted(pictures.length, "picture")];
  if (unknown) parts.push(`${unknown} none of these`);
  if (unsure) parts.push(`${unsure} unsure`);
  if (faults) parts.push(`${faults} not readable`);
  return parts.join(" · ");
}
