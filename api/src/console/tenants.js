// Tenants: what each may hold and holds, how many of it wait, what is reserved for it.
//
// Reads: one page of 50 tenants when it is opened or turned, at Refresh, and every 15 s while it is the first page.

import { get } from "./api.js";
import { button, h, keepFocus, local, many, number, row, show, table, when } from "./dom.js";

let view = null;

const none = () => h("span", { class: "zero" }, "–");

/** The use of a limit, as figure and bar. */
function use({ flavour, held, max }) {
  const tone = max === 0 || held < max ? null : held > max ? "bad" : "warn";
  const bar = h("meter", { min: 0, max: Math.max(1, max), value: Math.min(held, max), "aria-label": `${flavour}: ${held} of ${max}` });
  return h("span", { class: "use" }, h("span", null, flavour), bar, h("span", { class: tone }, max === 0 ? "none allowed" : `${number(held)} of ${number(max)}`));
}

function running(app, tenant) {
  if (tenant.running.length === 0) return none();
  const sum = (name) => tenant.running.reduce((total, one) => total + one[name], 0);
  return button(`${number(sum("held"))} of ${number(sum("count"))}`, () => app.go("reservations", { tenant: tenant.tenant }), { class: "link" });
}

function next(app, { tenant, next: one, planned }) {
  if (!one) return none();
  const more = planned > 1 ? h("span", { class: "muted" }, ` and ${number(planned - 1)} more`) : null;
  return [button([`${number(one.count)} from `, local(one.from)], () => app.go("reservations", { tenant, at: one.from }), { class: "link" }), more];
}

async function read(more) {
  const mine = (view.reading = {});
  view.turned = more;
  const page = await get("tenants", { limit: 50, cursor: more ? view.cursor : null });
  if (mine !== view.reading) return;
  view.rows = more ? [...view.rows, ...page.tenants] : page.tenants;
  view.cursor = page.next_cursor;
  const { app } = view;
  const rows = view.rows.map((one) => row([
    h("b", null, one.tenant),
    one.limits.length === 0 ? h("span", { class: "muted" }, "no limit") : h("span", { class: "uses" }, one.limits.map(use)),
    one.waiting > 0 ? button(number(one.waiting), () => app.go("waiting", { tenant: one.tenant }), { class: "link", "aria-label": `${number(one.waiting)} of ${one.tenant} wait` }) : "0",
    one.oldest_since ? when(one.oldest_since) : none(),
    number(one.weight), running(app, one), next(app, one),
  ], { key: one.tenant, help: () => app.runbook(one.waiting > 0 ? "waiting" : "policy") }));
  keepFocus(view.list, () => show(view.list,
    table("Tenants", ["Tenant", "Limits", "#Waiting", "Oldest", "#Share", "Put aside now", "Next reservation"], rows, "The policy names no tenant, none waits, and nothing is reserved."),
    h("p", { class: "foot" }, h("span", { class: "muted" }, `${many(view.rows.length, "tenant")}${page.next_cursor ? " shown" : "; others have no limit, and nothing waits for them"}`), page.next_cursor && button("More", () => read(true)))));
}

export default {
  id: "tenants",
  title: "Tenants",
  open(app) {
    view = { app, rows: [], cursor: null, list: h("div", null, h("p", { class: "none", role: "status" }, "Reading …")) };
    read(false);
    return [h("div", { class: "panel" }, view.list)];
  },
  every: 15000,
  reload: (byItself) => (byItself && view.turned ? null : read(false)),
};
