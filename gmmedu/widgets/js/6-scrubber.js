// One or two fits, snapshot by snapshot: the ellipses side by side, and the NLL below.

/** The last place in rising times at or before the moment; the first where there is none. */
const indexBefore = (times, moment) => Math.max(0, times.filter((t) => t <= moment).length - 1);
/** Moments when something new is to be seen: the start, and each snapshot of either fit. */
const framesOf = (fits, by) => [...new Set([0, ...fits.flatMap((f) => f[by].slice(1))])].sort((a, b) => a - b);
const traitOf = { iterations: "iteration", seconds: "seconds" };

/** Time since the start: linear up to the first step, logarithmic after it; keys go from frame to frame. */
class SinceStart extends Axis {
  _u(v) { return Math.log1p(v / this.unit); }
  back(px) { return this.unit * Math.expm1(((px - this.start) / (this.end - this.start)) * this._u(this.high)); }
  move(v, d) { return this.frames[clip(indexBefore(this.frames, v) + d, 0, this.frames.length - 1)]; }
  ticks(count) {
    const first = Math.ceil(Math.log10(this.unit)), digits = count > Math.log10(this.high / this.unit) * (first < 0 ? 2 : 1) ? [1, 3] : [1];
    return [0, ...Array.from({ length: 20 }, (_, e) => digits.map((s) => Number(`${s}e${first + e}`))).flat().filter((v) => v <= this.high)];
  }
}

