// Quarantine: what is not offered and why; let one go, have it deleted, or put one there.

import { get, post } from "./api.js";
import { button, choice, field, h, keepFocus, many, number, row, show, table, when } from "./dom.js";
import { openStory } from "./sandboxes.js";

/** Sandboxes of one call. */
const PART = 1000;
const CAUSES = { operator: "an operator", gate: "its gate", deletion: "failed deletions", report: "its owner" };

let view = null;

async function read() {
  const mine = (view.reading = {});
  const told = await get("quarantine");
  if (mine !== view.reading) return;
  view.rows = told.sandboxes;
  view.more = told.more;
  draw();
}

function draw() {
  const { app } = view;
  const cause = view.cause.value;
  const shown = view.rows.filter((one) => !cause || one.quarantine_cause === cause);
  const rows = shown.map((one) => {
    const used = one.allocation_id !== null;
    const open = () => openStory(app, one.sandbox_id);
    const act = (name) => () => ask(app, name, { id: one.sandbox_id }, one.sandbox_id);
    return row([
      button(one.sandbox_id, open, { class: "link mono" }), one.name, one.flavour ?? h("span", { class: "zero" }, "–"),
      when(one.quarantined_at), CAUSES[one.quarantine_cause] ?? one.quarantine_cause, one.quarantined_by, one.quarantine_reason,
      h("span", { class: "actions" }, app.mayAct && [
        used ? h("span", { class: "muted" }, "was handed out") : button("Release", act("release"), { "aria-label": `Release: ${one.sandbox_id}` }),
        button("Retire", act("retire"), { "aria-label": `Retire: ${one.sandbox_id}` }),
      ]),
    ], { key: one.sandbox_id, open, help: () => app.runbook("quarantine") });
  });
  const all = (name) => () => ask(app, name, cause ? { cause } : { all: true }, cause ? `what ${CAUSES[cause]} put there` : "everything there");
  keepFocus(view.list, () => show(view.list,
    table("Quarantine", ["Sandbox", "Name", "Flavour", "Since", "By what", "By whom", "Why", app.mayAct ? "Actions" : ""], rows,
      view.rows.length === 0 ? "Nothing is in quarantine." : `None that ${CAUSES[cause]} put there${view.more ? ` is among the longest ${number(view.rows.length)}; there are more` : ""}.`),
    app.mayAct && (shown.length > 0 || view.more) && h("p", { class: "actions bulk" }, h("span", { class: "muted" }, "All that match:"),
      button("Release all …", all("release")), button("Retire all …", all("retire"))),
    h("p", { class: "foot" }, h("span", { class: "muted" }, `${many(shown.length, "sandbox", "sandboxes")}${view.more ? ` of the longest ${number(view.rows.length)}; there are more` : ""}`), button("What to do", () => app.runbook("quarantine"), { class: "quiet" }))));
}

/** Counts first, then does it. */
async function ask(app, act, selection, what) {
  const word = act === "release" ? "Release" : "Retire";
  const body = h("div", { class: "stack" }, h("p", { role: "status" }, "Counting, nothing is changed …"));
  const dialog = h("dialog", { "aria-labelledby": "quarantine-title", onclose: () => dialog.remove() },
    h("h2", { id: "quarantine-title" }, `${word} ${what}?`), body);
  document.body.append(dialog);
  dialog.showModal();
  const { body: told } = await post(`quarantine/${act}`, { ...selection, dry_run: true })
    .catch((error) => { dialog.close(); throw error; });
  const go = async () => {
    dialog.close();
    // A call lets go of a bounded number, the longest there first; no more than were counted.
    let [done, part] = [0, null];
    do {
      const limit = selection.id ? null : Math.min(PART, told.done - done);
      ({ body: part } = await post(`quarantine/${act}`, { ...selection, limit }));
      done += part.done;
      app.say(`${number(done)} of ${number(told.done)} ${act}d${part.more && done < told.done ? " …" : "."}`);
    } while (part.more && part.done > 0 && done < told.done);
    await read();
  };
  const cancel = button("Cancel", () => dialog.close());
  const doIt = button(`${word} ${number(told.done)}`, go, { class: act === "release" ? "main" : "danger", disabled: told.done === 0 });
  show(body,
    h("p", { class: "big" }, `${many(told.done, "sandbox", "sandboxes")}.`),
    h("p", null, act === "release" ? "They arrive again, and their gate is asked anew." : "They are deleted at the provider."),
    told.refused.length > 0 && h("ul", null, told.refused.slice(0, 5).map((one) => h("li", null, `${one.sandbox_id}: ${one.why}`))),
    h("p", { class: "actions" }, doIt, cancel));
  (doIt.disabled ? cancel : doIt).focus();
}

async function add(form) {
  const { id, why } = Object.fromEntries(new FormData(form));
  const { body: told } = await post("quarantine/add", { id: id.trim(), why: why.trim() });
  const [refused] = told.refused;
  view.app.say(refused ? `${refused.sandbox_id}: ${refused.why}` : `${id.trim()} is in quarantine.`, Boolean(refused));
  if (!refused) form.reset();
  await read();
}

export default {
  id: "quarantine",
  title: "Quarantine",
  open(app) {
    const text = (name, label, most) => field(label, h("input", { name, type: "text", required: true, maxlength: most, autocomplete: "off", spellcheck: "false" }));
    const cause = choice("cause", [["", "anything"], ...Object.entries(CAUSES)], "");
    view = { app, rows: [], cause, list: h("div") };
    cause.addEventListener("change", draw);
    const put = app.mayAct && h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); add(event.target); } },
      text("id", "Sandbox", 128), text("why", "Why", 300), h("button", { type: "submit" }, "Put into quarantine"));
    read();
    return [h("div", { class: "panel" }, h("div", { class: "filters" }, field("Put there by", cause)), view.list), put && h("div", { class: "panel" }, put)];
  },
  every: 15000,
  reload: () => read(),
};
