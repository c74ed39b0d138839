// The operator's page: sign-in, the frame around the views, and what is asked again while the page is looked at.
//
// One overview every five seconds, for all views together, and only while the tab is visible. A list is read when it is
// opened, filtered, turned, or asked for again; that of a view with `every` also as often as that, while it is looked at, and
// with each overview after an act until the index must have followed the table.
// What is looked at is kept in memory, never in the address.

import * as api from "./api.js";
import { button, h, number, setNow, show, span } from "./dom.js";
import audit from "./audit.js";
import jobs from "./jobs.js";
import letters from "./letters.js";
import overview from "./overview.js";
import quarantine from "./quarantine.js";
import reservations from "./reservations.js";
import runbook, { sectionOf } from "./runbook.js";
import sandboxes from "./sandboxes.js";
import supply from "./supply.js";
import tenants from "./tenants.js";
import tracks from "./tracks.js";
import waiting from "./waiting.js";

/**
 * A view: id, title, open(app, what) which returns its element, update(overview) if it follows the overview, reload(byItself)
 * if it reads a list, and `every`, in milliseconds, if it does so by itself.
 */
const VIEWS = [overview, tracks, sandboxes, waiting, letters, reservations, tenants, supply, quarantine, jobs, audit, runbook];
const EVERY_MS = 5000;

const root = document.getElementById("app");
const opened = new Map();
let frame = null;

/** What views may ask of the frame. */
const app = {
  seen: null,
  get mayAct() { return this.seen !== null && !this.seen.caller.read_only; },
  go,
  say,
  drawer,
  opening,
  closeDrawer,
  refresh,
  runbook: (section) => drawer("Runbook", sectionOf(section)),
};

function signInPage(reason) {
  const input = h("input", { type: "password", name: "token", autocomplete: "off", required: true, spellcheck: "false" });
  input.id = "token";
  const submit = h("button", { type: "submit", class: "main" }, "Sign in");
  const failed = h("p", { class: "bad", role: "alert" }, reason ?? "");
  const form = h("form", { class: "sign-in panel", autocomplete: "off", onsubmit: async (event) => {
    event.preventDefault();
    submit.disabled = true;
    api.signIn(input.value.trim());
    try {
      app.seen = await api.get("overview");
      input.value = "";
      enter();
    } catch (error) {
      api.signOut();
      submit.disabled = false;
      show(failed, error.status === 403 ? "This token is a platform's, not an operator's." : error.message);
      input.select();
    }
  } },
    h("h1", null, "Sandbox broker"),
    h("label", { for: "token" }, "Operator's token"),
    input, failed, submit,
    h("p", { class: "muted" }, "It stays in this tab's memory and is gone when the tab is closed or reloaded."));
  frame = null;
  document.title = "Sign in · Sandbox broker";
  show(root, h("main", { class: "alone" }, form));
  input.focus();
}

function signOut(reason) {
  api.signOut();
  clearTimeout(timer);
  opened.clear();
  app.seen = null;
  signInPage(typeof reason === "string" ? reason : null);
}

function enter() {
  const nav = h("nav", { "aria-label": "Views" }, VIEWS.map((view, at) =>
    h("a", { href: `#${view.id}`, "data-view": view.id, title: at < 9 && `Key ${at + 1}`, onclick: (event) => { event.preventDefault(); go(view.id); } },
      h("span", null, view.title), h("span", { class: "badge", hidden: true }))));
  const find = h("input", { type: "search", name: "find", placeholder: "Student or sandbox id", "aria-label": "Find a student or a sandbox", autocomplete: "off", spellcheck: "false" });
  frame = {
    nav, find,
    live: h("p", { class: "live", role: "status" }),
    title: h("h1", { tabindex: "-1" }),
    view: h("div", { class: "view" }),
    aside: h("aside", { class: "drawer", hidden: true, "aria-label": "Details" }),
    says: h("div", { class: "says", role: "status", "aria-live": "polite" }),
  };
  show(root,
    h("div", { class: "frame" },
      h("header", { class: "side" },
        h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); frame.title.focus(); } }, "Skip to the view"),
        h("p", { class: "brand" }, h("img", { src: "console/icon.svg", alt: "", width: 22, height: 22 }), "Sandbox broker"),
        nav,
        h("div", { class: "who" },
          h("p", null, app.seen.caller.name, app.seen.caller.read_only && h("span", { class: "tag" }, "read-only")),
          button("Sign out", signOut, { class: "quiet" }))),
      h("main", { id: "main", tabindex: "-1" },
        h("div", { class: "top" }, frame.title,
          h("form", { class: "find", role: "search", onsubmit: (event) => {
            event.preventDefault();
            const text = find.value.trim();
            if (text) go("tracks", { find: text });
            find.value = "";
          } }, find),
          frame.live, button("Refresh", () => refresh(), { class: "quiet", title: "Refresh (r)" })),
        frame.view),
      frame.aside),
    frame.says);
  const wanted = VIEWS.find((view) => `#${view.id}` === location.hash) ?? VIEWS[0];
  go(wanted.id, null, true);
  took(app.seen);
  schedule();
}

