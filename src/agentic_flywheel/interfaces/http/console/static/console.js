// What scripts add to pages that work without them: keys, charts, news, times that go on, links to copy.
// Nothing here is needed to read or to do anything.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const told = () => $("#told");
const tell = (text) => { if (told()) told().textContent = text; };

// --- Times: what was "5 minutes ago" goes on, and says the reader's own time of day when pointed at.
const language = document.documentElement.lang;
const relative = new Intl.RelativeTimeFormat(language, { numeric: "always" });
const absolute = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function tick(root = document) {
  for (const time of $$("time[datetime]", root)) {
    const at = Date.parse(time.dateTime);
    const seconds = (Date.now() - at) / 1000;
    time.title = absolute.format(at);
    const [unit, length] = units.find(([, length]) => seconds >= length) ?? [null, 1];
    if (unit && seconds >= 60) time.textContent = relative.format(-Math.round(seconds / length), unit);
  }
}
setInterval(tick, 30000);

// --- Keys. None of them where somebody writes, or with another key held down.
function items() { return $$("[data-item]"); }

function move(by) {
  const all = items();
  if (!all.length) return;
  const at = all.findIndex((item) => item.classList.contains("here"));
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
  all.forEach((item) => item.classList.toggle("here", item === next));
  ($("a, button", next) ?? next).focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "Escape") { $$("details.menu[open]").forEach((menu) => menu.removeAttribute("open")); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const here = $("[data-item].here") ?? event.target.closest?.("[data-item]");
  if (event.key === "/") {
    const box = $("main input[type=search]") ?? $("#jump");
    if (box) { event.preventDefault(); box.focus(); box.select(); }
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "w") $("a[data-report]", here ?? document)?.click();
});
document.addEventListener("click", (event) => {
  for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.removeAttribute("open");
});

// --- Links to copy.
class CopyLink extends HTMLElement {
  connectedCallback() {
    if (!navigator.clipboard || this.firstChild) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = this.getAttribute("label");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(new URL(this.getAttribute("href"), location.href).href);
      tell(told().dataset.copied);
      button.textContent = told().dataset.copied;
    });
    this.append(button);
  }
}
customElements.define("copy-link", CopyLink);

// --- Charts, drawn from the table that each holds.
const colour = (name) => {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};
const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 });
const forms = {
  number: (value) => numbers.format(value),
  percent: (value) => percents.format(value),
  milliseconds: (value) => value >= 1000 ? `${numbers.format(value / 1000)} s` : `${numbers.format(value)} ms`,
};
const HEIGHT = 192;
const dashes = [[], [6, 3], [2, 3], [8, 3, 2, 3]];

class TimeChart extends HTMLElement {
  connectedCallback() {
    if (!window.uPlot || $(".plot", this)) return;
    const heads = $$("thead th", this).slice(1);
    const rows = $$("tbody tr", this).map((row) => [...row.children].map((cell) => cell.dataset.v));
    if (!rows.length) return;
    this.names = heads.map((head) => head.textContent);
    this.styles = heads.map((head) => head.dataset.style);
    this.bars = this.getAttribute("kind") === "bars";
    this.step = Number(this.getAttribute("step")) || 3600;
    this.at = rows.map((row) => Number(row[0]));
    this.values = heads.map((_, column) => rows.map((row) => row[column + 1] === "" ? null : Number(row[column + 1])));
    this.form = forms[this.getAttribute("form")] ?? forms.number;
    this.place = Object.assign(document.createElement("div"), { className: "plot" });
    this.place.setAttribute("aria-hidden", "true");
    this.key = Object.assign(document.createElement("ul"), { className: "legend" });
    this.key.setAttribute("aria-hidden", "true");
    this.prepend(this.place, this.key);
    this.draw();
    if (this.hasAttribute("opens")) this.place.addEventListener("click", () => this.open());
    this.seen = new ResizeObserver(() => {
      const width = this.clientWidth;
      if (this.chart && width && Math.abs(width - this.chart.width) > 1) this.chart.setSize({ width, height: HEIGHT });
    });
    this.seen.observe(this);
  }

  disconnectedCallback() { this.seen?.disconnect(); this.chart?.destroy(); this.chart = null; }

