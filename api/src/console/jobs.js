// Jobs: when each runs, run one now, pause its schedule.

import { Refused, get, post } from "./api.js";
import { button, h, keepFocus, number, row, show, table, when } from "./dom.js";

const DOES = {
  sync: "Compares the pool with the provider's list",
  expire: "Ends leases past their time",
  cleanup: "Plans deletions at the provider",
  purge_stale: "Removes sandboxes that have been stale for long",
  census: "Counts the pool",
  sweep: "Removes what dead processes left",
  refill: "Asks for sandboxes that are missing",
  serve: "Offers what arrived",
};
/** The operation that runs a job; the others run by their schedule only. */
const RUNS = { sync: "sync", expire: "auto-expire", cleanup: "cleanup", purge_stale: "auto-delete-stale" };
/** The section of the runbook for a job that does not do its work. */
const SECTIONS = { sync: "pool-low", cleanup: "provider-down", census: "frozen-figures", refill: "refill", serve: "waiting" };
const POLL_MS = 2000;

let view = null;
const reports = new Map();

function report(told) {
  if (!told) return null;
  if (told.status === "queued") return h("span", { class: "muted", role: "status" }, "runs …");
  const details = Object.entries(told.details ?? {}).map(([name, count]) => `${name.replaceAll("_", " ")} ${number(count)}`);
  const counts = `found ${number(told.found)}, changed ${number(told.changed)}, skipped ${number(told.skipped)}, failed ${number(told.failed)}`;
  return h("span", { class: told.status === "failed" ? "bad" : null, role: "status" }, told.aborted ?? [counts, ...details].join(", "));
}

/** Whether a look at a run failed for now, and may tell more the next time. */
const passes = (error) => error instanceof Refused && (error.status === 0 || error.status === 429 || error.status >= 500);

async function run(job) {
  const tell = (told) => { reports.set(job, told); draw(view.app.seen); };
  tell({ status: "queued" });
  try {
    let { body } = await post(RUNS[job], null, { prefer: "wait=5" });
    while (body.status === "queued") {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      if (document.visibilityState !== "visible") continue;
      body = await get(`jobs/${body.request_id}`).catch((error) => { if (passes(error)) return body; throw error; });
    }
    tell(body);
  } catch (error) {
    reports.delete(job);
    draw(view.app.seen);
    throw error;
  }
}

async function schedule(job, act) {
  await post(`jobs/${job}/${act}`);
  view.app.say(act === "pause" ? `${job} is paused.` : `${job} runs by its schedule again.`);
  await view.app.refresh();
}

function draw(seen) {
  if (!seen || !view) return;
  const rows = seen.jobs.map((job) => row([
    h("b", null, job.job.replaceAll("_", " ")),
    h("span", { class: "muted" }, DOES[job.job] ?? ""),
    job.paused_at ? h("span", { class: "warn" }, "paused ", when(job.paused_at), job.paused_by ? ` by ${job.paused_by}` : "") : when(job.next_run_at),
    report(reports.get(job.job)) ?? h("span", { class: "zero" }, "–"),
    h("span", { class: "actions" }, view.app.mayAct && [
      RUNS[job.job] && button("Run now", () => run(job.job), { "aria-label": `Run now: ${job.job}`, disabled: reports.get(job.job)?.status === "queued" }),
      job.paused_at
        ? button("Resume", () => schedule(job.job, "resume"), { "aria-label": `Resume: ${job.job}` })
        : button("Pause", () => schedule(job.job, "pause"), { "aria-label": `Pause: ${job.job}` }),
    ]),
  ], { key: job.job, help: () => view.app.runbook(SECTIONS[job.job] ?? "what-the-jobs-cost") }));
  keepFocus(view.list, () => show(view.list, table("Jobs", ["Job", "Does", "Next run", "Last run from here", view.app.mayAct ? "Actions" : ""], rows, "No worker has scheduled a job yet.")));
}

export default {
  id: "jobs",
  title: "Jobs",
  open(app) {
    view = { app, list: h("div") };
    return [h("div", { class: "panel" }, view.list, h("p", { class: "foot" }, button("What the jobs cost", () => app.runbook("what-the-jobs-cost"), { class: "quiet" })))];
  },
  update: draw,
};
