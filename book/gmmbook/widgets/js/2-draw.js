// Drawing: SVG that knows the units of the data, handles, sliders, curves, ellipses, legends.

const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9030D8", "#904830"];
const GRAY = "#797979";
const colorOf = (k) => PALETTE[k % PALETTE.length];
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
/** The name of a button that plays, or without motion jumps. */
const toEnd = () => (calm() ? "To the end" : "Play");

/** A number for people: significant digits, a true minus sign. */
function format(value, digits = 4) {
  const size = abs(value);
  const text = size && (size < 1e-4 || size >= 1e6) ? value.toExponential(digits - 2) : String(rounded(value, digits));
  return text.replace(/-/g, "\u2212");
}
const list = (values, digits) => values.map((v) => format(v, digits)).join(", ");
/** Zero, for what differs from it by rounding alone, beside numbers of this size. */
const zeroed = (value, size = 1) => (abs(value) < 1e-12 * size ? 0 : value);

/** Give a node attributes, listeners among them, and children. */
function put(node, attributes = {}, ...children) {
  for (const [key, value] of Object.entries(attributes)) key.startsWith("on") ? node.addEventListener(key.slice(2), value) : node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const html = (tag, ...rest) => put(document.createElement(tag), ...rest);
/** The marks of a search would stay in a drawing. */
const svg = (tag, attributes, ...rest) => put(document.createElementNS("http://www.w3.org/2000/svg", tag), {
  ...attributes, ...(tag === "text" && { class: `${attributes.class} nohighlight` }),
}, ...rest);

/**
 * One coordinate: data from low to high (above it or below) onto pixels from start to end, linear or
 * logarithmic; an arrow key goes a step, in decades where logarithmic.
 */
class Axis {
  constructor(options) { Object.assign(this, { step: options.log ? 0.1 : (options.high - options.low) / 80, ...options }); }
  u(v) { return this.log ? log10(v) : v; }
  v(u) { return this.log ? 10 ** u : u; }
  at(v) {
    const low = this.u(this.low);
    return this.start + ((this.u(v) - low) / (this.u(this.high) - low)) * (this.end - this.start);
  }
  back(px) {
    const low = this.u(this.low);
    return this.v(low + ((px - this.start) / (this.end - this.start)) * (this.u(this.high) - low));
  }
  clip(v) { return clip(v, min(this.low, this.high), max(this.low, this.high)); }
  /** So many steps further along, to the right or up. */
  move(v, steps) { return this.clip(this.v(this.u(v) + Math.sign(this.high - this.low) * steps * this.step)); }
  /** Round numbers: so many, or up to twice as many; whole powers of ten where logarithmic. */
  ticks(count) {
    const [low, high] = [this.u(this.low), this.u(this.high)].sort((a, b) => a - b), found = [];
    const raw = (high - low) / (this.log ? clip(count / 1.5, 1, floor(high - low)) : count), power = 10 ** floor(log10(raw));
    const step = power * [5, 2, 1].find((s) => s * power <= raw * (1 + 1e-9));
    const first = Math.ceil(low / step - 1e-9);
    // Where the axis is no longer than rounding, a step leads nowhere.
    for (let i = 0; i < 100 && (first + i) * step <= high + 1e-9 * step; i++) {
      const u = rounded((first + i) * step, 12);
      if (!this.log || u % 1 === 0) found.push(this.v(u));
    }
    return found;
  }
  /** Places and names of the ticks, and the name: far from 0 they count from the first of them, and it says so. */
  labels(count) {
    const all = this.ticks(count), from = !this.log && abs(all[0]) > 1e4 * abs(all[1] - all[0]) ? all[0] : 0;
    const text = (v) => (this.log ? `1e${round(log10(v))}`.replace("-", "\u2212") : format(v - from, 6));
    return [all.map((v) => [this.at(v), text(v)]), from ? `${this.name} ${from > 0 ? "\u2212" : "+"} ${abs(from)}` : this.name];
  }
}

/** A number without an exponent, which some attributes may not have. */
const plain = (value) => value.toFixed(12);

/** A path through pixels. */
const trace = (pixels) => "M" + pixels.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L");

/** A curve [x, y] down to where it meets the bottom of a logarithmic axis, which is no level of its own. */
const downTo = (low, curve) => curve.slice(0, curve.findIndex(([, y]) => y <= low) + 1 || undefined).map(([x, y]) => [x, max(y, low)]);

/** A component at its mean: a disc with its number in it, which hides no label behind a point. */
const disc = (stroke) => svg("circle", { r: 9, fill: "#fff", stroke, "stroke-width": 3 });
const numeral = (number) => svg("text", { y: 4.5, "text-anchor": "middle", class: "gm-text gm-numeral" }, number);

/** Axes in a drawing as wide as its place; `height(width, narrow)` and `margin(width)` lay it out. */
class Plane {
  constructor(ui, { label, x, y, height = (w, narrow) => (narrow ? 0.48 : 0.8) * w, margin = () => {}, into = ui.planes.length ? ui.side : ui.main }) {
    Object.assign(this, { ui, height, margin, x: new Axis(x), y: new Axis(y), knobs: [], mask: svg("rect") });
    this.frame = svg("g", { "aria-hidden": true });
    // What must not reach over the axes.
    // In JupyterLab each interactive has a copy of this script, and all share one document.
    const id = `gm-inside-${(globalThis.gmPlanes = (globalThis.gmPlanes ?? 0) + 1)}`;
    this.inside = svg("g", { "clip-path": `url(#${id})` });
    this.back = svg("g", { "aria-hidden": true }, svg("clipPath", { id }, this.mask), this.inside);
    this.front = svg("g");
    this.svg = svg("svg", { role: "group", "aria-label": label, class: "gm-plane" }, this.frame, this.back, this.front);
    into.append(this.svg);
    ui.planes.push(this);
  }
  /** Lay out anew for the width there is. */
  fit() {
    const width = max(240, round(this.svg.parentElement.clientWidth)), height = round(this.height(width, this.ui.narrow));
    const { left, right, top, bottom } = { left: 48, right: 14, top: 8, bottom: 42, ...this.margin(width) };
    put(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    put(this.mask, { x: left, y: top, width: width - left - right, height: height - top - bottom });
    Object.assign(this.x, { start: left, end: width - right });
    Object.assign(this.y, { start: height - bottom, end: top });
    this.box = { width, height };
    this.drawAxes();
  }
  drawAxes() {
    const { start, end } = this.x, { start: bottom, end: top } = this.y, middle = (bottom + top) / 2, texts = [];
    const text = (x, y, content, more) => texts.push(svg("text", { x, y, class: "gm-text", "text-anchor": "middle", ...more }, content));
    const [across, xName] = this.x.labels(max(3, (end - start) / 110)), [up, yName] = this.y.labels(max(2, (bottom - top) / 90));
    let d = `M${start} ${top}V${bottom}H${end}`;
    for (const [x, name] of across) { d += `M${x} ${bottom}v4`; text(x, bottom + 17, name); }
    for (const [y, name] of up) { d += `M${start} ${y}h-4`; text(start - 7, y + 4, name, { "text-anchor": "end" }); }
    text((start + end) / 2, bottom + 35, xName);
    text(12, middle, yName, { transform: `rotate(-90 12 ${middle})` });
    this.frame.replaceChildren(svg("path", { d, class: "gm-axis" }), ...texts);
  }
  /** Where an event is, in pixels of the drawing. */
  pixels({ clientX, clientY }) {
    const { left, top, width } = this.svg.getBoundingClientRect(), scale = this.box.width / width;
    return [(clientX - left) * scale, (clientY - top) * scale];
  }
  /** Pixels in units of the data, and the other way. */
  units([px, py]) { return [this.x.back(px), this.y.back(py)]; }
  pixel([x, y]) { return [this.x.at(x), this.y.at(y)]; }
  clip([x, y]) { return [this.x.clip(x), this.y.clip(y)]; }
  /** What is drawn in a color is lit with it. */
  add(tag, attributes, layer = this.back) { return layer.appendChild(svg(tag, { ...(attributes.stroke?.[0] === "#" && { "data-color": attributes.stroke }), ...attributes })); }
  curve(stroke, width = 2, more = {}, layer) { return this.add("path", { fill: "none", stroke, "stroke-width": width, ...more }, layer); }
  /** A path through points in units of the data. */
  path(points) { return trace(points.map((p) => this.pixel(p))); }
  /** A question in the middle, while a curve is not to be seen. */
  ask(text) {
    const node = this.svg.appendChild(svg("text", { class: "gm-text", "text-anchor": "middle", "aria-hidden": true }, text));
    return (open) => { put(node, { x: (this.x.start + this.x.end) / 2, y: (this.y.start + this.y.end) / 2 }).style.display = open ? "" : "none"; };
  }
  cross(point) { return `${this.path([point])}m-6 0h12m-6-6v12`; }
  /** The 50 % and 95 % ellipse of a component, to be drawn at a mean and covariance; not at null. */
  component(color) {
    const rings = [[0.5, 0.13], [0.95, 0]].map(([mass, opacity]) => [radiusOf(mass), this.curve(color, 2, { fill: color, "fill-opacity": opacity }, this.inside)]);
    const circle = even(72, 0, 2 * PI).map((t) => [cos(t), sin(t)]);
    return (mean, covariance, width = 2) => rings.forEach(([reach, ring]) => {
      let d = "";
      if (mean) {
        // The circle, moved by the factor.
        const [[a, b], [, c]] = covariance, p = sqrt(a), q = b / p, r = sqrt(max(c - q * q, 0));
        d = this.path(circle.map(([u, v]) => [mean[0] + reach * p * u, mean[1] + reach * (q * u + r * v)]));
      }
      put(ring, { d, "stroke-width": width });
    });
  }
  /**
   * A knob that pointer, touch and arrow keys move (Shift: ten steps): at() where it is, move([x, y])
   * what to do, text() its value in words; shape "circle", "square", or "none" (seen only in focus);
   * across: it moves along the x axis only, and can be held anywhere above. What lies outside of the
   * plane is held at its edge. A number makes the circle a disc that shows it. grasped(): the pointer
   * has taken it.
   */
  handle({ label, at, move, text, color = GRAY, shape = "circle", across, number, grasped }) {
    const { ui } = this, knob = shape === "square" ? svg("rect", { x: -6, y: -6, width: 12, height: 12 }) : number ? disc(color) : svg("circle", { r: 6.5, fill: color });
    const line = svg("path", { stroke: "transparent", "stroke-width": 14 });
    // From the pointer to the middle of the knob, while it is dragged.
    let offset;
    const go = ([x, y], done) => { move([x, across ? at()[1] : y]); ui.touched(done); };
    const place = () => this.pixel(this.clip(at())), from = (pixels) => place().map((v, d) => v - pixels[d]);
    const release = () => { if (offset) { offset = null; ui.touched(true); } };
    const group = svg("g", {
      class: "gm-handle", tabindex: 0, role: "slider", "aria-label": label, "data-color": color,
      onpointerdown: (event) => {
        if (event.button || !event.isPrimary) return;
        event.preventDefault();
        // Where knobs overlap, the nearest one is meant.
        const pixels = this.pixels(event), near = this.knobs.filter((k) => k.group.isConnected && k.away(pixels) < 22);
        const [nearest = me] = near.sort((a, b) => a.away(pixels) - b.away(pixels));
        nearest.grasp(event, pixels);
      },
      onpointermove: (event) => {
        if (!event.buttons) release();
        if (offset && event.isPrimary) go(this.clip(this.units(this.pixels(event).map((v, d) => v + offset[d]))), false);
      },
      onlostpointercapture: (event) => { if (event.isPrimary) release(); },
      onkeydown: (event) => {
        // Home and End: further than any step.
        const way = {
          ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1],
          PageDown: [0, -10], PageUp: [0, 10], Home: [-1e9, 0], End: [1e9, 0],
        }[event.key];
        if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        const [x, y] = at(), [right, up] = way.map((d) => d * (event.shiftKey ? 10 : 1));
        go(across ? [this.x.move(x, right + up), y] : [this.x.move(x, right), this.y.move(y, up)], true);
      },
    }, svg("circle", { r: 22, fill: "transparent" }), ...(across ? [line] : []), put(knob, { class: `gm-knob gm-${number ? "disc" : shape}`, ...(shape === "square" && { fill: color }) }), ...(number ? [numeral(number)] : []));
    const me = {
      group, away: (pixels) => hypot(...from(pixels)),
      grasp(event, pixels) {
        group.focus({ preventScroll: true });
        group.setPointerCapture(event.pointerId);
        offset = from(pixels);
        grasped?.();
      },
    };
    if (shape !== "none") this.knobs.push(me);
    this.front.append(group);
    ui.refresh.push(() => put(group, {
      transform: `translate(${trace([place()]).slice(1)})`,
      "aria-valuemin": plain(min(this.x.low, this.x.high)), "aria-valuemax": plain(max(this.x.low, this.x.high)), "aria-valuenow": plain(at()[0]), "aria-valuetext": text(),
    }));
    if (across) ui.refresh.push(() => put(line, { d: `M0 0v${this.y.end - this.y.at(at()[1])}` }));
    return group;
  }
  /**
   * Handles at the ends of the principal axes of a component, where it is seen in the plane: get()
   * gives its mean, covariance and color, set(covariance) takes another.
   */
  handleAxes({ get, set, label }) {
    const reach = radiusOf(0.95), scale = [this.x, this.y].map(({ low, high }) => high - low), dashes = this.add("path", { "stroke-dasharray": "4 4" }, this.inside);
    const rescaled = (c, f) => c.map((row, i) => row.map((v, j) => f(v, scale[i] * scale[j])));
    // Which axis is which, and by which end it is held, must not change under a hand: kept here, and
    // read anew when anything else has changed it.
    let key, mean, sds, angle, signs, shares;
    const end = (i, sign = signs[i]) => [cos, sin].map((f, d) => mean[d] + sign * reach * sds[i] * scale[d] * f(angle + (i * PI) / 2));
    const outside = (p) => String(this.clip(p)) !== String(p);
    const read = () => {
      const now = get(), [, covariance] = now;
      if (String(now) === key) return;
      key = String(now);
      [mean] = now;
      ({ sds, angle } = principal(rescaled(covariance, (v, a) => v / a)));
      signs = [0, 1].map((i) => (outside(end(i, 1)) && !outside(end(i, -1)) ? -1 : 1));
      // How far along the axis the plane reaches: an end outside is held there.
      shares = [0, 1].map((i) => max(0.05, min(1, ...end(i).map((w, d) => (this.clip(end(i))[d] - mean[d]) / (w - mean[d]) || 1))));
    };
    const held = (i) => { read(); return this.clip(end(i).map((w, d) => mean[d] + shares[i] * (w - mean[d]))); };
    const groups = [0, 1].map((i) => this.handle({
      label: label(i + 1), shape: "square", text: () => list(end(i), 3), at: () => held(i),
      move(p) {
        const [u, v] = p.map((w, d) => (signs[i] * (w - mean[d])) / shares[i] / scale[d]), length = hypot(u, v);
        sds[i] = clip(length / reach, 0.005, 0.5);
        if (length > 0.005) angle = Math.atan2(v, u) - (i * PI) / 2;
        set(rescaled(covarianceOf(sds, angle), (w, a) => w * a));
        key = String(get());
      },
    }));
    this.ui.refresh.push(() => {
      const [, , stroke] = get();
      put(dashes, { stroke, d: [0, 1].map((i) => this.path([end(i, 1), end(i, -1)])).join("") });
      for (const group of groups) put(put(group, { "data-color": stroke }).lastChild, { fill: stroke });
    });
  }
}

const STYLE = `
.gm-widget{container-type:inline-size;width:100%;max-width:52rem;margin:1rem 0;font-size:.9rem;line-height:1.4;font-variant-numeric:tabular-nums}
.gm-widget *{box-sizing:border-box}
.gm-stage{display:grid;gap:.5em 1em;grid-template:"main" "side" "controls" "note" "values"/minmax(0,1fr)}
.gm-main{grid-area:main}.gm-side{grid-area:side}.gm-note{grid-area:note;margin:0}.gm-note:empty{display:none}
@container (min-width:490px){
.gm-wide-values{grid-template:"main side" "main values" 1fr "controls controls" "note note"/minmax(0,3fr) minmax(0,2fr)}
.gm-wide-curve{grid-template:"main side" "controls controls" "values values"/minmax(0,var(--main,1fr)) minmax(0,1fr)}
}
.gm-plane{display:block;width:100%;height:auto;overflow:hidden;user-select:none;-webkit-user-select:none}
.gm-plane [data-color]{transition:opacity .15s}
.gm-plane .gm-dim{opacity:.12}
@media (prefers-reduced-motion:reduce){.gm-plane [data-color]{transition:none}}
.gm-halo{paint-order:stroke;stroke:var(--pst-color-background,var(--jp-layout-color0,Canvas));stroke-width:3px}
.gm-axis{fill:none;stroke:currentColor;opacity:.55}.gm-text{fill:currentColor;font:12px system-ui,sans-serif}
.gm-text.gm-numeral{fill:#000;font-weight:700;pointer-events:none;forced-color-adjust:none}
@media (forced-colors:active){.gm-halo{stroke:none}.gm-widget button[aria-pressed=true]{border-width:3px}}
.gm-handle{display:block;cursor:grab;outline:none;touch-action:none}
.gm-knob:not(.gm-disc){stroke:#fff;stroke-width:2}
.gm-none{opacity:0}.gm-handle:focus-visible .gm-none{opacity:.5}
.gm-handle:focus-visible .gm-knob{stroke:currentColor;stroke-width:3.5}
.gm-handle:focus-visible circle:first-child{stroke:currentColor;stroke-width:2}
.gm-controls{grid-area:controls;display:flex;flex-wrap:wrap;gap:.5em .8em;align-items:end}
.gm-controls>span{display:flex;gap:inherit;align-items:end}
.gm-controls label{display:grid;grid-template-columns:auto auto;justify-content:space-between;gap:0 .6em}
.gm-controls :is(input,select){grid-column:1/-1;margin:0}
.gm-controls input{width:7.4em;min-width:100%;height:2.1em;accent-color:#797979}
.gm-controls output{grid-area:1/2;text-align:right}
.gm-widget :is(button,select){font:inherit;color:inherit;background:transparent;border:1px solid #797979;border-radius:.3em;padding:.15em .6em;min-height:2.1em;cursor:pointer}
.gm-widget option{color:#000;background:#fff}
.gm-widget button:disabled{opacity:.5;cursor:default}
.gm-widget :is(button,select,input,tr):focus-visible{outline:2px solid currentColor;outline-offset:1px}
.gm-values{grid-area:values;container-type:inline-size;display:flex;flex-wrap:wrap;align-content:start;gap:.3em 1.4em}
.gm-values dl{flex:1 1 13em;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,13em),1fr));align-content:start;gap:0 1.4em;margin:0;padding:0}
.gm-values dl div{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 .6em;padding:.1em 0;border-bottom:1px solid #7975}
.gm-values dt{font-weight:400}.gm-values dd{margin:0 0 0 auto}
.gm-widget .gm-table{flex:1 1 auto;border-collapse:collapse;margin:0;font-size:inherit;line-height:inherit}
.gm-widget .gm-table :is(th,td){font-weight:400;text-align:right;padding:.1em 0 .1em 1em;border-bottom:1px solid #7975}
.gm-widget .gm-table :is(th,td):first-child{text-align:left;padding-left:0}
.gm-table td{white-space:nowrap}
.gm-widget thead th{font-size:.9em;vertical-align:bottom;color:var(--pst-color-text-muted,inherit)}
.gm-values i{display:inline-block;width:.75em;height:.75em;border-radius:50%;margin-right:.5em;forced-color-adjust:none;print-color-adjust:exact}
@container (max-width:17em){.gm-table tr{display:flex;flex-wrap:wrap;gap:0 .8em}.gm-widget .gm-table :is(th,td){padding-left:0}}
.gm-legend{display:flex;flex-wrap:wrap;gap:0 1em;font-size:.9em;margin:.2em 0 0;padding:0;list-style:none}
.gm-legend li{margin:0}
.gm-legend i{display:inline-block;width:1.3em;margin-right:.4em;vertical-align:middle;border-top:.2em solid;forced-color-adjust:none;print-color-adjust:exact}
.gm-legend .gm-dot{width:0;border:.25em solid;border-radius:50%}.gm-legend .gm-dashed{border-top-style:dashed}.gm-legend .gm-dotted{border-top-style:dotted}.gm-legend .gm-thin{border-top-width:1px}
.gm-said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media print{.gm-controls{display:none}.gm-knob:not(.gm-disc){stroke:none}}
`;

// What each interactive registers itself in, under its name.
const kinds = {};
