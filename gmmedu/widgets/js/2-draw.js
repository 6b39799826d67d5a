// Drawing: SVG that knows the units of the data, handles, sliders, curves, ellipses, legends.

const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9030D8", "#904830"];
const GREY = "#797979";
const colorOf = (k) => PALETTE[k % PALETTE.length];
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A number for people: significant digits, a true minus sign. */
function format(value, digits = 4) {
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : value < 0 ? "\u2212\u221e" : "\u2013";
  const size = Math.abs(value);
  const text = size && (size < 1e-4 || size >= 1e6) ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "\u2212");
}
const clip = (v, low, high) => Math.min(Math.max(v, low), high);

function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : value);
  }
  node.append(...children);
  return node;
}
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  put(node, attributes);
  node.append(...children);
  return node;
}
function put(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** Round numbers in an interval: so many, or up to twice as many. */
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [5, 2, 1].find((s) => s * power <= raw * (1 + 1e-9)), found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** One coordinate: data from low to high (above it or below) onto pixels from start to end, linear or logarithmic. */
class Axis {
  constructor({ low, high, name, log = false }) { Object.assign(this, { low, high, name, log, start: 0, end: 1 }); }
  _u(v) { return this.log ? Math.log10(v) : v; }
  at(v) { return this.start + ((this._u(v) - this._u(this.low)) / (this._u(this.high) - this._u(this.low))) * (this.end - this.start); }
  back(px) {
    const u = this._u(this.low) + ((px - this.start) / (this.end - this.start)) * (this._u(this.high) - this._u(this.low));
    return this.log ? 10 ** u : u;
  }
  clip(v) { return clip(v, Math.min(this.low, this.high), Math.max(this.low, this.high)); }
  /** A place d further along, to the right or up where d > 0; in decades where logarithmic. */
  move(v, d) {
    const way = this.high > this.low ? d : -d;
    return this.clip(this.log ? v * 10 ** way : v + way);
  }
  ticks(count) {
    const [low, high] = [this._u(this.low), this._u(this.high)].sort((a, b) => a - b);
    if (!this.log) return ticks(low, high, count);
    return ticks(low, high, Math.max(1, Math.min(count / 1.5, Math.floor(high - low)))).filter(Number.isInteger).map((u) => 10 ** u);
  }
}

let planes = 0;
/** Axes in a drawing that is as wide as its place; `height(width)` says how tall. */
class Plane {
  constructor(ui, { label, x, y, height, margin = {} }) {
    Object.assign(this, { ui, height, x: new Axis(x), y: new Axis(y), knobs: [] });
    this.margin = { left: 48, right: 10, top: 8, bottom: 42, ...margin };
    this.frame = svg("g", { "aria-hidden": true });
    this.back = svg("g", { "aria-hidden": true });
    this.front = svg("g");
    this.mask = svg("rect");
    this.inside = svg("g", { "clip-path": `url(#gm-inside-${++planes})` }); // what must not reach over the axes
    this.back.append(svg("clipPath", { id: `gm-inside-${planes}` }, this.mask), this.inside);
    this.svg = svg("svg", { role: "group", "aria-label": label, class: "gm-plane" }, this.frame, this.back, this.front);
    ui.stage.append(this.svg);
    ui.planes.push(this);
  }
  /** Lay out anew for the width there is. */
  fit() {
    const width = Math.max(240, Math.round(this.svg.parentElement.clientWidth)), height = Math.round(this.height(width)), m = this.margin;
    put(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    Object.assign(this.x, { start: m.left, end: width - m.right });
    Object.assign(this.y, { start: height - m.bottom, end: m.top });
    put(this.mask, { x: m.left, y: m.top, width: width - m.left - m.right, height: height - m.top - m.bottom });
    this.box = { width, height };
  }
  drawAxes() {
    const { x, y } = this, nodes = [];
    const line = (x1, y1, x2, y2) => nodes.push(svg("line", { x1, y1, x2, y2, class: "gm-axis" }));
    const text = (at, content, anchor, extra = {}) => nodes.push(svg("text", { x: at[0], y: at[1], "text-anchor": anchor, class: "gm-text", ...extra }, content));
    line(x.start, y.start, x.end, y.start);
    line(x.start, y.start, x.start, y.end);
    // Far from 0 the ticks count from the first of them, and the name of the axis says so.
    const labels = (axis, count) => {
      const all = axis.ticks(count), from = !axis.log && Math.abs(all[0]) > 1e4 * Math.abs(all[1] - all[0]) ? all[0] : 0;
      const shown = (v) => (axis.log ? `1e${Math.round(Math.log10(v))}`.replace("-", "\u2212") : format(v - from, 6));
      return [all.map((v) => [v, shown(v)]), from ? `${axis.name} ${from > 0 ? "\u2212" : "+"} ${Math.abs(from)}` : axis.name];
    };
    const [across, xName] = labels(x, Math.max(3, (x.end - x.start) / 110)), [up, yName] = labels(y, Math.max(2, (y.start - y.end) / 90));
    for (const [v, label] of across) { line(x.at(v), y.start, x.at(v), y.start + 4); text([x.at(v), y.start + 17], label, "middle"); }
    for (const [v, label] of up) { line(x.start - 4, y.at(v), x.start, y.at(v)); text([x.start - 7, y.at(v) + 4], label, "end"); }
    text([(x.start + x.end) / 2, y.start + 35], xName, "middle");
    const middle = (y.start + y.end) / 2;
    text([12, middle], yName, "middle", { transform: `rotate(-90 12 ${middle})` });
    this.frame.replaceChildren(...nodes);
  }
  /** Where an event is, in pixels of the drawing. */
  pixels(event) {
    const box = this.svg.getBoundingClientRect();
    return [(event.clientX - box.left) * (this.box.width / box.width), (event.clientY - box.top) * (this.box.height / box.height)];
  }
  /** Where an event is, in units of the data. */
  at(event) {
    const [px, py] = this.pixels(event);
    return [this.x.back(px), this.y.back(py)];
  }
  add(tag, attributes = {}, layer = this.back) {
    const node = svg(tag, attributes);
    layer.append(node);
    return node;
  }
  /** A path through points in units of the data; null breaks it. */
  path(points) {
    let open = false, d = "";
    for (const p of points) {
      if (p) d += `${open ? "L" : "M"}${this.x.at(p[0]).toFixed(1)} ${this.y.at(p[1]).toFixed(1)}`;
      open = Boolean(p);
    }
    return d;
  }
  /** The ellipse at a squared Mahalanobis radius. */
  ellipse(mean, covariance, squared) {
    const { sds: [s, t], angle } = principal(covariance), r = Math.sqrt(squared), points = [];
    for (let i = 0; i <= 72; i++) {
      const u = r * s * Math.cos((i * Math.PI) / 36), v = r * t * Math.sin((i * Math.PI) / 36);
      points.push([mean[0] + u * Math.cos(angle) - v * Math.sin(angle), mean[1] + u * Math.sin(angle) + v * Math.cos(angle)]);
    }
    return this.path(points) + "Z";
  }
  /**
   * A knob that pointer, touch and arrow keys move: at() where it is, move([x, y]) what to do,
   * step [dx, dy] of an arrow key (Shift: ten of them; decades on a logarithmic axis), text() its value in words; shape "circle",
   * "square", or "none" (seen only in focus); only "x" or "y" where it moves along one axis.
   */
  handle({ label, at, move, step, text, color = GREY, shape = "circle", only = "" }) {
    const knob = shape === "square" ? svg("rect", { x: -6, y: -6, width: 12, height: 12 }) : svg("circle", { r: 6.5 });
    put(knob, { class: `gm-knob gm-${shape}`, fill: color });
    const group = svg("g", { class: "gm-handle", tabindex: 0, role: "slider", "aria-label": label }, svg("circle", { r: 22, fill: "transparent" }), knob);
    let offset = null;
    const go = (p, done) => { move([only === "y" ? at()[0] : p[0], only === "x" ? at()[1] : p[1]]); this.ui.touched(done); };
    const from = ([px, py]) => { const q = at(); return [this.x.at(q[0]) - px, this.y.at(q[1]) - py]; };
    const grasp = (event, pixels) => {
      group.focus({ preventScroll: true });
      group.setPointerCapture(event.pointerId);
      offset = from(pixels);
    };
    const me = { group, grasp, away: (pixels) => Math.hypot(...from(pixels)) };
    if (shape !== "none") this.knobs.push(me);
    group.addEventListener("pointerdown", (event) => { // where knobs overlap, the nearest one is meant
      event.preventDefault();
      const pixels = this.pixels(event), shown = this.knobs.filter((k) => k.group.isConnected && k.group.style.display !== "none" && k.away(pixels) < 22);
      shown.reduce((best, k) => (best === me && shape === "none" ? k : k.away(pixels) < best.away(pixels) ? k : best), me).grasp(event, pixels);
    });
    group.addEventListener("pointermove", (event) => {
      if (!offset) return;
      const p = this.pixels(event);
      go([this.x.clip(this.x.back(p[0] + offset[0])), this.y.clip(this.y.back(p[1] + offset[1]))], false);
    });
    for (const end of ["pointerup", "pointercancel"]) group.addEventListener(end, () => { if (offset) { offset = null; this.ui.touched(true); } });
    group.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const size = event.shiftKey ? 10 : 1, p = at(), d = typeof step === "function" ? step() : step;
      go([this.x.move(p[0], way[0] * d[0] * size), this.y.move(p[1], way[1] * d[1] * size)], true);
    });
    this.front.append(group);
    return () => {
      const p = at();
      put(group, {
        transform: `translate(${this.x.at(p[0]).toFixed(1)} ${this.y.at(p[1]).toFixed(1)})`,
        "aria-valuenow": Number((only === "y" ? p[1] : p[0]).toPrecision(6)), "aria-valuetext": text(),
      });
    };
  }
}