let current = null;
let readAt = 0;
let place = 0;

/** Opens a view; `what` it shows stays in memory, the address has its name only. */
function go(view, what = null, replace = false) {
  place += 1;
  opened.set(place, what);
  history[replace ? "replaceState" : "pushState"]({ place }, "", `#${view}`);
  open(view, what);
}

function open(viewId, what) {
  const view = VIEWS.find((one) => one.id === viewId) ?? VIEWS[0];
  closeDrawer();
  current = view;
  readAt = Date.now();
  document.title = `${view.title} · Sandbox broker`;
  show(frame.title, view.title);
  for (const link of frame.nav.children) {
    if (link.dataset.view === view.id) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  show(frame.view, view.open(app, what));
  if (app.seen) view.update?.(app.seen);
  window.scrollTo(0, 0);
  if (document.activeElement?.closest("nav") === null) frame.title.focus({ preventScroll: true });
}

window.addEventListener("popstate", (event) => {
  if (frame) open(location.hash.slice(1), opened.get(event.state?.place) ?? null);
});

let timer = 0;
let asking = false;

function schedule() {
  clearTimeout(timer);
  if (frame && document.visibilityState === "visible") timer = setTimeout(look, EVERY_MS);
}

async function look() {
  if (!frame || asking || document.visibilityState !== "visible") return;
  asking = true;
  try {
    const seen = await api.get("overview");
    if (frame) took(seen);
  } catch (error) {
    failed(error);
  } finally {
    asking = false;
    schedule();
  }
  const follows = readAt - api.actedAt() < EVERY_MS;
  if (frame && current.every && (follows || Date.now() - readAt >= current.every)) {
    readAt = Date.now();
    current.reload(true);
  }
}

function took(seen) {
  app.seen = seen;
  setNow(seen.now);
  frame.live.className = "live";
  show(frame.live, h("i", { class: "dot is-available", "aria-hidden": "true" }), "live");
  badge("letters", seen.dead_letters.open);
  badge("overview", seen.problems.length);
  badge("quarantine", seen.pool?.states.quarantined ?? 0);
  badge("jobs", seen.jobs.filter((job) => job.paused_at !== null).length);
  current?.update?.(seen);
}

function badge(view, count) {
  const mark = frame.nav.querySelector(`[data-view="${view}"] .badge`);
  mark.hidden = count === 0;
  show(mark, count > 9999 ? `${Math.round(count / 1000)}k` : number(count), h("span", { class: "unseen" }, view === "overview" ? " problems" : ""));
}

/** Tells what went wrong; a token that is no longer known leads back to the sign-in. */
function failed(error) {
  if (error.name === "AbortError" || !frame) return;
  if (error.status === 401) return signOut("The token is not known any more.");
  frame.live.className = "live is-bad";
  const age = app.seen ? span(Date.now() / 1000 - app.seen.now) : "";
  show(frame.live, error.status === 0 ? `not reached${age && ` for ${age}`}` : error.message);
}

async function refresh() {
  readAt = Date.now();
  current.reload?.();
  await look();
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") look();
  else clearTimeout(timer);
});

let silence = 0;
function say(text, bad = false) {
  if (!frame) return;
  show(frame.says, h("p", { class: bad ? "bad" : null }, text));
  clearTimeout(silence);
  silence = setTimeout(() => frame && show(frame.says), bad ? 12000 : 5000);
}

let before = null;
/** Rises with whatever is opened or closed. */
let turn = 0;

/** A `drawer` for what is read first: it shows nothing once something else was opened, or closed. */
function opening() {
  let mine = ++turn;
  return (...what) => { if (mine === turn) mine = drawer(...what); };
}

function drawer(title, ...content) {
  before ??= document.activeElement;
  const head = h("h2", { tabindex: "-1" }, title);
  show(frame.aside, h("header", null, head, button("Close", closeDrawer, { class: "quiet", title: "Close (Escape)" })), content);
  frame.aside.hidden = false;
  frame.aside.scrollTop = 0;
  head.focus({ preventScroll: true });
  return ++turn;
}

function closeDrawer() {
  turn += 1;
  if (!frame || frame.aside.hidden) return;
  frame.aside.hidden = true;
  show(frame.aside);
  if (before?.isConnected) before.focus({ preventScroll: true });
  before = null;
}

document.addEventListener("keydown", (event) => {
  if (!frame || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") return closeDrawer();
  if (event.target.closest("input,select,textarea")) return;
  if (event.key === "/") {
    event.preventDefault();
    frame.find.focus();
  } else if (event.key === "r") refresh();
  else if (VIEWS[Number(event.key) - 1]) go(VIEWS[Number(event.key) - 1].id);
});

window.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  failed(event.reason);
  if (event.reason instanceof api.Refused && event.reason.status !== 401) say(event.reason.message, true);
  else if (event.reason?.name !== "AbortError") console.error(event.reason);
});

signInPage();
