// Students: what one has, and why. The same box finds a sandbox.

import { get, part } from "./api.js";
import { button, field, h, id, show, state, terms, when } from "./dom.js";
import { facts, timeline } from "./sandboxes.js";

const WORDS = {
  holds: ["has a sandbox", "is-available"],
  overdue: ["time is over", "is-pending_deletion"],
  ended: ["has none any more", "is-stale"],
  nothing: ["has none", "is-stale"],
};

let view = null;

function verdict(app, told) {
  const [word, dot] = WORDS[told.verdict];
  return h("section", { class: "panel verdict", "aria-label": `Student ${told.track}` },
    h("header", null, h("h2", null, told.track), h("span", { class: "state" }, h("i", { class: `dot ${dot}`, "aria-hidden": "true" }), word)),
    h("p", { class: "big" }, told.text),
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
  const sandbox = track.verdict === "nothing" ? await get(`sandboxes/${part(wanted)}/history`).catch(noSandbox) : null;
  if (mine !== view.finding) return;
  const failed = [track, sandbox].find((one) => one instanceof Error);
  if (failed) return show(result, h("p", { class: "bad", role: "alert" }, failed.message));
  const held = sandbox === null && track.sandbox ? await get(`sandboxes/${part(track.sandbox.sandbox_id)}/history`).catch(() => null) : null;
  if (mine !== view.finding) return;
  const story = sandbox ?? held;
  const known = track.verdict !== "nothing" || sandbox === null;
  show(result,
    known && verdict(app, track),
    story && h("section", { class: "panel", "aria-label": "Sandbox" },
      h("header", null, h("h2", null, "Sandbox ", story.sandbox.sandbox_id), state(story.sandbox.status)),
      h("div", { class: "beside" }, facts(app, story.sandbox), timeline(story))));
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