const STYLE = `
.gm-widget{margin:1.2em 0;max-width:46em;color:inherit;font:inherit;line-height:1.4}
.gm-widget *{box-sizing:border-box}
.gm-stage{display:grid;gap:.4em}
.gm-plane{display:block;width:100%;height:auto;overflow:hidden;user-select:none;-webkit-user-select:none}
.gm-axis{stroke:currentColor;opacity:.55}.gm-text{fill:currentColor;font:12px system-ui,sans-serif}
.gm-handle{display:block;cursor:grab;outline:none;touch-action:none}.gm-handle:active{cursor:grabbing}
.gm-knob{stroke:#fff;stroke-width:2}
.gm-none{opacity:0}.gm-handle:focus-visible .gm-none{opacity:.5}
.gm-handle:focus-visible .gm-knob{stroke:currentColor;stroke-width:3.5}
.gm-handle:focus-visible circle:first-child{stroke:currentColor;stroke-width:2}
.gm-controls{display:flex;flex-wrap:wrap;gap:.5em 1em;align-items:center;margin:.5em 0}
.gm-controls label,.gm-controls fieldset{display:flex;align-items:center;gap:.5em;border:0;margin:0;padding:0;flex-wrap:wrap}
.gm-controls input[type=range]{width:9em;accent-color:#0072B2}
.gm-controls output{min-width:4.5em;font-variant-numeric:tabular-nums}
.gm-widget button,.gm-widget select{font:inherit;color:inherit;background:transparent;border:1px solid currentColor;border-radius:.35em;padding:.25em .7em;min-height:2.2em;cursor:pointer}
.gm-widget option{color:#000;background:#fff}
.gm-widget button:hover{background:#7972}.gm-widget button[aria-pressed=true]{background:#0072B2;color:#fff}
.gm-widget button:disabled{opacity:.5;cursor:default}
.gm-widget :is(button,select,input):focus-visible{outline:2px solid currentColor;outline-offset:2px}
.gm-values{display:grid;grid-template-columns:repeat(auto-fill,minmax(13em,1fr));gap:.1em 1.2em;margin:.4em 0;padding:0}
.gm-values div{display:flex;justify-content:space-between;gap:.6em;border-bottom:1px solid #7975}
.gm-values dt{font-weight:400}.gm-values dd{margin:0;font-variant-numeric:tabular-nums;white-space:nowrap}
.gm-legend{display:flex;flex-wrap:wrap;gap:.2em 1em;font-size:.9em;margin:.2em 0;padding:0;list-style:none}
.gm-legend i{display:inline-block;width:1.1em;height:.22em;margin-right:.35em;vertical-align:middle}
.gm-said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media print{.gm-controls{display:none}.gm-knob{stroke:none}}
`;
