// Replay and discard of dead letters, one or all that match a filter: counted first, then done a part at a time, each part one
// call of the API with its own line in the audit.
//
// What is under way is noted in the tab's session storage (the filter and the counts, never the token), so that it can go on
// after a reload. A part that is repeated has no second effect: the API changes only letters that are still dead.

import { post } from "./api.js";
import { button, field, h, many, number, show, span } from "./dom.js";

const NOTE = "broker-console-bulk";
const PART = 200;
const WAIT = { prefer: "wait=20" };

const note = (job) => (job ? sessionStorage.setItem(NOTE, JSON.stringify(job)) : sessionStorage.removeItem(NOTE));

function noted() {
  try {
    return JSON.parse(sessionStorage.getItem(NOTE));
  } catch {
    return null;
  }
}

/**
 * The filter as the API takes it now: ages are counted from where they were when it began. What was sent since was not counted,
 * and is left; in whole seconds, so the last before the count may be, too.
 */
function selection({ filter, began, total }) {
  const query = { ...filter };
  if (query.id) return query;
  const ago = Math.max(0, Date.now() / 1000 - began);
  if (query.newer_than_s) query.newer_than_s = Number(query.newer_than_s) + Math.floor(ago);
  if (total > 0) query.older_than_s = Math.ceil(ago);
  return Object.keys(query).length === 0 ? { all: true } : query;
}

const query = (job) => ({ ...selection(job), cursor: job.cursor, ...(job.act === "discard" ? { why: job.why } : { renew_deadline: job.renew }) });

/** Buttons for everything that matches. */
export function bulkBar(app, filters) {
  const act = (name) => () => start(app, name, filters());
  return h("p", { class: "actions bulk" },
    h("span", { class: "muted" }, "All that match:"),
    button("Replay all …", act("replay")), button("Discard all …", act("discard")));
}

/** Asks, after a dry run that counted, and does it. */
export async function start(app, act, filter) {
  const job = { act, filter, began: Date.now() / 1000, why: "", renew: false, total: 0, done: 0, failed: 0 };
  const word = act === "replay" ? "Replay" : "Discard";
  const title = h("h2", { id: "bulk-title" }, `${word} dead letters`);
  const body = h("div", { class: "stack" }, h("p", { role: "status" }, "Counting, nothing is changed …"));
  const dialog = h("dialog", { "aria-labelledby": "bulk-title", onclose: () => dialog.remove() }, title, body);
  document.body.append(dialog);
  dialog.showModal();
  let told;
  // A call looks at as many letters as its wait allows: among thousands that do not match there may be none.
  do {
    job.cursor = told?.next_cursor;
    ({ body: told } = await post(`dead-letters/${act}`, { ...selection(job), cursor: job.cursor, dry_run: true, ...(act === "discard" && { why: "dry run" }) }, WAIT)
      .catch((error) => { dialog.close(); throw error; }));
  } while (told.done === 0 && told.next_cursor && dialog.open);
  job.total = told.done;
  const counts = (by) => Object.entries(by).map(([name, count]) => h("li", null, name.replaceAll("_", " "), h("b", null, number(count))));
  const why = h("input", { name: "why", type: "text", required: true, maxlength: 500, autocomplete: "off" });
  const renew = h("input", { type: "checkbox", name: "renew" });
  renew.id = "renew";
  const go = h("button", { type: "submit", class: act === "discard" ? "danger" : "main", disabled: told.done === 0 }, `${word} ${number(told.done)}`);
  const form = h("form", { class: "stack", onsubmit: (event) => {
    event.preventDefault();
    Object.assign(job, { why: why.value.trim(), renew: renew.checked });
    note(job);
    run(app, job, title, body, dialog);
  } },
    h("p", { class: "big" }, told.done === 0 ? "No letter matches that can be acted on." : `${many(told.done, "letter")}${told.more || told.interrupted ? " and more" : ""}.`),
    told.done > 0 && h("ul", { class: "counts" }, counts(told.by_reason), h("li", { class: "rule", "aria-hidden": "true" }), counts(told.by_kind)),
    act === "replay" && told.past_deadline > 0 && h("p", { class: "warn" }, `${many(told.past_deadline, "of them is past its deadline", "of them are past their deadline")}: an allocation among them ends as expired and claims nothing.`),
    act === "replay" ? h("p", null, renew, h("label", { for: "renew" }, " Renew deadlines, as if asked now")) : field("Reason, for the audit", why),
    h("p", { class: "actions" }, go, button("Cancel", () => dialog.close())));
  show(body, form);
  (act === "discard" ? why : go.disabled ? form.querySelector("button:not(:disabled)") : go).focus();
}

