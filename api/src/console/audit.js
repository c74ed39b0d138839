// Audit: who did what on a day.

import { get } from "./api.js";
import { button, h, many, moment, number, show, table } from "./dom.js";

// Acts that were not done, and whether it is known.
const NOT_DONE = { refused: "refused", unchanged: "changed nothing", failed: "failed", error: "failed" };

let view = null;

function result(line) {
  if (!line.ended) return h("span", { class: "zero" }, "–");
  try {
    const ended = JSON.parse(line.ended);
    const [how, why] = Object.entries(ended)[0] ?? [];
    if (NOT_DONE[how] && typeof why === "string") return h("span", { class: "warn" }, `${NOT_DONE[how]}: ${why}`);
    return h("span", null, Object.entries(ended).filter(([, value]) => typeof value === "number" && value > 0).map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`).join(", ") || "done");
  } catch {
    return line.ended;
  }
}

async function read(more) {
  const mine = (view.reading = {});
  if (!more) view.lines = [];
  const page = await get("audit", { days_ago: view.day, limit: 50, cursor: more ? view.cursor : null });
  if (mine !== view.reading) return;
  view.lines.push(...page.lines);
  view.cursor = page.next_cursor;
  show(view.date, page.date);
  view.later.disabled = view.day === 0;
  const rows = view.lines.map((line) => [
    moment(line.at_ms), h("b", null, line.who), line.act.replaceAll("_", " "), h("code", { class: "wraps" }, line.target),
    line.why ?? h("span", { class: "zero" }, "–"), result(line),
  ]);
  show(view.list, table("Acts of operators", ["At (UTC)", "Who", "Act", "Target", "Why", "Result"], rows, "No acts on this day."),
    h("p", { class: "foot" }, h("span", { class: "muted" }, many(view.lines.length, "act")), page.next_cursor && button("More", () => read(true))));
}

function turn(days) {
  view.day = Math.max(0, Math.min(400, view.day + days));
  read(false);
}

export default {
  id: "audit",
  title: "Audit",
  open(app) {
    view = { app, day: 0, lines: [], list: h("div"), date: h("strong", { role: "status" }), later: button("Later", () => turn(-1)) };
    read(false);
    return [h("div", { class: "panel" }, h("div", { class: "filters" }, button("Earlier", () => turn(1)), view.date, view.later), view.list)];
  },
  reload: () => read(false),
};
