// The page: pictures are asked, taught and corrected; everything it shows comes by REST.

import { formOf, pause, send, setToken } from "./api.js";
import { evaluate } from "./evaluate.js";
import { Grid, summary } from "./grid.js";
import { show } from "./model.js";
import { ask, at, counted, say, work } from "./parts.js";
import { chosen, dropped, openCamera, prepared } from "./pictures.js";
import { review } from "./suspects.js";

const AT_ONCE = 8; // pictures that are asked in one request
let model = null;
let answering = null;
let numbers = 0;
const grid = new Grid(changedSelection);

// ------------------------------------------------------------------------------------------ model

/** Read the model anew and show it; where its classes changed, pictures are asked again. */
async function refresh() {
  let lessons;
  const before = model?.version;
  try {
    [model, lessons] = await Promise.all([send("GET", "api/model"), send("GET", "api/lessons")]);
  } catch (error) {
    if (error.status === 401) return unlock();
    document.body.dataset.state = "silent";
    at("banner").hidden = false;
    at("banner").textContent = `${error.message} Trying again…`;
    await pause(2000);
    return refresh();
  }
  document.body.dataset.state = model.classes.length ? "ready" : "empty";
  show(model, lessons, refresh);
  strangers();
  outdate();
  changedSelection();
  if (before === undefined || before === model.version) return;
  at("suspects").hidden = true; // of a lesson that is not the last change any more
  answer(grid.pictures);
}

/** Offer to mark strangers as far as the model can tell them; at first 5 % of known ones are given up. */
function strangers() {
  const least = model.least_reject;
  const first = at("strangers").hidden;
  at("strangers").hidden = least === null;
  for (const option of at("reject").options) option.disabled = option.value > 0 && option.value < least;
  if (least === null || at("reject").selectedOptions[0].disabled) at("reject").value = "0";
  else if (first && least <= 0.05) at("reject").value = "0.05";
  mark();
}

function mark() {
  grid.reject = Number(at("reject").value);
  for (const picture of grid.pictures) grid.draw(picture);
  changedSelection();
}

/** Take the mark off pictures whose lesson was undone, or whose class is not called so any more. */
function outdate() {
  const names = new Set(model.classes.map(({ name }) => name));
  for (const picture of grid.pictures) {
    if (!picture.taught || (names.has(picture.taught) && picture.lesson <= model.lessons)) continue;
    picture.taught = undefined;
    grid.draw(picture);
  }
}

async function unlock() {
  const token = await ask({
    title: "This server needs a token",
    text: "It was printed when the server was started.",
    label: "Token",
    ok: "Unlock",
  });
  if (token) setToken(token.trim());
  await refresh();
}

// --------------------------------------------------------------------------------------- pictures

async function add(found) {
  if (!found.length) return say("There is no picture among these files.");
  document.body.classList.add("filled");
  const added = [];
  for (const [place, { file, folder }] of found.entries()) {
    if (found.length > AT_ONCE) work(`Reading ${place} of ${found.length}`, place, found.length);
    const picture = { ...(await prepared(file)), folder, number: numbers++ };
    grid.add(picture);
    added.push(picture);
  }
  work(null);
  changedSelection();
  await answer(added);
}

/** Ask for the answers to pictures, a few at a time; what is asked later waits for what came before. */
async function answer(pictures) {
  const before = answering;
  let end;
  answering = new Promise((done) => (end = done));
  await before;
  try {
    for (const picture of pictures) picture.pending = true;
    for (let place = 0; place < pictures.length; place += AT_ONCE) {
      if (pictures.length > AT_ONCE) work(`Answering ${place} of ${pictures.length}`, place, pictures.length);
      const part = pictures.slice(place, place + AT_ONCE);
      const answers = model.classes.length
        ? await send("POST", "api/predict?top=3", formOf(part.map(({ file }) => file)))
        : part.map(() => ({ untaught: true }));
      part.forEach((picture, k) => Object.assign(picture, { answer: answers[k], pending: false }));
      part.forEach((picture) => grid.draw(picture));
    }
  } catch (error) {
    say(error.message);
  } finally {
    for (const picture of pictures) picture.pending = false;
    work(null);
    end();
  }
  grid.order(at("order").value);
  changedSelection();
}

