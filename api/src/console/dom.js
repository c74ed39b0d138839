// Elements, and how figures and times are written. Nothing here parses markup: text stays text.

const SVG = "http://www.w3.org/2000/svg";
const AS_PROPERTY = new Set(["value", "checked", "disabled", "open", "hidden", "selected"]);

/** An element with attributes, listeners (`onclick`) and children; null and false are left out. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (AS_PROPERTY.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Puts `children` in place of what `element` has. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Draws anew what is in `root`; the control that had the focus keeps it: the one of that name, or in that place, of the same thing
 * (`data-key`). If it is gone, its table has the focus, or the whole; never a control of another thing.
 */
export function keepFocus(root, draw) {
  const had = document.activeElement;
  if (had === root || !root.contains(had)) return draw();
  const keyOf = (one) => one.closest("[data-key]")?.dataset.key;
  const name = (one) => one.getAttribute("aria-label") ?? one.textContent;
  const key = keyOf(had), region = had.closest("[role=region]")?.getAttribute("aria-label");
  const controls = () => [...root.querySelectorAll("button, a, input, select, summary, [tabindex]")].filter((one) => keyOf(one) === key);
  const before = controls();
  draw();
  if (root.contains(document.activeElement)) return;
  const after = controls();
  const same = after.filter((one) => name(one) === name(had));
  const next = same.length === 1 ? same[0] : after.length === before.length ? after[before.indexOf(had)] : null;
  next?.focus({ preventScroll: true });
  if (root.contains(document.activeElement)) return;
  root.tabIndex = -1;
  (region && [...root.querySelectorAll("[role=region]")].find((one) => name(one) === region) || root).focus({ preventScroll: true });
}

const NUMBERS = new Intl.NumberFormat("en");
export const number = (value) => (value === null || value === undefined ? "–" : NUMBERS.format(value));

export const many = (count, one, more = `${one}s`) => `${number(count)} ${count === 1 ? one : more}`;

/** Milliseconds as people say them. */
export function took(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 10000) return `${Math.round(ms / 100) / 10} s`;
  return span(ms / 1000);
}

/** Seconds as people say them. */
export function span(seconds) {
  const s = Math.abs(seconds);
  if (s < 10) return `${s < 1 ? Math.round(s * 10) / 10 : Math.round(s)} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

let skew = 0;
/** The server's clock counts; this machine's may be off. */
export function setNow(seconds) {
  skew = seconds - Date.now() / 1000;
}
export const now = () => Date.now() / 1000 + skew;

const full = (ms) => new Date(ms).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC");
/** A time of day where the reader is. */
export const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 5);

/** A moment, relative; whole on hover. */
export function when(seconds) {
  if (seconds === null || seconds === undefined) return h("span", { class: "zero" }, "–");
  const away = seconds - now();
  const text = Math.abs(away) < 1.5 ? "now" : away > 0 ? `in ${span(away)}` : `${span(away)} ago`;
  return h("time", { datetime: new Date(seconds * 1000).toISOString(), title: full(seconds * 1000) }, text);
}

const LOCAL = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
/** The zone of `local`. */
export const zone = LOCAL.resolvedOptions().timeZone;
/** A moment where the reader is, for what people meet at. */
export const local = (seconds) => h("time", { datetime: new Date(seconds * 1000).toISOString(), title: full(seconds * 1000) }, LOCAL.format(seconds * 1000).replace(",", ""));

/** A moment, whole. */
export function moment(ms) {
  return h("time", { datetime: new Date(ms).toISOString(), title: full(ms) }, full(ms).slice(0, 19));
}

/** A state as dot and word. */
export const state = (name) => h("span", { class: "state" }, h("i", { class: `dot is-${name}`, "aria-hidden": "true" }), name.replaceAll("_", " "));

/** A text that can be copied. */
export function id(text) {
  if (!text) return h("span", { class: "zero" }, "–");
  return h("code", { class: "id", title: text }, text);
}

/** A list of terms; those without a value are left out. */
export function terms(pairs) {
  const kept = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return h("dl", { class: "terms" }, kept.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

/**
 * The cells of a row with its `key`, which tells it from the others and lasts, and what it does: `open`, when it is clicked; `help`,
 * behind a question mark.
 */
export const row = (cells, does) => Object.assign(cells, does);

/** A table; `rows` are arrays of cells. A head that begins with # is of numbers. */
export function table(caption, heads, rows, none) {
  if (rows.length === 0) return h("p", { class: "none" }, none);
  const names = heads.map((head) => head.replace(/^#/, ""));
  const tones = heads.map((head) => (head.startsWith("#") ? "num" : null));
  const helps = rows.some((row) => row.help);
  const help = (row) => h("td", { class: "help" }, row.help && button("?", row.help, { class: "quiet", title: "What to do", "aria-label": "What to do about this row" }));
  const body = rows.map((row) =>
    h(
      "tr",
      { "data-key": row.key, ...(row.open && { class: "opens", onclick: (event) => event.target.closest("a,button,input,label") || row.open() }) },
      row.map((cell, at) => h("td", { class: tones[at], "data-head": names[at] }, cell)),
      helps && help(row),
    ),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null, h("caption", { class: "unseen" }, caption), h("thead", null, h("tr", null, names.map((name, at) => h("th", { scope: "col", class: tones[at] }, name)), helps && h("th", { scope: "col" }, h("span", { class: "unseen" }, "Runbook")))), h("tbody", null, body)),
  );
}

let fields = 0;
/** An input or select with its label. */
export function field(label, control) {
  control.id ||= `field-${++fields}`;
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control);
}

export const choice = (name, options, value) =>
  h("select", { name }, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));

export const button = (text, onclick, more) => h("button", { type: "button", onclick, ...more }, text);