const scrubber = {
  values({ fits, lowest, against, ...state }) {
    const shown = fits.map((f) => {
      const i = indexBefore(f[against], state[traitOf[against]]);
      const sds = f.factors[i].map((factor) => {
        const [long] = principal(productOf(factor)).sds;
        return [long, (factor[0] * factor[2]) / long]; // by the determinant: nothing cancels
      });
      return { iteration: f.iterations[i], seconds: f.seconds[i], nll: lowest + f.excess[i], weights: f.weights[i], means: f.means[i], sds };
    });
    return { fits: shown, difference: shown.length > 1 ? shown[1].nll - shown[0].nll : 0 };
  },
  actions: {},
  encode: ({ against, iteration, seconds }) => [Number(against === "seconds"), iteration, seconds],
  decode([by, iteration, seconds, ...rest], { fits }) {
    const within = (v, times) => v >= 0 && v <= framesOf(fits, times).at(-1), against = ["iterations", "seconds"][by];
    return !rest.length && against && Number.isInteger(iteration) && within(iteration, "iterations") && within(seconds, "seconds") ? { against, iteration, seconds } : null;
  },
  say: (ui) => ui.get("values").fits.map((f, i) => `${ui.get("fits")[i].label}: iteration ${f.iteration}, NLL ${format(f.nll, 6)}`).join("; "),
  build(ui) {
    const fits = ui.get("fits"), frames = { iterations: framesOf(fits, "iterations"), seconds: framesOf(fits, "seconds") };
    const by = () => ui.get("against"), moment = () => ui.get(traitOf[by()]), go = (t) => ui.set({ [traitOf[by()]]: t });
    const shown = (f) => indexBefore(f[by()], moment()), end = () => frames[by()].at(-1);
    // A curve is no component: it has a color that few components have, and a mark and dashes of its own.
    const style = (i) => ({ stroke: PALETTE[i ? 3 : 6], "stroke-width": 2.2, "stroke-dasharray": i ? "6 4" : "none", fill: "none" });
    const mark = (i) => svg("path", { d: i ? "M-5-5h10v10h-10Z" : "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", fill: PALETTE[i ? 3 : 6], stroke: "#fff" });

    const grid = html("div", { style: "display:grid;gap:.4em 16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,272px),1fr))" });
    ui.stage.append(grid);
    fits.forEach((f, i) => {
      const [x, y] = ui.get("limits").map(([low, high], d) => ({ low, high, name: ui.get("axis_labels")[d] }));
      const plane = ui.plane({ label: `${f.label}: points and components`, x, y, height: (w) => (w > 450 ? 0.62 : 0.8) * w });
      const title = html("span"), sample = svg("svg", { width: 40, height: 12, viewBox: "-17 -6 40 12", "aria-hidden": true }, svg("path", { d: "M-17 0h34", ...style(i) }), mark(i));
      grid.append(html("div", { style: "min-width:0" }, sample, title, plane.svg));
      const inside = plane.add("svg"), add = (tag, attributes, ...text) => inside.appendChild(svg(tag, attributes, ...text)); // it clips
      const dots = add("path", { stroke: GREY, "stroke-width": 4, "stroke-linecap": "round", "stroke-opacity": 0.6 });
      const marks = f.weights[0].map((_, k) => [0.13, 0, 0].map((opacity) => add("path", { fill: colorOf(k), "fill-opacity": opacity, stroke: colorOf(k), "stroke-width": 2 })));
      const numbers = marks.map((_, k) => add("text", { class: "gm-text", "font-weight": 700 }, k + 1));
      const lines = marks.map(() => html("li"));
      ui.root.append(html("details", {}, html("summary", {}, `Components of ${f.label}`), html("ol", {}, ...lines)));
      let box;
      ui.refresh.push(() => {
        const s = shown(f), { x, y } = plane, { weights, means, sds } = ui.get("values").fits[i], list = (a) => a.map((v) => format(v)).join(", ");
        title.textContent = `${f.label}: iteration ${f.iterations[s]}`;
        lines.forEach((line, k) => { line.textContent = `weight ${format(weights[k])}; mean ${list(means[k])}; standard deviations ${list(sds[k])}`; });
        if (box !== plane.box) {
          box = plane.box;
          const frame = { x: x.start, y: y.end, width: x.end - x.start, height: y.start - y.end };
          put(inside, { ...frame, viewBox: Object.values(frame).join(" ") });
          put(dots, { d: ui.get("points").map((p) => `${plane.path([p])}h0`).join("") });
        }
        marks.forEach(([inner, outer, cross], k) => {
          const mean = f.means[s][k], covariance = productOf(f.factors[s][k]), px = x.at(mean[0]), py = y.at(mean[1]);
          put(inner, { d: plane.ellipse(mean, covariance, radius2(0.5)) });
          put(outer, { d: plane.ellipse(mean, covariance, radius2(0.95)) });
          put(cross, { d: `M${px - 5} ${py}h10m-5-5v10` });
          put(numbers[k], { x: px + 5, y: py - 5 });
        });
      });
    });

    // The lowest has no logarithm: it, and what is within rounding of it, lies on the bottom.
    const all = fits.flatMap((f) => f.history.excess), low = 10 ** Math.floor(Math.log10(Math.max(1e-10, Math.min(...all.filter((e) => e > 0), 1))));
    const high = 1.3 * Math.max(...all, 10 * low), above = (e) => Math.max(e, low);
    const plane = ui.plane({ label: "NLL of the fits", x: {}, y: { low, high, log: true, name: "NLL above the lowest (nats)" }, height: (w) => clip(0.4 * w, 220, 280), margin: { left: 68, right: 24 } });
    const x = (plane.x = new SinceStart({ low: 0, high: 1 }));
    const aim = () => {
      const high = end() || 1, unit = Math.min(...fits.map((f) => f.history[by()][1] || high));
      Object.assign(x, { unit, high, frames: frames[by()], name: traitOf[by()] });
    };
    aim();
    const curves = fits.map((_, i) => plane.add("path", style(i))), now = plane.add("path", { stroke: "currentColor", "stroke-width": 1.5 });
    const here = fits.map((_, i) => plane.back.appendChild(mark(i)));
    const place = plane.handle({
      label: "moment", only: "x", shape: "square", step: [1, 0], at: () => [moment(), low], text: () => `${traitOf[by()]} ${format(moment())}`,
      // Onto the nearest frame, so that a link restores it exactly.
      move: ([t]) => { const off = (v) => Math.abs(x.at(v) - x.at(t)); go(frames[by()].reduce((a, b) => (off(b) < off(a) ? b : a))); },
    });
    ui.legend([[GREY, ui.get("drawn")], [PALETTE[0], "50 % and 95 % ellipse of each component"]]);

    let timer = 0, last, box;
    const stop = () => { clearTimeout(timer); timer = 0; play.textContent = "Play"; };
    const step = (d) => { go(x.move(moment(), d)); last = moment(); };
    const next = () => {
      if (!ui.root.isConnected || moment() !== last) return stop(); // gone, or moved by another hand
      if (last >= end()) { stop(); return ui.touched(true); }
      step(1);
      timer = setTimeout(next, Math.min(700, 1e4 / frames[by()].length));
    };
    const play = ui.button("Play", () => {
      if (timer) return stop();
      if (calm()) return go(end());
      if (moment() >= end()) go(0);
      last = moment();
      play.textContent = "Pause";
      timer = setTimeout(next, 100);
    });
    for (const [name, d] of [["Step back", -1], ["Step forward", 1]]) ui.button(name, () => { stop(); step(d); });
    ui.choice({ label: "Against", name: "against", options: Object.keys(traitOf).map((name) => [name, name]) });
    // The same moment in the other unit: that of the fit with more iterations.
    const [longer] = [...fits].sort((a, b) => b.iterations.at(-1) - a.iterations.at(-1));
    ui.controls.lastChild.addEventListener("change", () => {
      const other = by() === "seconds" ? "iterations" : "seconds", i = indexBefore(longer[other], ui.get(traitOf[other]));
      go(i && longer[by()][i]);
    });
    ui.readout([
      ...fits.flatMap(({ label }, i) => [[`${label}: NLL (nats)`, (v) => format(v.fits[i].nll, 7)], [`${label}: seconds`, (v) => format(v.fits[i].seconds)]]),
      ...fits.slice(1).map(({ label }) => [`NLL of ${label} less ${fits[0].label}`, (v) => format(v.difference)]),
    ]);
    ui.refresh.push(() => {
      if (box !== plane.box || x.name !== traitOf[by()]) {
        aim();
        plane.drawAxes();
        curves.forEach((curve, i) => { const h = fits[i].history; put(curve, { d: plane.path(h[by()].map((t, j) => [t, above(h.excess[j])])) }); });
        box = plane.box;
      }
      put(now, { d: plane.path([[moment(), low], [moment(), high]]) });
      fits.forEach((f, i) => { const s = shown(f); put(here[i], { transform: `translate(${x.at(f[by()][s])} ${plane.y.at(above(f.excess[s]))})` }); });
      place();
    });
  },
};
