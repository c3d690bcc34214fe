// What the model knows: classes with rename, merge and forget; history with undo; its condition.

import { send } from "./api.js";
import { ask, at, counted, make, say, share } from "./parts.js";

/** Show the model and its lessons. */
export function show(model, lessons, changed) {
  document.title = `${model.name} – perdure`;
  document.body.classList.toggle("read-only", !model.can_learn);
  at("model-name").textContent = model.name;
  at("model-about").textContent = about(model);
  badge(model);
  banner(model);
  classes(model, changed);
  history(model, lessons, changed);
  at("known").replaceChildren(...model.classes.map(({ name }) => make("option", { value: name })));
}

function about(model) {
  if (!model.classes.length) return "Nothing learned yet: add pictures, select them, give them a class.";
  const count = counted(model.classes.length, "class", "classes");
  return `${count} · ${counted(model.lessons, "lesson")} · ${model.method} on ${model.backbone}`;
}

function badge(model) {
  const states = [
    [model.gone, "removed", "bad"],
    [model.busy, "learning…", "warn"],
    [model.read_only, "read-only", "warn"],
    [!model.can_learn, "predicts only", "warn"],
    [!model.classes.length, "empty", "warn"],
    [true, "ready", "good"],
  ];
  const [, text, kind] = states.find(([holds]) => holds);
  Object.assign(at("badge"), { textContent: text, hidden: false });
  at("badge").dataset.kind = kind;
}

function banner(model) {
  let text = "";
  if (model.gone) text = "The model's folder was removed. It goes on answering from memory; put the folder back to teach it.";
  else if (model.read_only) text = "Read-only: pictures are answered and counted, and nothing is taught.";
  else if (!model.can_learn) text = "This model was saved for prediction alone and cannot be taught.";
  Object.assign(at("banner"), { textContent: text, hidden: !text });
}

function classes(model, changed) {
  at("class-count").textContent = model.classes.length || "";
  at("no-classes").hidden = model.classes.length > 0;
  const names = model.classes.map(({ name }) => name);
  at("classes").replaceChildren(
    ...model.classes.map(({ name, images }) => {
      const row = make("li", {}, make("span", { className: "class-name", textContent: name }));
      if (images !== null) row.append(make("span", { className: "class-images", textContent: counted(images, "image") }));
      if (model.can_learn) row.append(menu(name, names, changed));
      return row;
    }),
  );
}

function menu(name, names, changed) {
  const actions = { "": "⋯", rename: "Rename…", merge: "Merge into…", forget: "Forget…" };
  if (names.length < 2) delete actions.merge;
  const select = make("select", { className: "teaching", "aria-label": `Change class ${name}` });
  select.append(...Object.entries(actions).map(([value, textContent]) => make("option", { value, textContent })));
  select.onchange = async () => {
    const action = select.value;
    select.value = "";
    const body = await question(action, name, names);
    if (!body) return;
    try {
      await send("POST", `api/classes/${action}`, body);
    } catch (error) {
      say(error.message);
    }
    await changed();
  };
  return select;
}

async function question(action, name, names) {
  if (action === "rename") {
    const value = await ask({ title: "Rename a class", label: `New name of “${name}”`, value: name, ok: "Rename" });
    return value && value !== name ? { name, new: value } : null;
  }
  if (action === "merge") {
    const others = names.filter((one) => one !== name);
    const text = "Both go on being recognised as they were learned, under one name. Undo takes it back.";
    const into = await ask({ title: `Merge “${name}”`, text, label: "into", choices: others, ok: "Merge" });
    return into ? { name, into } : null;
  }
  const text = "It is removed from the model and from everything that undo could bring back. This cannot be undone.";
  return (await ask({ title: `Forget “${name}”?`, text, ok: "Forget", danger: true })) ? { name } : null;
}

function history(model, { lessons, undoable }, changed) {
  at("no-history").hidden = lessons.length > 0;
  const rows = undoable.map((change, place) => {
    const text = make("span", { className: "history-text", textContent: change.text });
    text.append(make("span", { className: "about", textContent: when(change.time) }));
    const row = make("li", {}, text);
    if (place === undoable.length - 1 && model.can_learn) row.append(undo(change, changed));
    return row;
  });
  rows.reverse();
  if (lessons.length) rows.push(make("li", {}, make("span", { className: "about", textContent: latest(lessons) })));
  at("history").replaceChildren(...rows);
}

function latest(lessons) {
  const images = lessons.reduce((sum, lesson) => sum + Object.values(lesson.images).reduce((a, b) => a + b, 0), 0);
  const [head, accuracy] = Object.entries(lessons.at(-1).accuracy)[0] ?? [];
  const text = `${counted(lessons.length, "lesson")} of ${counted(images, "image")} in all.`;
  return head ? `${text} In the last one ${share(accuracy)} of its own images were right when left out.` : text;
}

function undo(change, changed) {
  const button = make("button", { type: "button", className: "teaching", textContent: "Undo", "aria-label": `Undo: ${change.text}` });
  button.onclick = async () => {
    button.disabled = true;
    try {
      const { undone } = await send("DELETE", "api/lessons/last");
      say(`Taken back: ${undone}.`, "good");
    } catch (error) {
      say(error.message);
    }
    await changed();
  };
  return button;
}

const when = (seconds) => new Date(1000 * seconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
