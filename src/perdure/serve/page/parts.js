// Small parts of the page: elements, messages, progress, questions.

export const at = (id) => document.getElementById(id);

/** Make an element; texts are never read as markup. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("data-") || key.startsWith("aria-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const share = (value) => `${(100 * value).toFixed(value > 0.9995 || value === 0 ? 0 : 1)} %`;

/** A picture as it is shown; a word where the browser cannot show it. */
export function shot(picture) {
  const place = make("div", { className: "shot" });
  if (picture.thumbnail) place.append(make("img", { src: picture.thumbnail, alt: "", draggable: false }));
  else place.append("no preview");
  return place;
}

export function bar(value) {
  const inner = make("i");
  inner.style.width = `${Math.round(100 * value)}%`;
  return make("div", { className: "bar", "aria-hidden": "true" }, inner);
}

/** Say something in the corner; what is good goes away by itself. */
export function say(text, kind = "bad") {
  const close = make("button", { type: "button", className: "quiet", "aria-label": "Close", textContent: "×" });
  const alert = make("div", { className: "alert", "data-kind": kind }, make("p", { textContent: text }), close);
  close.onclick = () => alert.remove();
  if (kind === "good") for (const old of at("alerts").querySelectorAll('[data-kind="good"]')) old.remove();
  at("alerts").append(alert);
  while (at("alerts").children.length > 3) at("alerts").firstChild.remove();
  if (kind === "good") setTimeout(() => alert.remove(), 6000);
}

/** Show what is being done, and how far it is; null hides it. */
export function work(text, done = null, total = null) {
  at("work").hidden = text === null;
  if (text === null) return;
  at("work-text").textContent = text;
  if (total) at("work-bar").value = Math.min(1, done / total);
  else at("work-bar").removeAttribute("value");
}

/** Ask a question; the answer is a text, true for yes, or null for no. */
export function ask({ title, text = "", label = null, value = "", choices = null, ok, danger = false }) {
  const dialog = at("dialog");
  at("dialog-title").textContent = title;
  at("dialog-text").textContent = text;
  at("dialog-field").hidden = label === null;
  at("dialog-label").textContent = label ?? "";
  const [input, select] = [at("dialog-input"), at("dialog-select")];
  input.hidden = choices !== null;
  select.hidden = choices === null;
  input.value = value;
  input.type = ok === "Unlock" ? "password" : "text";
  select.replaceChildren(...(choices ?? []).map((name) => make("option", { value: name, textContent: name })));
  at("dialog-ok").textContent = ok;
  at("dialog-ok").className = danger ? "danger" : "main";
  dialog.returnValue = "";
  dialog.showModal();
  if (label !== null) (choices ? select : input).focus();
  // Enter in the field is the answer, and not the first button of the form.
  input.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    dialog.close("ok");
  };
  return new Promise((done) => {
    dialog.onclose = () => {
      const yes = dialog.returnValue === "ok";
      if (!yes) done(null);
      else if (label === null) done(true);
      else done((choices ? select : input).value);
    };
  });
}
