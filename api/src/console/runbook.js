// The runbook, served with the page: whole, or the section that a problem names. A small reader of its Markdown.

import { button, h, show } from "./dom.js";

let text = null;
const read = async () => (text ??= await fetch("console/runbook.md", { credentials: "omit" }).then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error("The runbook cannot be read.")))));

const slug = (heading) => heading.toLowerCase().replaceAll(" ", "-");

/** Code, bold, emphasis, and links (to a section of this page they lead; others keep their text). */
function inline(line, follow) {
  const parts = [];
  const pattern = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)]+)\)/g;
  let from = 0;
  for (const found of line.matchAll(pattern)) {
    parts.push(line.slice(from, found.index));
    from = found.index + found[0].length;
    const [, code, bold, stressed, words, target] = found;
    if (code) parts.push(h("code", null, code));
    else if (bold) parts.push(h("b", null, bold));
    else if (stressed) parts.push(h("em", null, stressed));
    else if (target.startsWith("#")) parts.push(button(words, () => follow(target.slice(1)), { class: "link" }));
    else parts.push(h("span", { title: target }, words));
  }
  parts.push(line.slice(from));
  return parts;
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

/** Markdown as elements. */
function render(markdown, follow) {
  const lines = markdown.split("\n");
  const blocks = [];
  let at = 0;
  const text = (line) => inline(line, follow);
  while (at < lines.length) {
    const line = lines[at];
    const bare = line.trim();
    if (bare === "") { at += 1; continue; }
    if (bare.startsWith("```")) {
      const code = [];
      for (at += 1; at < lines.length && !lines[at].trim().startsWith("```"); at += 1) code.push(lines[at]);
      at += 1;
      blocks.push(h("pre", { tabindex: "0" }, code.join("\n")));
    } else if (/^#{1,3} /.test(bare)) {
      const [, marks, words] = bare.match(/^(#{1,3}) (.*)$/);
      blocks.push(h(marks.length === 1 ? "h2" : "h3", { "data-section": slug(words), tabindex: "-1" }, words));
      at += 1;
    } else if (bare.startsWith("|")) {
      const rows = [];
      for (; at < lines.length && lines[at].trim().startsWith("|"); at += 1) rows.push(cells(lines[at]));
      const [head, , ...body] = rows;
      blocks.push(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${head.join(", ")}` }, h("table", null,
        h("thead", null, h("tr", null, head.map((cell) => h("th", { scope: "col" }, text(cell))))),
        h("tbody", null, body.map((row) => h("tr", null, row.map((cell) => h("td", null, text(cell)))))))));
    } else if (/^(\d+\.|-) /.test(bare)) {
      const ordered = /^\d/.test(bare);
      const items = [];
      for (; at < lines.length; at += 1) {
        const own = lines[at].trim();
        if (own === "" || own.startsWith("|") || own.startsWith("```") || own.startsWith("#")) break;
        if (/^(\d+\.|-) /.test(own)) items.push([own.replace(/^(\d+\.|-) /, "")]);
        else items.at(-1).push(own);
      }
      const first = ordered ? Number(bare.match(/^\d+/)[0]) : null;
      blocks.push(h(ordered ? "ol" : "ul", first > 1 ? { start: first } : null, items.map((item) => h("li", null, text(item.join(" "))))));
    } else {
      const words = [];
      for (; at < lines.length && lines[at].trim() !== "" && !/^(\||```|#{1,3} |(\d+\.|-) )/.test(lines[at].trim()); at += 1) words.push(lines[at].trim());
      blocks.push(h("p", null, text(words.join(" "))));
    }
  }
  return blocks;
}

/** An element with one section, filled when it was read. */
export function sectionOf(section) {
  const element = h("div", { class: "prose" }, h("p", { class: "muted" }, "Reading the runbook …"));
  const fill = async (wanted) => {
    const markdown = await read();
    const all = markdown.split(/^(?=## )/m);
    const found = all.find((part) => slug(part.match(/^## (.*)$/m)?.[1] ?? "") === wanted);
    show(element, found ? render(found, fill) : h("p", null, `The runbook has no section ${wanted}.`));
    element.querySelector("h3")?.focus({ preventScroll: true });
  };
  fill(section).catch((error) => show(element, h("p", { class: "bad" }, error.message)));
  return element;
}

export default {
  id: "runbook",
  title: "Runbook",
  open() {
    const element = h("div", { class: "panel prose" }, h("p", { class: "muted" }, "Reading the runbook …"));
    const follow = (section) => {
      const found = element.querySelector(`[data-section="${section}"]`);
      found?.scrollIntoView({ block: "start" });
      found?.focus({ preventScroll: true });
    };
    read().then((markdown) => {
      const sections = [...markdown.matchAll(/^## (.*)$/gm)].map(([, words]) => words);
      const [intro, ...rest] = render(markdown, follow);
      show(element, intro, h("ul", { class: "contents" }, sections.map((words) => h("li", null, button(words, () => follow(slug(words)), { class: "link" })))), rest);
    }).catch((error) => show(element, h("p", { class: "bad" }, error.message)));
    return element;
  },
};
