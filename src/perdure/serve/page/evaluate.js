// Counting a labelled folder: accuracy, classes worst first, confusions with their pictures.

import { formOf, send } from "./api.js";
import { at, bar, counted, make, say, share, shot, work } from "./parts.js";
import { prepared } from "./pictures.js";

const AT_ONCE = 16;

/** Count pictures that lie in folders named after their classes. */
export async function evaluate(found) {
  const labelled = found.filter(({ folder }) => folder);
  if (!labelled.length) return say("There is no picture in a folder of its class. Choose a folder with a folder per class.");
  const query = labelled.some(({ folder }) => folder === "none") ? "?reject=0.05" : "";
  const total = { images: 0, correct: 0, unreadable: 0, classes: new Map(), confusions: new Map() };
  try {
    for (let place = 0; place < labelled.length; place += AT_ONCE) {
      work(`Counting ${place} of ${labelled.length}`, place, labelled.length);
      const part = labelled.slice(place, place + AT_ONCE);
      const pictures = await Promise.all(part.map(({ file }) => prepared(file)));
      const form = formOf(pictures.map(({ file }) => file), part.map(({ folder }) => folder));
      add(total, await send("POST", `api/evaluate${query}`, form), pictures);
    }
    draw(total);
  } catch (error) {
    say(error.message);
  } finally {
    work(null);
  }
}

/** Counts of several requests add up. */
function add(total, part, pictures) {
  for (const key of ["images", "correct", "unreadable"]) total[key] += part[key];
  for (const [name, { images, correct }] of Object.entries(part.classes)) {
    const entry = total.classes.get(name) ?? { images: 0, correct: 0 };
    total.classes.set(name, { images: entry.images + images, correct: entry.correct + correct });
  }
  const shown = new Set();
  for (const confusion of part.confusions) {
    const key = JSON.stringify([confusion.class, confusion.answer]);
    const entry = total.confusions.get(key) ?? { ...confusion, pictures: [] };
    entry.pictures.push(...confusion.places.map((place) => pictures[place]));
    confusion.places.forEach((place) => shown.add(pictures[place]));
    total.confusions.set(key, entry);
  }
  for (const picture of pictures) if (picture.thumbnail && !shown.has(picture)) URL.revokeObjectURL(picture.thumbnail);
}

function draw(total) {
  const rate = total.images ? total.correct / total.images : 0;
  const parts = [make("p", { className: "score", textContent: share(rate) })];
  const unreadable = total.unreadable ? `; ${total.unreadable} could not be read` : "";
  parts.push(make("p", { className: "about", textContent: `${total.correct} of ${counted(total.images, "picture")} right${unreadable}.` }));
  const rows = [...total.classes].map(([name, entry]) => ({ name, ...entry, rate: entry.correct / (entry.images || 1) }));
  rows.sort((a, b) => a.rate - b.rate || b.images - a.images);
  const body = make("tbody");
  for (const { name, images, correct, rate: own } of rows) {
    const cell = make("td", {}, name, bar(own));
    body.append(make("tr", {}, cell, make("td", { textContent: `${correct} / ${images}` }), make("td", { textContent: share(own) })));
  }
  const heads = ["Class, worst first", "right", ""].map((textContent) => make("th", { scope: "col", textContent }));
  parts.push(make("table", { className: "result" }, make("thead", {}, make("tr", {}, ...heads)), body));
  const confusions = [...total.confusions.values()].sort((a, b) => b.pictures.length - a.pictures.length);
  for (const [place, one] of confusions.entries()) {
    const title = `${one.class} taken for ${one.answer ?? "none of these"}: ${one.pictures.length}`;
    const strip = make("div", { className: "strip" }, ...one.pictures.map(shot));
    parts.push(make("details", { className: "confusion", open: place < 3 }, make("summary", { textContent: title }), strip));
  }
  at("evaluation").replaceChildren(...parts);
}
