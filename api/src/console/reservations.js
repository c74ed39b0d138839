// Reservations: a calendar of what is put aside for whom, a lane each, and the same as a table.
//
// Reads: all reservations, one call, when it is opened, at Refresh, and every 15 s. Turning pages reads nothing.

import { get } from "./api.js";
import { button, h, id, keepFocus, local, many, now, number, row, show, table, terms, when, zone } from "./dom.js";

const SPANS = { day: 1, week: 7, month: 28 };
const ENDS = { over: "its time was over", no_show: "nobody came", deleted: "an operator ended it" };

let view = null;

const wants = (one) => one.flavour ?? `names from ${one.prefix}`;
/** From when on sandboxes are put aside. */
const begins = (one) => (one.from === null ? one.made_at : Math.max(one.from - one.lead_s, one.made_at));
const ends = (one) => one.ended_at ?? one.until ?? Infinity;

/** Its state as word, tone and dot. */
function standing(one) {
  if (one.state === "ended") return [`ended: ${ENDS[one.ended_because] ?? one.ended_because}`, null, "deleted"];
  if (one.at_risk > 0) return [`${number(one.at_risk)} will be missing`, "bad", "refused"];
  if (one.state === "planned") return ["planned", null, "reserved"];
  return one.missing > 0 ? [`${number(one.missing)} to come`, "warn", "visible"] : ["all put aside", null, "available"];
}

/** A day's first moment where the reader is, `days` later; or an hour of that day, by the clock. */
function midnight(seconds, days = 0, hour = 0) {
  const at = new Date(seconds * 1000);
  return new Date(at.getFullYear(), at.getMonth(), at.getDate() + days, hour).getTime() / 1000;
}

/** What is looked at, from a midnight on: from, to, and the lines between. */
function range() {
  const days = SPANS[view.span];
  const from = midnight(view.at);
  const to = midnight(from, days);
  const ticks = view.span === "day"
    ? [0, 3, 6, 9, 12, 15, 18, 21].map((hour) => [midnight(from, 0, hour), `${String(hour).padStart(2, "0")}:00`])
    : Array.from({ length: days }, (_, day) => midnight(from, day)).filter((_, day) => days <= 7 || day % 7 === 0)
      .map((at) => [at, new Date(at * 1000).toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: days > 7 ? "short" : undefined })]);
  return { from, to, ticks };
}

/** Puts an element between two moments of the range. */
function between(element, { from, to }, start, end) {
  const part = (at) => Math.min(1, Math.max(0, (at - from) / (to - from)));
  element.style.left = `${part(start) * 100}%`;
  element.style.width = `${Math.max(0, part(end) - part(start)) * 100}%`;
  return element;
}

function lane(one, shown) {
  const [word, , dot] = standing(one);
  const [start, end] = [begins(one), ends(one)];
  const own = { from: Math.max(start, shown.from), to: Math.min(end, shown.to) };
  const parts = [
    one.from !== null && between(h("i", { class: "lead" }), own, start, one.from),
    one.no_show_s !== null && between(h("i", { class: "no-show" }), own, one.from + one.no_show_s, one.from + one.no_show_s),
  ];
  const text = one.state === "planned" ? number(one.count) : `${number(one.held)} of ${number(one.count)}`;
  const wide = (own.to - own.from) / (shown.to - shown.from);
  const narrow = `${wide < 0.12 ? " is-narrow" : ""}${own.from - shown.from > 0.75 * (shown.to - shown.from) ? " is-late" : ""}`;
  const bar = h("button", { type: "button", class: `bar-of is-${dot}${narrow}`, onclick: () => open(one), "aria-label": `${one.tenant}: ${text} ${wants(one)}, ${word}` }, parts, h("span", null, text));
  return h("li", { class: "lane", "data-key": one.id },
    h("div", { class: "lane-of" }, h("b", null, one.tenant), h("span", { class: "muted" }, `${number(one.count)} ${wants(one)}`)),
    h("div", { class: "track" },
      shown.ticks.map(([at]) => between(h("i", { class: "tick" }), shown, at, at)),
      between(bar, shown, start, end),
      now() > shown.from && now() < shown.to && between(h("i", { class: "now" }), shown, now(), now())));
}

function calendar() {
  const shown = range();
  // One that was ended before it began has no place.
  const here = view.rows.filter((one) => begins(one) < Math.min(shown.to, ends(one)) && ends(one) > shown.from);
  const later = view.rows.filter((one) => begins(one) >= shown.to).length;
  const day = (at) => new Date(at * 1000).toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" });
  show(view.title, view.span === "day" ? day(shown.from) : `${day(shown.from)} – ${day(shown.to - 1)}`);
  return [
    h("div", { class: "lane heads", "aria-hidden": "true" }, h("div", { class: "lane-of" }), h("div", { class: "track" },
      shown.ticks.map(([at, name]) => between(h("span", null, name), shown, at, at)))),
    here.length === 0 ? h("p", { class: "none" }, "Nothing is reserved in this time.") : h("ol", { class: "lanes" }, here.map((one) => lane(one, shown))),
    h("p", { class: "foot" }, h("span", { class: "muted" }, `${many(here.length, "reservation")} here${later > 0 ? `, ${number(later)} later` : ""}; times of ${zone}`),
      h("span", { class: "legend" }, [["reserved", "planned"], ["available", "put aside"], ["visible", "to come"], ["refused", "will be missing"]].map(([dot, name]) => h("span", null, h("i", { class: `dot is-${dot}`, "aria-hidden": "true" }), name)),
        h("span", null, h("i", { class: "lead", "aria-hidden": "true" }), "before the class"))),
  ];
}

