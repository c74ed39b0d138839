// Overview: what is wrong right now, the figures, the last hour.

import { chart, sparkline } from "./chart.js";
import { button, h, keepFocus, many, number, row, show, span, table, took, when } from "./dom.js";

const STATES = ["arriving", "available", "reserved", "allocated", "pending_deletion", "stale", "quarantined", "deletion_failed"];

const counted = (state) => (minute) => minute.states?.[state] ?? null;

let parts = null;

/** What is wrong, each with what to do. */
function problems(app, seen) {
  if (seen.problems.length === 0) {
    return h("p", { class: "panel fine" }, h("i", { class: "dot is-available", "aria-hidden": "true" }), "Nothing is wrong.");
  }
  return h("ul", { class: "panel problems" }, seen.problems.map((problem) =>
    h("li", { class: `is-${problem.severity}`, "data-key": problem.text },
      h("span", { class: "tag" }, problem.severity === "page" ? "now" : "soon"),
      h("span", null, problem.text),
      button("What to do", () => app.runbook(problem.runbook), { class: "quiet", "aria-label": `What to do: ${problem.text}` }))));
}

function tile(label, value, detail, values, tone, onclick) {
  const inner = [h("span", { class: "label" }, label), h("strong", { class: tone }, value), h("small", null, detail), sparkline(values)];
  return onclick ? h("button", { type: "button", class: "panel tile", "data-key": label, onclick }, inner) : h("div", { class: "panel tile" }, inner);
}

function tiles(app, seen) {
  const states = seen.pool?.states ?? {};
  const past = seen.history;
  const over = past.filter((minute) => minute.at + 60 <= seen.now);
  // What is older is not how it is.
  const last = over.findLast((minute) => minute.at > seen.now - 180);
  const answered = over.map((minute) => minute.created + minute.existing);
  const rate = last ? (last.created + last.existing) / 60 : 0;
  const waiting = seen.requests;
  const oldest = waiting?.oldest_age_ms;
  return [
    tile("Free", number(states.available), seen.pool ? h("span", null, "counted ", when(seen.pool.as_of)) : "not counted yet", past.map(counted("available")), states.available === 0 ? "bad" : null, () => app.go("sandboxes", { status: "available" })),
    tile("Allocated", number(states.allocated), `${number(states.pending_deletion ?? 0)} to be deleted`, past.map(counted("allocated")), null, () => app.go("sandboxes", { status: "allocated" })),
    tile("Answers", last ? `${rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate)}/s` : "–", !last ? "none known of late" : last.refused ? `${number(last.refused)} refused` : "none refused", answered, last?.refused ? "bad" : null),
    tile("p99", took(last?.p99_ms), last?.p50_ms ? `half within ${took(last.p50_ms)}` : "none of late", over.map((minute) => minute.p99_ms), null),
    tile("Backlog", number(waiting?.visible), waiting ? oldest ? `oldest ${took(oldest)}` : `${number(waiting.in_flight)} in hand` : "the queue does not answer", past.map((minute) => minute.visible), null),
    tile("Workers", number(seen.processes.workers), `${many(seen.processes.apis, "API")}`, past.map((minute) => minute.workers), seen.processes.workers === 0 ? "bad" : null),
    tile("Dead letters", number(seen.dead_letters.open), seen.dead_letters.oldest_at ? `oldest ${span(seen.now - seen.dead_letters.oldest_at)}` : "none", past.map((minute) => minute.dead_letters), seen.dead_letters.open ? "warn" : null, () => app.go("letters")),
  ];
}

/** The pool by flavour and state; nothing without a policy. */
function flavours(app, seen) {
  const rows = Object.entries(seen.pool?.flavours ?? {});
  if (rows.length === 0) return null;
  return h("section", { class: "panel", "aria-label": "Pool by flavour" },
    h("header", null, h("h2", null, "Pool by flavour")),
    table("Sandboxes by flavour and state", ["Flavour", ...STATES.map((name) => `#${name.replaceAll("_", " ")}`)], rows.map(([name, states]) => row([
      name === "any" ? "no flavour" : name,
      ...STATES.map((state) => states[state]
        ? button(number(states[state]), () => app.go("sandboxes", { status: state, flavour: name }), { class: "link", "aria-label": `${number(states[state])} ${state.replaceAll("_", " ")} of ${name}` })
        : h("span", { class: "zero" }, "0")),
    ], { key: name }))));
}

export default {
  id: "overview",
  title: "Overview",

  open(app) {
    const charts = [
      chart({ title: "Pool", kind: "area", height: 190, series: STATES.map((name) => ({ name, label: name.replaceAll("_", " "), of: counted(name) })), onpick: (status) => app.go("sandboxes", { status }) }),
      chart({ title: "Answers a minute", kind: "bars", series: [
        { name: "created", label: "new", of: (m) => m.created },
        { name: "existing", label: "repeated", of: (m) => m.existing },
        { name: "refused", label: "refused", of: (m) => m.refused },
        { name: "failed", label: "failed", of: (m) => m.failed },
      ] }),
      chart({ title: "Time to a sandbox", kind: "lines", write: (ms) => took(Math.round(ms)), series: [
        { name: "p99", label: "p99", of: (m) => m.p99_ms },
        { name: "p50", label: "p50", of: (m) => m.p50_ms },
      ] }),
      chart({ title: "Requests queue", kind: "area", series: [
        { name: "in_flight", label: "in hand", of: (m) => m.in_flight },
        { name: "visible", label: "waiting", of: (m) => m.visible },
      ] }),
    ];
    parts = { app, problems: h("div"), tiles: h("div", { class: "tiles" }), flavours: h("div"), charts };
    parts.root = h("div", { class: "stack" }, parts.problems, parts.tiles, parts.flavours, h("div", { class: "charts" }, charts));
    return parts.root;
  },

  update(seen) {
    keepFocus(parts.root, () => {
      show(parts.problems, problems(parts.app, seen));
      show(parts.tiles, tiles(parts.app, seen));
      show(parts.flavours, flavours(parts.app, seen));
      parts.charts.forEach((one) => one.update(seen.history, seen.now));
    });
  },
};
