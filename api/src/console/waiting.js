// Who waits in a line, since when, why and how many are ahead; one, or all that match, can be cancelled.
//
// Reads: a page of 50 requests when it is opened, filtered or turned, at Refresh, and every 15 s while it is the first page
// (as many calls as it takes to find as many as are shown, up to a bound).

import { CALLS, PAGE, pages, post } from "./api.js";
import { button, field, h, keepFocus, many, number, row, show, table, when } from "./dom.js";

export const REASONS = {
  empty: "nothing that fits is free",
  limit: "its tenant has as many as it may",
  refill_running: "more were asked for",
  refill_stopped: "refill is paused, or its hook fails",
};

let view = null;

/** The section of the runbook for a reason. */
const section = (reason) => (reason === "refill_stopped" ? "refill" : "waiting");

/** What the form says, as the API takes it. */
const filters = () => Object.fromEntries([...new FormData(view.form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== ""));

const wants = (one) => one.flavour ?? (one.name_prefix ? `names from ${one.name_prefix}` : "any sandbox");
const why = (one) => h("span", { class: one.reason === "refill_stopped" ? "warn" : null }, REASONS[one.reason] ?? one.reason);

async function read(more, byItself = false) {
  // What is half typed filters nothing yet.
  if (!byItself && !more) view.filters = filters();
  const { busy } = view;
  busy.textContent = "reading …";
  busy.hidden = byItself;
  const mine = (view.reading = {});
  let rows = more ? view.rows : [];
  // By itself it shows no less than was shown.
  const wanted = byItself ? Math.max(1, view.rows.length) : rows.length + PAGE;
  let calls = 0;
  await pages("waiting", view.filters, more ? view.cursor : null, (page) => {
    if (mine !== view.reading) return 0;
    rows = [...rows, ...page.waiting];
    calls += 1;
    // What is not found in some calls stays as it was shown.
    if (byItself && rows.length < wanted && page.next_cursor) return calls < CALLS ? wanted - rows.length : 0;
    Object.assign(view, { rows, cursor: page.next_cursor });
    draw(page);
    busy.textContent = "still looking …";
    return wanted - rows.length;
  }).finally(() => {
    if (mine !== view.reading) return;
    busy.hidden = true;
    view.reading = null;
  });
}

function draw(page) {
  const does = (key, one) => ({ key, help: () => view.app.runbook(section(one.reason)) });
  const lines = page.lines.filter((line) => line.length > 0).map((line) => row([
    h("b", null, wants(line)), line.tenant, number(line.length), line.oldest_since ? when(line.oldest_since) : h("span", { class: "zero" }, "–"), why(line),
  ], does(`line ${line.tenant} ${wants(line)}`, line)));
  const rows = view.rows.map((one) => row([
    one.track_id ? button(one.track_id, () => view.app.go("tracks", { find: one.track_id }), { class: "link" }) : h("span", { class: "muted" }, "unknown"),
    wants(one), one.tenant, number(one.ahead), when(one.since), when(one.deadline), why(one),
    h("span", { class: "actions" }, view.app.mayAct && button("Cancel", () => ask({ id: one.request_id }), { "aria-label": `Cancel: ${one.track_id ?? one.request_id}` })),
  ], does(one.request_id, one)));
  const drawn = () => {
    show(view.lines, lines.length > 0 && [h("h2", null, "Lines"), table("Lines", ["Wants", "Tenant", "#Waiting", "Oldest", "Why"], lines, ""),
      page.lines_total > page.lines.length && h("p", { class: "foot muted" }, `The longest ${number(page.lines.length)} of ${number(page.lines_total)} lines.`)]);
    show(view.list, lines.length > 0 && h("h2", null, "Requests, line by line"),
      table("Requests that wait", ["Student", "Wants", "Tenant", "#Ahead", "Since", "Until", "Why", view.app.mayAct ? "Actions" : ""], rows, page.next_cursor ? "None so far: lines are read a part at a time." : "Nobody waits."),
      h("p", { class: "foot" }, h("span", { class: "muted" }, `${many(view.rows.length, "request")} shown, line by line`), page.next_cursor && button("More", () => read(true)),
        button("What to do", () => view.app.runbook("waiting"), { class: "quiet" })));
  };
  keepFocus(view.root, drawn);
}

/** Cancels what is selected: one call reads and cancels a part, and the next goes on behind it. */
async function cancel(which) {
  const done = { cancelled: 0, ended: 0 };
  let cursor = null;
  const tell = (more) => {
    const ended = done.ended > 0 ? ` ${number(done.ended)} had ended.` : "";
    view.app.say(`${many(done.cancelled, "request")} cancelled.${ended}${more}`);
  };
  try {
    do {
      const { body } = await post("waiting/cancel", { ...which, cursor });
      done.cancelled += body.cancelled;
      done.ended += body.ended;
      cursor = body.next_cursor;
      tell(cursor ? " Looking for more …" : "");
    } while (cursor);
  } finally {
    await read(false);
  }
}

function cancelAll() {
  const query = filters();
  return ask(Object.keys(query).length === 0 ? { all: true } : query);
}

/** Counts those that are selected, as far as the call that finds the first, and cancels all once that is confirmed. */
async function ask(which) {
  const title = h("h2", { id: "cancel-title" }, "Cancel requests that wait");
  const body = h("div", { class: "stack" }, h("p", { role: "status" }, "Counting, nothing is changed …"));
  const dialog = h("dialog", { "aria-labelledby": "cancel-title", onclose: () => dialog.remove() }, title, body);
  document.body.append(dialog);
  dialog.showModal();
  let told;
  // A call reads so many lines at most: among those that do not match, or in which nobody waits any more, it may find none.
  do {
    ({ body: told } = await post("waiting/cancel", { ...which, dry_run: true, cursor: told?.next_cursor })
      .catch((error) => { dialog.close(); throw error; }));
  } while (told.found === 0 && told.next_cursor && dialog.open);
  const count = `${many(told.found, "request")}${told.more ? " and more" : ""}`;
  const go = button(`Cancel ${count}`, async () => { dialog.close(); await cancel(which); }, { class: "danger", disabled: told.found === 0 });
  const close = button("Close", () => dialog.close());
  show(body,
    h("p", { class: "big" }, `${count}.`),
    h("p", { class: "muted" }, "Each is told that it is cancelled. Those that are granted a sandbox meanwhile keep it."),
    h("p", { class: "actions" }, go, close));
  (go.disabled ? close : go).focus();
}

export default {
  id: "waiting",
  title: "Waiting",

  open(app, what) {
    const text = (name, label) => field(label, h("input", { name, type: "text", value: what?.[name] ?? "", autocomplete: "off", spellcheck: "false" }));
    const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); read(false); } },
      text("flavour", "Flavour"), text("name_prefix", "Name prefix"), text("tenant", "Tenant"), text("track", "Student"),
      h("button", { type: "submit", class: "main" }, "Filter"),
      h("span", { class: "busy", hidden: true, role: "status" }, "reading …"));
    view = { app, form, lines: h("div"), list: h("div"), busy: form.querySelector(".busy"), rows: [], cursor: null };
    const bulk = app.mayAct && h("p", { class: "actions bulk" }, h("span", { class: "muted" }, "All that match:"), button("Cancel all …", cancelAll));
    view.root = h("div", { class: "panel" }, form, bulk, view.lines, view.list);
    read(false);
    return [view.root];
  },

  every: 15000,
  reload: (byItself) => (byItself && (view.rows.length > PAGE || view.reading) ? null : read(false, byItself)),
};