function changedSelection() {
  const { pictures, selected } = grid;
  document.body.classList.toggle("filled", pictures.length > 0);
  at("tools").hidden = pictures.length === 0;
  at("summary").textContent = summary(pictures);
  const all = selected.length === pictures.length;
  at("select-all").textContent = all && selected.length ? "Select none" : "Select all";
  at("teach").hidden = selected.length === 0;
  at("chosen").textContent = `${counted(selected.length, "picture")} selected`;
  const can = model?.can_learn && !model.busy && !model.gone;
  for (const id of ["label", "teach-button", "teach-folders"]) at(id).hidden = !model?.can_learn;
  at("teach-button").disabled = at("teach-folders").disabled = !can;
  at("teach-folders").hidden ||= !selected.length || !selected.every(({ folder }) => folder);
}

// ---------------------------------------------------------------------------------------- lessons

/** Teach pictures, each under its label, and watch the lesson until it ends; `instead` of the last one.
 *  True where it was learned. */
async function teach(pictures, labels, instead = null) {
  const sound = pictures.filter(({ answer: given }) => !given?.error);
  if (!sound.length) return say("None of the selected pictures can be read.");
  const named = labels.filter((_, place) => !pictures[place].answer?.error);
  let job;
  try {
    work("Sending pictures", 0, 1);
    const form = formOf(sound.map(({ file }) => file), named);
    const path = instead === null ? "api/lessons" : `api/lessons?instead_of=${instead}`;
    job = await send("POST", path, form, (sent) => work("Sending pictures", sent, 1));
    at("teach-button").disabled = true;
    while (job.state === "learning") {
      work(`Learning: ${job.phase}`, job.done, job.total);
      await pause(250);
      job = await send("GET", `api/lessons/${job.number}`);
    }
  } catch (error) {
    say(error.message);
    return refresh();
  } finally {
    work(null);
  }
  if (job.state === "failed") {
    say(job.error);
    return refresh();
  }
  const lesson = model.lessons + (instead === null ? 1 : 0);
  sound.forEach((picture, place) => {
    Object.assign(picture, { taught: named[place], lesson });
    grid.draw(picture);
  });
  grid.select(pictures, false);
  at("label").value = "";
  const names = [...new Set(named)];
  const learned = `Learned ${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""} from ${counted(sound.length, "picture")} in ${job.seconds.toFixed(1)} s.`;
  const lost = job.notes.filter((note) => note.startsWith("Its images could not"));
  say([learned, ...lost].join(" "), lost.length ? undefined : "good");
  await refresh();
  suspect(job, sound);
  return true;
}

/** Let the suspects of a lesson be looked through; what is changed is learned in the lesson's place. */
function suspect(job, pictures) {
  review(job.suspects, pictures, model.classes.map(({ name }) => name), async (changes) => {
    const labels = new Map(pictures.map((picture) => [picture, changes.has(picture) ? changes.get(picture) : picture.taught]));
    const kept = pictures.filter((picture) => labels.get(picture) !== null);
    const dropped = pictures.filter((picture) => labels.get(picture) === null);
    const learned = kept.length
      ? await teach(kept, kept.map((picture) => labels.get(picture)), job.number)
      : await takeBack();
    for (const picture of learned ? dropped : []) {
      picture.taught = undefined;
      grid.draw(picture);
    }
  });
}

async function takeBack() {
  try {
    await send("DELETE", "api/lessons/last");
  } catch (error) {
    say(error.message);
    return false;
  }
  await refresh();
  return true;
}

// ----------------------------------------------------------------------------------------- wiring

for (const button of document.querySelectorAll("[data-open]")) button.onclick = () => at(button.dataset.open).click();
for (const id of ["choose", "choose-folder", "shoot", "evaluate-folder"]) {
  at(id).onchange = () => {
    const found = chosen(at(id).files);
    at(id).value = "";
    if (id === "evaluate-folder") evaluate(found);
    else add(found);
  };
}
at("open-camera").onclick = () => openCamera((file) => add([{ file, folder: "" }]), () => at("shoot").click());
at("reject").onchange = mark;
at("order").onchange = () => grid.order(at("order").value);
at("clear").onclick = () => grid.remove(grid.pictures);
at("select-all").onclick = () => grid.select(grid.pictures, grid.selected.length !== grid.pictures.length);
at("drop-selected").onclick = () => grid.remove(grid.selected);
at("teach-folders").onclick = () => teach(grid.selected, grid.selected.map(({ folder }) => folder));
at("teach").onsubmit = (event) => {
  event.preventDefault();
  const label = at("label").value.trim();
  if (!label) return at("label").focus();
  teach(grid.selected, grid.selected.map(() => label));
};
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(await dropped(event.dataTransfer));
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) add(chosen(files));
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());

await refresh();
