// Supply: what each flavour is short of and what holds it up; pause and resume asking for more. Read every 15 s.

import { get, part, post } from "./api.js";
import { button, h, keepFocus, number, row, show, table, when } from "./dom.js";

/** A state in words, and whether somebody should look. */
const SAYS = {
  running: ["asks for what is missing", null],
  stopped: ["its hook does not answer: called once a back-off", "bad"],
  slowed: ["its hook asked for time", "warn"],
  paused: ["an operator paused it", "warn"],
  signal: ["no hook: told by metric and log", null],
};

let view = null;

async function read() {
  const mine = (view.reading = {});
  const told = await get("refill");
  if (mine !== view.reading) return;
  const rows = told.flavours.map((one) => {
    const [says, tone] = SAYS[one.state] ?? [one.state, null];
    return row([
      h("b", null, one.flavour),
      h("span", { class: tone }, one.state, h("span", { class: "muted" }, ` · ${says}`)),
      number(one.desired), number(one.available), number(one.arriving), number(one.tickets),
      h("span", { class: one.missing > 0 ? "warn" : null }, number(one.missing)),
      `${number(one.live)} of ${number(one.max)}`,
      when(one.next_call_at),
      h("span", { class: "actions" }, view.app.mayAct && (one.state === "paused" || one.state === "stopped"
        ? button("Resume", () => change(one.flavour, "resume"), { "aria-label": `Resume: ${one.flavour}` })
        : button("Pause", () => change(one.flavour, "pause"), { "aria-label": `Pause: ${one.flavour}` }))),
    ], { key: one.flavour, help: () => view.app.runbook("refill") });
  });
  const heads = ["Flavour", "State", "#Wanted", "#Available", "#Arriving", "#Asked for", "#Missing", "#There are", "Next call", view.app.mayAct ? "Actions" : ""];
  keepFocus(view.list, () => show(view.list, table("Refill", heads, rows, "The policy refills no flavour.")));
}

async function change(flavour, act) {
  await post(`refill/${part(flavour)}/${act}`);
  view.app.say(act === "pause" ? `No more is asked for of ${flavour}.` : `${flavour} is asked for again.`);
  await read();
}

export default {
  id: "supply",
  title: "Supply",
  open(app) {
    view = { app, list: h("div", null, h("p", { class: "none", role: "status" }, "Reading …")) };
    read();
    return [h("div", { class: "panel" }, view.list, h("p", { class: "foot" },
      button("What to do", () => app.runbook("refill"), { class: "quiet" }),
      button("Quarantine", () => app.go("quarantine"), { class: "quiet" })))];
  },
  every: 15000,
  reload: () => read(),
};