function open(one, drawer = view.app.drawer) {
  const { app } = view;
  const [word, tone] = standing(one);
  const command = (text) => h("pre", { class: "command" }, `broker reservation ${text}`);
  drawer(`${number(one.count)} ${wants(one)} for ${one.tenant}`,
    h("p", { class: `big ${tone ?? ""}` }, `${word[0].toUpperCase()}${word.slice(1)}.`),
    h("p", null, button("What to do", () => app.runbook("reservations"), { class: "quiet" })),
    terms([
      ["Put aside", `${number(one.held)} of ${number(one.count)}`],
      ["Granted", one.allocated === null ? "not counted yet" : `${number(one.allocated)} are in the hands of the tenant`],
      ["Not claimed", one.reserved === null ? "not counted yet" : number(one.reserved)],
      ["To come", one.state === "running" ? number(one.missing) : null],
      ["Will be missing", one.at_risk > 0 ? h("b", { class: "bad" }, number(one.at_risk)) : null],
      ["Put aside from", [local(begins(one)), " (", when(begins(one)), ")"]],
      ["Needed from", one.from === null ? "the beginning" : [local(one.from), " (", when(one.from), ")"]],
      ["Until", one.until === null ? "without end" : [local(one.until), " (", when(one.until), ")"]],
      ["Goes back unless used", one.no_show_s === null ? "at the end" : local(one.from + one.no_show_s)],
      ["Ended", one.ended_at && [when(one.ended_at), `: ${ENDS[one.ended_because] ?? one.ended_because}`]],
      ["Made", [when(one.made_at), ` by ${one.made_by}`]],
      ["Id", id(one.id)],
    ]),
    one.state !== "ended" && [h("h3", null, "To change it, or to give back what is put aside"), command(`change ${one.id} --count ${one.count}`), command(`delete ${one.id}`)],
    h("p", { class: "actions" }, button("Sandboxes that are put aside", () => app.go("sandboxes", { status: "reserved", flavour: one.flavour ?? "" }))));
}

function draw() {
  // What was not read yet is not nothing.
  if (view.rows === null) return show(view.list, h("p", { class: "none", role: "status" }, "Reading …"));
  const none = () => h("span", { class: "zero" }, "–");
  const rows = view.rows.map((one) => {
    const [word, tone, dot] = standing(one);
    return row([
      button(one.tenant, () => open(one), { class: "link" }), wants(one), number(one.count), number(one.held),
      one.allocated === null ? none() : number(one.allocated),
      h("span", { class: "state" }, h("i", { class: `dot is-${dot}`, "aria-hidden": "true" }), h("span", { class: tone }, word)),
      one.from === null ? none() : local(one.from), one.until === null ? "without end" : local(one.until), one.made_by,
    ], { key: one.id, open: () => open(one), help: () => view.app.runbook("reservations") });
  });
  keepFocus(view.root, () => {
    show(view.calendar, calendar());
    show(view.list, table("Reservations", ["Tenant", "Of", "#Reserved", "#Put aside", "#Granted", "State", "From", "Until", "By"], rows, "Nothing is reserved."));
    for (const one of view.spans.children) one.setAttribute("aria-pressed", String(one.dataset.span === view.span));
  });
}

async function read() {
  const mine = (view.reading = {});
  const told = await get("reservations");
  if (mine !== view.reading) return;
  view.rows = told.reservations.filter((one) => !view.tenant || one.tenant === view.tenant);
  const wanted = view.rows.find((one) => one.id === view.wanted);
  view.wanted = null;
  draw();
  if (wanted) open(wanted, view.opening);
}

function turn(ways) {
  const { from } = range();
  view.at = ways === 0 ? now() : midnight(from, ways * SPANS[view.span]);
  draw();
}

export default {
  id: "reservations",
  title: "Reservations",

  open(app, what) {
    const span = (name) => button(name, () => { view.span = name; draw(); }, { "data-span": name });
    view = { app, rows: null, span: "week", at: what?.at ?? now(), tenant: what?.tenant, wanted: what?.id, opening: app.opening(), title: h("strong"), calendar: h("div"), list: h("div") };
    view.spans = h("div", { class: "choices", role: "group", "aria-label": "Time shown" }, Object.keys(SPANS).map(span));
    const all = view.tenant && h("p", null, `Of ${view.tenant} only. `, button("Show all", () => app.go("reservations"), { class: "link" }));
    view.root = h("div", { class: "stack" },
      h("section", { class: "panel", "aria-label": "Calendar" },
        h("div", { class: "filters calendar-bar" }, button("Earlier", () => turn(-1)), button("Today", () => turn(0)), button("Later", () => turn(1)), view.title, view.spans),
        all, view.calendar),
      h("div", { class: "panel" }, view.list));
    draw();
    read();
    return [view.root];
  },

  every: 15000,
  reload: () => read(),
};