  // Bars stand on each other: the last column is drawn first, as high as all before it and itself.
  draw() {
    this.chart?.destroy();
    const colours = this.styles.map(colour);
    const order = this.names.map((_, at) => at);
    let drawn = this.values;
    if (this.bars) {
      const sums = this.at.map(() => 0);
      drawn = this.values.map((column) => column.map((value, at) => (sums[at] += value ?? 0)));
      order.reverse();
    }
    const log = this.hasAttribute("log");
    const bars = this.bars && uPlot.paths.bars({ size: [0.75, 48], align: 1 });
    const ink = colour("faint"), line = colour("line");
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const highest = Math.max(0, ...drawn.flat().filter((value) => value != null));
    this.chart = new uPlot({
      width: this.clientWidth || 320,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, points: { show: !this.bars }, drag: { x: false, y: false } },
      scales: {
        x: { range: (_, low, high) => [low, high + (this.bars ? this.step : 0) || low + this.step] },
        y: log ? { distr: 3 } : { range: [0, this.getAttribute("form") === "percent" ? 1 : Math.max(4, highest * 1.08)] },
      },
      axes: [
        { ...axis, space: 64, size: this.step >= 86400 ? 30 : 44, gap: 4, values: (_, at) => this.moments(at) },
        { ...axis, size: 56, values: (_, at) => at.map((value) => value == null ? "" : this.form(value)) },
      ],
      series: [{}, ...order.map((at) => ({
        label: this.names[at],
        stroke: colours[at],
        width: this.bars ? 0 : 2,
        dash: this.bars ? undefined : dashes[at % dashes.length],
        fill: this.bars ? colours[at] : undefined,
        paths: bars || undefined,
        spanGaps: true,
        points: { show: !this.bars && this.values[at].filter((value) => value != null).length < 40, size: 6, fill: colours[at] },
      }))],
      hooks: { setCursor: [(chart) => this.legend(chart.cursor.idx)] },
    }, [this.at, ...order.map((at) => drawn[at])], this.place);
    this.legend(null);
  }

  // The step that was pointed at, and of it the outcome.
  open() {
    const at = this.chart.cursor.idx;
    const row = at == null ? null : $$("tbody tr", this)[at];
    if (!row) return;
    const link = new URL($("a", row).href);
    const height = this.chart.posToVal(this.chart.cursor.top, "y");
    let sum = 0;
    const band = this.values.findIndex((column) => (sum += column[at] ?? 0) >= height);
    const outcome = this.getAttribute("opens").split(" ")[band];
    if (outcome) link.searchParams.set("outcome", outcome);
    location.assign(link);
  }

  moments(at) {
    const wide = at.length > 1 ? at[1] - at[0] : 3600;
    const shown = new Intl.DateTimeFormat(language, wide >= 86400
      ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const day = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
    let before = "";
    return at.map((moment) => {
      const date = new Date(moment * 1000), today = day.format(date);
      const said = wide < 86400 && today !== before ? `${shown.format(date)}\n${today}` : shown.format(date);
      before = today;
      return said;
    });
  }

  legend(at) {
    const drawn = this.names.map((_, column) => column)
      .filter((column) => !this.bars || this.values[column].some((value) => value) || column === 0);
    this.key.replaceChildren(...drawn.map((column) => {
      const name = this.names[column];
      const item = document.createElement("li");
      const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      swatch.setAttribute("width", "18");
      swatch.setAttribute("height", "10");
      const mark = document.createElementNS("http://www.w3.org/2000/svg", "line");
      for (const [key, value] of Object.entries({ x1: 0, x2: 18, y1: 5, y2: 5 })) mark.setAttribute(key, value);
      mark.style.stroke = `var(--${this.styles[column]})`;
      mark.style.strokeWidth = this.bars ? 10 : 2.5;
      if (!this.bars) mark.style.strokeDasharray = dashes[column % dashes.length].join(" ");
      swatch.append(mark);
      item.append(swatch, ` ${name}`);
      const value = at == null ? null : this.values[column][at];
      if (value != null) {
        const figure = document.createElement("b");
        figure.textContent = this.form(value);
        item.append(figure);
      }
      return item;
    }));
  }
}
customElements.define("time-chart", TimeChart);
const redraw = () => $$("time-chart").forEach((chart) => chart.chart && chart.draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// --- News: parts of the page that are fetched again when something was asked, while the page is looked at.
let source = null, address = "", waiting = 0;

function refresh() {
  waiting = 0;
  for (const part of $$("[data-live]")) {
    const busy = part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
    if (busy || $("details.keep[open]", part)) continue;
    htmx.ajax("GET", part.getAttribute("hx-get"), { source: part, target: part, swap: "outerHTML", select: `#${part.id}` });
  }
}

function listen() {
  const part = $("[data-live]");
  const wanted = part && !document.hidden ? part.dataset.live : "";
  if (wanted === address && source?.readyState !== 2) return;
  source?.close();
  source = null;
  address = wanted;
  $$(".live").forEach((sign) => sign.classList.remove("on"));
  if (!wanted) return;
  source = new EventSource(wanted);
  source.addEventListener("open", () => $$(".live").forEach((sign) => sign.classList.add("on")));
  source.addEventListener("error", () => $$(".live").forEach((sign) => sign.classList.remove("on")));
  source.addEventListener("news", () => { waiting ||= setTimeout(refresh, 400); });
}
document.addEventListener("visibilitychange", () => {
  const was = address;
  listen();
  if (!was && address) refresh();
});
document.addEventListener("htmx:after:swap", () => {
  tick();
  if (source?.readyState === 1) $$(".live").forEach((sign) => sign.classList.add("on"));
  tell(told()?.dataset.updated);
});
addEventListener("pagehide", () => source?.close());

// On a telephone the navigation is a strip: where one is stands in sight.
const strip = $(".side"), here = $(".side [aria-current]");
if (strip && here) strip.scrollLeft = here.offsetLeft - (strip.clientWidth - here.clientWidth) / 2;

tick();
listen();
