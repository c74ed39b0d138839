// Sandboxes: the pool filtered, and one sandbox's whole story.

import { PAGE, get, pages, part } from "./api.js";
import { button, choice, field, h, id, many, moment, now, row, show, state, table, terms, when } from "./dom.js";

const STATES = ["arriving", "available", "reserved", "allocated", "pending_deletion", "stale", "quarantined", "deletion_failed", "deleted"];
/** Where the runbook speaks of a state. */
const RUNBOOK = {
  arriving: "hooks", available: "pool-low", reserved: "reservations", allocated: "pool-low", pending_deletion: "provider-down",
  deletion_failed: "provider-down", deleted: "provider-down", stale: "pool-low", quarantined: "quarantine",
};
/** The states that somebody should look into. */
const ODD = new Set(["pending_deletion", "deletion_failed", "stale", "quarantined"]);
/** The members that every sandbox has; the others are attributes of the provider. */
const FIXED = new Set([
  "allocated_at", "allocation_id", "created_at", "deleted_at", "deletion_attempts", "deletion_error", "deletion_reason", "deletion_requested_at", "due_at",
  "expires_at", "external_id", "flavour", "heartbeat_s", "idempotency_key", "last_synced", "name", "quarantine_cause", "quarantine_reason",
  "quarantined_at", "quarantined_by", "reserved_for", "sandbox_id", "status", "track", "track_name", "updated_at", "version",
]);

/** The events of a story. */
export function timeline(story) {
  const at = now() * 1000;
  return h("ol", { class: "timeline" }, story.events.map((event) =>
    h("li", { class: `${event.at_ms > at ? "is-due " : ""}is-${event.kind}` },
      h("div", null, h("b", null, event.kind.replaceAll("_", " ")), event.who && h("span", { class: "tag" }, event.who), h("span", { class: "muted" }, when(event.at_ms / 1000))),
      h("p", null, event.text),
      h("small", { class: "muted" }, moment(event.at_ms)))));
}

/** A sandbox's record as terms. */
export function facts(app, sandbox) {
  const section = RUNBOOK[sandbox.status];
  return terms([
    ["State", [state(sandbox.status), ODD.has(sandbox.status) && button("What to do", () => app.runbook(section), { class: "quiet" })]],
    ["Name", sandbox.name],
    ["At the provider", id(sandbox.external_id)],
    ["Student", sandbox.track && button(sandbox.track, () => app.go("tracks", { find: sandbox.track }), { class: "link" })],
    ["Key", sandbox.idempotency_key === sandbox.track ? null : sandbox.idempotency_key],
    ["Lab", sandbox.track_name],
    ["Allocated", sandbox.allocated_at && when(sandbox.allocated_at)],
    ["Expires", sandbox.expires_at && when(sandbox.expires_at)],
    ["Given back", sandbox.deletion_requested_at && when(sandbox.deletion_requested_at)],
    ["In quarantine", sandbox.quarantined_at && [when(sandbox.quarantined_at), ` by ${sandbox.quarantined_by}: ${sandbox.quarantine_reason}`]],
    ["Reserved for", sandbox.reserved_for && button(sandbox.reserved_for, () => app.go("reservations", { id: sandbox.reserved_for }), { class: "link" })],
    ["Last error", sandbox.deletion_error],
    ["Allocation", sandbox.allocation_id && id(sandbox.allocation_id)],
    ["Version", sandbox.version],
    ...Object.entries(sandbox).filter(([name, value]) => !FIXED.has(name) && value !== null).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  ]);
}

/** Opens the story of a sandbox beside the view. */
export async function openStory(app, sandboxId) {
  const drawer = app.opening();
  drawer(`Sandbox ${sandboxId}`, h("p", { class: "muted" }, "Reading its story …"));
  const story = await get(`sandboxes/${part(sandboxId)}/history`).catch((error) => error);
  if (story instanceof Error) return drawer(`Sandbox ${sandboxId}`, h("p", { class: "bad" }, story.message));
  drawer(`Sandbox ${sandboxId}`, facts(app, story.sandbox), h("h3", null, "Story"), timeline(story),
    h("p", { class: "muted" }, "Acts of operators since ", new Date(story.audit_since * 1000).toISOString().slice(0, 10), story.audit_is_partial && "; a day of them was too long to be read whole", "."));
}

let view = null;

async function read(more) {
  const mine = (view.reading = {});
  // What is half typed filters nothing yet.
  if (!more) Object.assign(view, { rows: [], cursor: null, query: Object.fromEntries(new FormData(view.form)) });
  const { busy, rows } = view;
  const wanted = rows.length + PAGE;
  busy.textContent = "reading …";
  busy.hidden = false;
  await pages("sandboxes", view.query, view.cursor, (page) => {
    if (mine !== view.reading) return 0;
    // One that changed its state meanwhile may come twice.
    const known = new Set(rows.map((one) => one.sandbox_id));
    rows.push(...page.sandboxes.filter((one) => !known.has(one.sandbox_id)));
    view.cursor = page.next_cursor;
    draw();
    busy.textContent = "still looking …";
    return wanted - rows.length;
  }).finally(() => { if (mine === view.reading) busy.hidden = true; });
}

function draw() {
  const { app, list } = view;
  const rows = view.rows.map((one) => {
    const open = () => openStory(app, one.sandbox_id);
    return row([
      button(one.sandbox_id, open, { class: "link mono" }),
      one.name, state(one.status),
      one.track ? button(one.track, () => app.go("tracks", { find: one.track }), { class: "link" }) : h("span", { class: "zero" }, "–"),
      one.track_name ?? h("span", { class: "zero" }, "–"),
      when(one.allocated_at), one.status === "allocated" ? when(one.expires_at) : when(one.due_at),
    ], { open, help: RUNBOOK[one.status] && (() => app.runbook(RUNBOOK[one.status])) });
  });
  show(list,
    table("Sandboxes", ["Sandbox", "Name", "State", "Student", "Lab", "Allocated", "Due"], rows, view.cursor ? "None so far: the table is read a part at a time." : "No sandbox matches."),
    h("p", { class: "foot" }, h("span", { class: "muted" }, `${many(view.rows.length, "sandbox", "sandboxes")} shown`), view.cursor && button("More", () => read(true))));
}

export default {
  id: "sandboxes",
  title: "Sandboxes",

  open(app, what) {
    const text = (name, label) => field(label, h("input", { name, type: "text", value: what?.[name] ?? "", autocomplete: "off", spellcheck: "false" }));
    const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); read(false); }, onchange: (event) => event.target.matches("select") && read(false) },
      field("State", choice("status", [["", "any"], ...STATES.map((name) => [name, name.replaceAll("_", " ")])], what?.status ?? "")),
      text("track", "Student"), text("track_name", "Lab"), text("flavour", "Flavour"),
      h("button", { type: "submit", class: "main" }, "Filter"),
      h("span", { class: "busy", hidden: true, role: "status" }, "reading …"));
    view = { app, form, list: h("div"), busy: form.querySelector(".busy"), rows: [], cursor: null };
    read(false);
    return [h("div", { class: "panel" }, form, view.list)];
  },

  reload: () => read(false),
};