async function run(app, job, title, body, dialog) {
  let stopped = false;
  const bar = h("progress", { max: Math.max(1, job.total), value: job.done, "aria-labelledby": "bulk-title" });
  const text = h("p", { role: "status" });
  const stop = button("Stop", () => { stopped = true; });
  show(title, job.act === "replay" ? "Replaying" : "Discarding");
  show(body, bar, text, h("p", { class: "actions" }, stop));
  dialog.oncancel = (event) => event.preventDefault();
  const began = Date.now(), before = job.done;
  let problem = null;
  while (!stopped && job.done < job.total) {
    const left = job.total - job.done;
    try {
      const { body: told } = await post(`dead-letters/${job.act}`, { ...query(job), limit: Math.min(PART, left) }, WAIT);
      job.done += told.done;
      job.failed = told.failed;
      if (told.failed > 0) problem = `${many(told.failed, "letter")} could not be taken: AWS did not answer.`;
      note(job);
      bar.value = job.done;
      const rate = (job.done - before) / Math.max(0.2, (Date.now() - began) / 1000);
      show(text, `${number(job.done)} of ${number(job.total)}, ${job.total > job.done ? `about ${span((job.total - job.done) / Math.max(rate, 0.1))} left` : "done"}.`);
      if (told.done === 0 && !told.next_cursor) break;
      job.cursor = told.next_cursor;
    } catch (error) {
      problem = error.message;
      break;
    }
  }
  // Whoever goes on begins anew: what could not be taken lies before.
  job.cursor = null;
  const ended = problem === null && !stopped;
  if (ended) note(null);
  show(title, problem ? "Not finished" : stopped ? "Stopped" : "Done");
  show(text, `${number(job.done)} of ${number(job.total)} ${job.act === "replay" ? "replayed" : "discarded"}.${ended && job.done < job.total ? " The others were taken by another run, or are dead again." : ""}`);
  show(body, bar, text, problem && h("p", { class: "bad", role: "alert" }, problem),
    h("p", { class: "actions" }, !ended && button("Go on", () => run(app, job, title, body, dialog), { class: "main" }), button("Close", () => { app.closeDrawer(); dialog.close(); app.go("letters", job.filter.id ? null : job.filter, true); })));
  body.querySelector("button").focus();
  app.refresh();
}

/** What was under way when the page was left, if anything was. */
export function resumable(app) {
  const job = noted();
  if (!job || !app.mayAct) return null;
  const bar = h("div", { class: "panel resumable", role: "status" },
    h("span", null, `A ${job.act} was left: ${number(job.done)} of ${number(job.total)} are done.`),
    button("Go on", () => {
      const title = h("h2", { id: "bulk-title" });
      const body = h("div", { class: "stack" });
      const dialog = h("dialog", { "aria-labelledby": "bulk-title", onclose: () => dialog.remove() }, title, body);
      document.body.append(dialog);
      dialog.showModal();
      run(app, { ...job, cursor: null }, title, body, dialog);
    }, { class: "main" }),
    button("Forget it", () => { note(null); bar.remove(); }));
  return bar;
}
