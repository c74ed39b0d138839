// Students: what one has, and why; its place in the line; its newest dead letters. The same box finds a sandbox.
//
// Reads: the student, its sandbox, its places if it waits or may wait, and its newest dead letters; both page by page until enough are
// found, there are no more, or so many calls were made; a button goes on.

import { CALLS, get, pages, part } from "./api.js";
import { start } from "./bulk.js";
import { button, field, h, id, keepFocus, number, row, show, state, table, terms, when } from "./dom.js";
import { openLetter } from "./letters.js";
import { facts, timeline } from "./sandboxes.js";
import { REASONS } from "./waiting.js";

/** Places and dead letters that are shown with a student. */
const SHOWN = 5;

const WORDS = {
  holds: ["has a sandbox", "is-available"],
  overdue: ["time is over", "is-pending_deletion"],
  ended: ["has none any more", "is-stale"],
  waits: ["waits", "is-visible"],
  nothing: ["has none", "is-stale"],
  unclear: ["has none, and may wait", "is-stale"],
};

let view = null;

/** A place in a line, in words. */
const place = (app, one) => terms([
  ["Waits because", h("b", null, REASONS[one.reason] ?? one.reason)],
  ["Wants", one.flavour ?? (one.name_prefix ? `names from ${one.name_prefix}` : "any sandbox")],
  ["Ahead", `${number(one.ahead)} of ${number(one.length)} in the line of ${one.tenant}`],
  ["Since", when(one.since)],
  ["Until", when(one.deadline)],
  ["Served", one.estimate_s !== null && `in ${number(one.estimate_s)} s, about`],
  ["", button("Who else waits", () => app.go("waiting", { tenant: one.tenant }), { class: "link" })],
]);

/** What of the student's died, each with its repetition. */
function died(app, letters) {
  if (letters.length === 0) return null;
  const rows = letters.map((one) => row([
    button([h("span", { class: "unseen" }, "Open the letter that died "), when(one.last_at)], () => openLetter(app, one.id), { class: "link" }),
    one.kind, one.reason.replaceAll("_", " "), h("span", { class: "muted clip", title: one.reason_text }, one.reason_text),
    h("span", { class: "actions" }, app.mayAct && button("Replay …", () => start(app, "replay", { id: one.id }))),
  ], { key: one.id, help: () => app.runbook("dead-letters") }));
  return h("section", { class: "panel", "aria-label": "Dead letters of this student" },
    h("header", null, h("h2", null, "Dead letters, the newest first")),
    table("Dead letters of this student", ["Died", "Kind", "Reason", "Why", app.mayAct ? "Actions" : ""], rows, ""));
}

function verdict(app, told, places) {
  const [word, dot] = WORDS[told.verdict === "unclear" && places.length > 0 ? "waits" : told.verdict] ?? [told.verdict, "is-stale"];
  return h("section", { class: "panel verdict", "aria-label": `Student ${told.track}` },
    h("header", null, h("h2", null, told.track), h("span", { class: "state" }, h("i", { class: `dot ${dot}`, "aria-hidden": "true" }), word)),
    h("p", { class: "big" }, told.text),
    places.map((one) => place(app, one)),
    terms([
      ["Key", told.idempotency_key === told.track ? null : told.idempotency_key],
      ["Allocated", told.allocated_at && when(told.allocated_at)],
      ["Expires", told.expires_at && told.verdict !== "ended" && when(told.expires_at)],
      ["Ended", told.ended_at && when(told.ended_at)],
      ["Request", told.request && [id(told.request.request_id), ` ${told.request.status}`]],
    ]),
    h("p", { class: "actions" },
      button("Dead letters of this student", () => app.go("letters", { track: told.track })),
      button("All sandboxes of this student", () => app.go("sandboxes", { track: told.track })),
      button("What to do", () => app.runbook(told.runbook), { class: "quiet" })));
}

