// Suspects of the last lesson: pictures that the model would call otherwise without them.

import { at, make, share, shot } from "./parts.js";

/** Show suspects; `done` is given the labels by picture, null for those to drop. */
export function review(suspects, pictures, names, done) {
  at("suspects").hidden = suspects.length === 0;
  const rows = suspects.map((suspect) => ({ ...suspect, picture: pictures[suspect.place] }));
  at("suspect-list").replaceChildren(
    ...rows.map((row) => {
      const select = make("select", { "aria-label": `Class of ${row.picture.file.name}` });
      select.append(make("option", { value: row.label, textContent: `keep: ${row.label}` }));
      const others = [row.answer, ...names].filter((name, place, all) => name !== row.label && all.indexOf(name) === place);
      select.append(...others.map((name) => make("option", { value: name, textContent: `relabel: ${name}` })));
      select.append(make("option", { value: "\0", textContent: "drop" }));
      row.select = select;
      const told = `Taught as ${row.label}; without it: ${row.answer}, ${share(row.probability)}.`;
      return make("li", {}, shot(row.picture), make("div", { className: "text" }, make("p", { textContent: told }), select));
    }),
  );
  if (rows.length) at("suspects-title").focus();
  at("suspects-done").onclick = () => {
    at("suspects").hidden = true;
    const changes = rows.filter(({ select, label }) => select.value !== label);
    if (changes.length) done(new Map(changes.map(({ picture, select }) => [picture, select.value === "\0" ? null : select.value])));
  };
}
