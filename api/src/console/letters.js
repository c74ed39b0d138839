// Dead letters: filtered, shown byte for byte, replayed or discarded, one or all that match.

import { PAGE, get, pages, part } from "./api.js";
import { bulkBar, resumable, start } from "./bulk.js";
import { button, choice, field, h, id, many, now, number, row, show, state, table, terms, when } from "./dom.js";

const REASONS = ["malformed", "older_version", "newer_version", "foreign_reply_queue", "inconsistent_lease", "malformed_item", "table_refused", "refused", "panicked", "max_receives_exceeded", "unknown"];
const STATES = ["dead", "replaying", "replayed", "discarded"];
const AGES = [["", "any"], ["3600", "the last hour"], ["86400", "the last day"], ["604800", "the last week"]];

let view = null;

/** What the form says, as the API takes it. */
const filters = () => Object.fromEntries([...new FormData(view.form)].filter(([, value]) => value !== "").map(([name, value]) => [name, value.trim()]));

async function read(more) {
  const mine = (view.reading = {});
  if (!more) Object.assign(view, { rows: [], cursor: null, query: { ...filters(), newest_first: true } });
  const { busy, rows } = view;
  const wanted = rows.length + PAGE;
  busy.textContent = "reading …";
  busy.hidden = false;
  await pages("dead-letters", view.query, view.cursor, (page) => {
    if (mine !== view.reading) return 0;
    rows.push(...page.dead_letters);
    view.cursor = page.next_cursor;
    draw();
    busy.textContent = "still looking …";
    return wanted - rows.length;
  }).finally(() => { if (mine === view.reading) busy.hidden = true; });
}

function draw() {
  const rows = view.rows.map((one) => {
    const open = () => openLetter(view.app, one.id);
    return row([
      button([h("span", { class: "unseen" }, "Open the letter that died "), when(one.last_at)], open, { class: "link" }), one.kind, one.reason.replaceAll("_", " "),
      one.track ? button(one.track, () => view.app.go("tracks", { find: one.track }), { class: "link" }) : h("span", { class: "muted" }, "unknown"),
      state(one.state), number(one.receives),
      h("span", { class: "muted clip", title: one.reason_text }, one.reason_text),
      h("span", { class: "actions" }, view.app.mayAct && one.state === "dead" && button("Replay …", () => start(view.app, "replay", { id: one.id }))),
    ], { open, help: () => view.app.runbook("dead-letters") });
  });
  show(view.list,
    table("Dead letters", ["Died", "Kind", "Reason", "Student", "State", "#Receives", "Why", view.app.mayAct ? "Actions" : ""], rows, view.cursor ? "None so far: the letters are read a part at a time." : "No letter matches."),
    h("p", { class: "foot" }, h("span", { class: "muted" }, `${many(view.rows.length, "letter")} shown, the newest first`), view.cursor && button("More", () => read(true))));
}

function pretty(letter) {
  return letter.message === null ? letter.body : JSON.stringify(letter.message, null, 2);
}

/** Shows a letter, byte for byte, beside the view. */
export async function openLetter(app, letterId) {
  const drawer = app.opening();
  const letter = await get(`dead-letters/${part(letterId)}`);
  const one = { id: letter.id };
  const late = letter.deadline !== null && letter.deadline < now();
  const payload = h("pre", { tabindex: "0", "aria-label": "Payload" }, pretty(letter));
  drawer(`${letter.kind === "unknown" ? "message" : letter.kind}: ${letter.reason.replaceAll("_", " ")}`,
    letter.state === "dead" && app.mayAct && h("p", { class: "actions" },
      button("Replay", () => start(app, "replay", one), { class: "main" }),
      button("Discard", () => start(app, "discard", one))),
    h("p", null, letter.reason_text),
    h("p", null, button("What to do", () => app.runbook("dead-letters"), { class: "quiet" })),
    terms([
      ["State", state(letter.state)],
      ["Queue", letter.queue],
      ["Student", letter.track && button(letter.track, () => app.go("tracks", { find: letter.track }), { class: "link" })],
      ["First sent", when(letter.first_at)],
      ["Died", when(letter.last_at)],
      ["Received", many(letter.receives, "time")],
      ["Deadline", letter.deadline && [when(letter.deadline), late && h("span", { class: "muted" }, " – a replay ends as expired unless it is renewed")]],
      ["Request", letter.request_id && id(letter.request_id)],
      ["Trace", letter.traceparent && id(letter.traceparent)],
      ["Replay of", letter.replay_of && id(letter.replay_of)],
      ["Last touched", letter.touched_at && [when(letter.touched_at), ` by ${letter.touched_by}`]],
      ["Discarded because", letter.discarded_because],
      ["Id", id(letter.id)],
    ]),
    h("h3", null, "Payload"), payload,
    Object.keys(letter.attributes).length > 0 && [h("h3", null, "Attributes"), terms(Object.entries(letter.attributes))]);
}

export default {
  id: "letters",
  title: "Dead letters",

  open(app, what) {
    const text = (name, label) => field(label, h("input", { name, type: "text", value: what?.[name] ?? "", autocomplete: "off", spellcheck: "false" }));
    const pick = (name, label, options) => field(label, choice(name, options, what?.[name] ?? (name === "state" ? "dead" : "")));
    const named = (names) => [["", "any"], ...names.map((name) => [name, name.replaceAll("_", " ")])];
    const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); read(false); }, onchange: (event) => event.target.matches("select") && read(false) },
      pick("state", "State", named(STATES)), pick("reason", "Reason", named(REASONS)), pick("queue", "Queue", named(["requests", "maintenance"])),
      text("kind", "Kind"), text("track", "Student"), pick("newer_than_s", "Sent in", AGES),
      h("button", { type: "submit", class: "main" }, "Filter"),
      h("span", { class: "busy", hidden: true, role: "status" }, "reading …"));
    view = { app, form, list: h("div"), bulk: h("div"), busy: form.querySelector(".busy"), rows: [], cursor: null };
    show(view.bulk, resumable(app), app.mayAct && bulkBar(app, filters));
    read(false);
    return [h("div", { class: "panel" }, form, view.bulk, view.list)];
  },

  reload: () => read(false),
};