async function find() {
  const { app, form, result } = view;
  const { find: text, key } = Object.fromEntries(new FormData(form));
  const wanted = text.trim();
  if (!wanted) return;
  show(result, h("p", { class: "muted", role: "status" }, "Looking …"));
  const mine = (view.finding = {});
  const noSandbox = (error) => (error.status === 404 ? null : error);
  const track = await get(`tracks/${part(wanted)}`, { key: key.trim() }).catch((error) => error);
  const isUnknown = ["nothing", "unclear"].includes(track.verdict);
  const sandbox = isUnknown ? await get(`sandboxes/${part(wanted)}/history`).catch(noSandbox) : null;
  if (mine !== view.finding) return;
  const failed = [track, sandbox].find((one) => one instanceof Error);
  if (failed) return show(result, h("p", { class: "bad", role: "alert" }, failed.message));
  const known = !isUnknown || sandbox === null;
  const owner = known ? wanted : sandbox.sandbox.track;
  const held = known && track.sandbox ? await get(`sandboxes/${part(track.sandbox.sandbox_id)}/history`).catch(() => null) : null;
  if (mine !== view.finding) return;
  const story = sandbox ?? held;
  const places = [], letters = [];
  const lists = [
    // Of one that waits, a place is enough to say why.
    ["waits", "unclear"].includes(track.verdict) && known && { name: "lines", path: "waiting", query: { track: wanted }, rows: "waiting", found: places, enough: track.verdict === "waits" ? 1 : SHOWN },
    owner && { name: "dead letters", path: "dead-letters", query: { track: owner, state: "dead", newest_first: true }, rows: "dead_letters", found: letters, enough: SHOWN },
  ].filter(Boolean);
  const draw = () => keepFocus(result, () => show(result,
    known && verdict(app, track, places),
    died(app, letters),
    lists.some((list) => list.looking) && h("p", { class: "muted", role: "status" }, "Looking for places in lines and dead letters …"),
    lists.filter((list) => !list.looking && list.cursor && list.found.length < list.enough).map((list) => h("p", { class: "foot" },
      h("span", { class: "muted" }, `Looked at ${number(list.calls)} parts of the ${list.name}, and there are more.`), button(`Look on in the ${list.name}`, () => look(list)))),
    story && h("section", { class: "panel", "aria-label": "Sandbox" },
      h("header", null, h("h2", null, "Sandbox ", story.sandbox.sandbox_id), state(story.sandbox.status)),
      h("div", { class: "beside" }, facts(app, story.sandbox), timeline(story)))));
  // One call reads a part of a list: among many others there may be none of the student's in it.
  const look = (list) => {
    const until = (list.calls ?? 0) + CALLS;
    list.looking = true;
    draw();
    return pages(list.path, list.query, list.cursor, (page) => {
      if (mine !== view.finding) return 0;
      list.found.push(...page[list.rows].slice(0, SHOWN - list.found.length));
      list.cursor = page.next_cursor;
      list.calls = (list.calls ?? 0) + 1;
      if (page[list.rows].length > 0) draw();
      return list.found.length >= list.enough || list.calls >= until ? 0 : SHOWN - list.found.length;
    }).finally(() => {
      list.looking = false;
      if (mine === view.finding) draw();
    });
  };
  draw();
  await Promise.all(lists.map(look));
}

export default {
  id: "tracks",
  title: "Students",

  open(app, what) {
    const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); find(); } },
      field("Student or sandbox id", h("input", { name: "find", type: "text", value: what?.find ?? "", autocomplete: "off", spellcheck: "false", required: true })),
      field("Key, if it has one of its own", h("input", { name: "key", type: "text", value: what?.key ?? "", autocomplete: "off", spellcheck: "false" })),
      h("button", { type: "submit", class: "main" }, "Find"));
    view = { app, form, result: h("div", { class: "stack" }) };
    if (what?.find) find();
    else show(view.result, h("p", { class: "none" }, "Type an id: what the student has, and why."));
    return [h("div", { class: "panel" }, form), view.result];
  },

  reload: () => find(),
};

