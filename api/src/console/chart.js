// Charts of the last hour as inline SVG: lines, stacked areas and stacked bars over sixty minutes.

import { clock, h, number, s, show, zone } from "./dom.js";

const HOUR = 3600;
const SHORTEST = 600;
const BOTTOM = 18;
const TOP = 6;

/** A round number that is not below `value`. */
function ceiling(value) {
  if (value <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

/** A line without axes, for a figure's tile. Gaps stay gaps. */
export function sparkline(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length < 2) return h("div", { class: "spark" });
  const low = Math.min(...known), high = Math.max(...known), range = high - low || 1;
  const y = (value) => (high === low ? 12 : 22 - ((value - low) / range) * 20);
  return h("div", { class: "spark" }, s("svg", { viewBox: "0 0 120 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { d: path(values.map((value, at) => [(at / (values.length - 1)) * 120, value]), (x) => x, y) })));
}

function path(points, x, y) {
  let text = "", gap = true;
  for (const [at, value] of points) {
    if (value === null || value === undefined) { gap = true; continue; }
    // A point alone is seen as one.
    text += `${gap ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}${gap ? "h.01" : ""}`;
    gap = false;
  }
  return text;
}

/**
 * A chart with title, legend and, for those who do not see it, a table. `series`: name, label, of(minute); `kind`: area,
 * bars or lines. `update(minutes, now)` draws anew.
 */
export function chart({ title, series, kind, write = number, height = 150, onpick }) {
  const legend = h("ul", { class: "legend" });
  const drawing = h("div", { class: "drawing" });
  const rows = h("details", { class: "as-table" });
  const summary = h("summary", null, "Table");
  const element = h("section", { class: "panel chart" }, h("header", null, h("h2", null, title), legend), drawing, rows);
  let minutes = [], until = 0, width = 0, picked = null;

  const label = (one, at) => {
    const value = at ? one.of(at) : null;
    const inner = [h("i", { class: `dot is-${one.name}`, "aria-hidden": "true" }), one.label, h("b", null, value === null ? "–" : write(value))];
    return h("li", { "data-key": one.name }, onpick ? h("button", { type: "button", class: "quiet", onclick: () => onpick(one.name) }, inner) : inner);
  };

  function drawLegend() {
    const known = minutes.filter((minute) => series.some((one) => one.of(minute) !== null));
    // What was answered is known when its minute is over.
    const over = kind === "area" ? known : known.filter((minute) => minute.at < until - 60 && minute.at > until - 240);
    const at = picked ?? over.at(-1);
    show(legend, picked && h("li", { class: "muted" }, clock(picked.at)), series.map((one) => label(one, at)));
  }

  function draw() {
    if (width < 40) return;
    // A young broker has less than an hour to show.
    const range = Math.min(HOUR, Math.max(SHORTEST, until - (minutes[0]?.at ?? 0)));
    const from = until - range;
    const stacked = kind !== "lines";
    const total = (minute) => series.map((one) => one.of(minute) ?? 0).reduce((a, b) => (stacked ? a + b : Math.max(a, b)), 0);
    const most = ceiling(Math.max(0, ...minutes.map(total)));
    const left = 12 + 6.4 * Math.max(...[most, most / 2, 0].map((value) => write(value).length));
    const plot = { left, right: width - 6, top: TOP, bottom: height - BOTTOM };
    const x = (at) => plot.left + ((at - from) / range) * (plot.right - plot.left);
    const y = (value) => plot.bottom - (value / most) * (plot.bottom - plot.top);
    const grid = [0, 0.5, 1].map((part) => [
      s("line", { class: "grid", x1: plot.left, x2: plot.right, y1: y(most * part), y2: y(most * part) }),
      s("text", { x: plot.left - 6, y: y(most * part) + 4, "text-anchor": "end" }, write(most * part)),
    ]);
    const step = range > 2400 ? 900 : range > 1200 ? 300 : 120;
    const first = Math.ceil(from / step) * step;
    const hours = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((n) => first + n * step).filter((at) => at <= until - 60 && x(at) > plot.left + 8);
    const times = hours.map((at) => s("text", { x: x(at), y: height - 4, "text-anchor": "middle" }, clock(at)));
    const mark = s("line", { class: "mark", y1: plot.top, y2: plot.bottom });
    const drawn = kind === "bars" ? bars(x, y) : kind === "area" ? areas(x, y) : lines(x, y);
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${title}, the last hour` }, grid, times, drawn, mark);
    svg.addEventListener("pointermove", (event) => {
      const at = from + ((event.offsetX - plot.left) / (plot.right - plot.left)) * range;
      picked = minutes.reduce((best, minute) => (!best || Math.abs(minute.at + 30 - at) < Math.abs(best.at + 30 - at) ? minute : best), null);
      if (!picked) return;
      mark.setAttribute("x1", x(picked.at + 30));
      mark.setAttribute("x2", x(picked.at + 30));
      mark.setAttribute("class", "mark is-on");
      drawLegend();
    });
    svg.addEventListener("pointerleave", () => {
      picked = null;
      mark.setAttribute("class", "mark");
      drawLegend();
    });
    show(drawing, svg);
  }

  const layers = () => series.map((_, top) => minutes.map((minute) => {
    const known = series[0].of(minute) !== null;
    const up = series.slice(0, top + 1).reduce((sum, one) => sum + (one.of(minute) ?? 0), 0);
    return { at: minute.at, known, up, low: up - (series[top].of(minute) ?? 0) };
  }));

  function areas(x, y) {
    return layers().map((layer, top) => {
      if (layer.every((point) => point.up === point.low)) return [];
      let text = "", edge = "", run = [];
      const close = () => {
        if (run.length === 1) run.push({ ...run[0], at: run[0].at + 30 });
        if (run.length) {
          const over = run.map((p) => `${x(p.at + 30).toFixed(1)} ${y(p.up).toFixed(1)}`);
          const under = run.toReversed().map((p) => `${x(p.at + 30).toFixed(1)} ${y(p.low).toFixed(1)}`);
          edge += `M${over.join("L")}`;
          text += `M${over.join("L")}L${under.join("L")}Z`;
        }
        run = [];
      };
      for (const point of layer) {
        if (!point.known || (run.length && point.at - run.at(-1).at > 600)) close();
        if (point.known) run.push(point);
      }
      close();
      return [s("path", { class: `area is-${series[top].name}`, d: text }), s("path", { class: `edge is-${series[top].name}`, d: edge })];
    });
  }

  function bars(x, y) {
    const wide = Math.max(1.5, (x(60) - x(0)) * 0.72);
    return layers().map((layer, top) => s("path", {
      class: `bar is-${series[top].name}`,
      d: layer.filter((p) => p.up > p.low).map((p) => `M${(x(p.at + 30) - wide / 2).toFixed(1)} ${y(p.low).toFixed(1)}V${y(p.up).toFixed(1)}h${wide.toFixed(1)}V${y(p.low).toFixed(1)}Z`).join(""),
    }));
  }

  const lines = (x, y) => series.map((one) => s("path", {
    class: `line is-${one.name}`,
    d: path(minutes.map((minute) => [minute.at + 30, one.of(minute)]), x, y),
  }));

  function drawTable() {
    if (!rows.open) return show(rows, summary);
    show(rows, summary, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title} as a table` }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, `Minute (${zone})`), series.map((one) => h("th", { scope: "col" }, one.label)))),
      h("tbody", null, minutes.toReversed().map((minute) => h("tr", null, h("td", null, clock(minute.at)), series.map((one) => h("td", null, one.of(minute) === null ? "–" : write(one.of(minute))))))))));
  }
  rows.addEventListener("toggle", drawTable);
  drawTable();

  const watch = new ResizeObserver(([entry]) => {
    const wide = Math.floor(entry.contentRect.width);
    if (wide !== width) { width = wide; draw(); }
  });
  watch.observe(drawing);

  element.update = (given, now) => {
    minutes = given;
    until = Math.floor(now / 60) * 60 + 60;
    draw();
    drawLegend();
    if (rows.open) drawTable();
  };
  return element;
}
