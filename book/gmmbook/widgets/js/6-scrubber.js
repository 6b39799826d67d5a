// One or two fits, snapshot by snapshot: the ellipses side by side, and the NLL below.

kinds.scrubber = (() => {
  /** The last place in rising times at or before the moment; the first where there is none. */
  const indexBefore = (all, moment) => max(0, all.filter((t) => t <= moment).length - 1);
  /** Moments when something new is to be seen: the start, and each snapshot of either fit. */
  const framesOf = (fits, by) => [...new Set([0, ...fits.flatMap((f) => f[by].slice(1))])].sort((a, b) => a - b);
  const traitOf = { iterations: "iteration", seconds: "seconds" }, UNITS = Object.keys(traitOf);

  /** Time since the start: linear up to the first step, logarithmic after it; keys go from frame to frame. */
  class SinceStart extends Axis {
    u(v) { return Math.log1p(v / this.unit); }
    v(u) { return this.unit * Math.expm1(u); }
    move(v, steps) { return this.frames[clip(indexBefore(this.frames, v) + steps, 0, this.frames.length - 1)]; }
    ticks() { return [0, ...times(20, (e) => rounded(10 ** (Math.ceil(log10(this.unit)) + e), 1)).filter((v) => v <= this.high)]; }
  }

  function build(ui) {
    const { now } = ui, { fits, points, limits, axis_labels: names, drawn } = now;
    const by = () => now.against, moment = () => now[traitOf[by()]], go = (t) => ui.set({ [traitOf[by()]]: t });
    const frames = () => framesOf(fits, by()), end = () => frames().at(-1), shown = (f) => indexBefore(f[by()], moment());
    // A curve is no component: it has a color that few components have, and a mark and dashes of its own.
    const colors = [PALETTE[6], PALETTE[3]], marks = ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "M-5-5h10v10h-10Z"], dashes = ["none", "6 4"];

    ui.main.style = "display:grid;gap:.3em 1em;grid-template-columns:repeat(auto-fit,minmax(min(100%,232px),1fr))";
    fits.forEach((f, i) => {
      const [x, y] = limits.map(([low, high], d) => ({ low, high, name: names[d] }));
      const plane = ui.plane({ label: `${f.label}: points and components`, x, y, height: (w, narrow) => (w > 450 ? 0.45 : narrow && fits.length > 1 ? 0.46 : 0.72) * w, into: ui.main }), { inside } = plane;
      const title = html("b");
      ui.main.append(html("div", { style: "min-width:0" }, title, plane.svg));
      const dots = plane.curve(GRAY, 4, { "stroke-linecap": "round", "stroke-opacity": 0.8 }, inside);
      const parts = f.weights[0].map((_, k) => {
        const ellipses = plane.component(colorOf(k)), line = html("li");
        const mark = inside.appendChild(svg("g", { "data-color": colorOf(k) }, disc(colorOf(k)), numeral(k + 1)));
        return { ellipses, mark, line };
      });
      ui.root.append(html("details", {}, html("summary", {}, `Components of ${f.label}`), html("ol", {}, ...parts.map((part) => part.line))));
      const drawPoints = kept(["box"], () => put(dots, { d: points.map((p) => `${plane.path([p])}h0`).join("") }));
      ui.refresh.push(() => {
        const s = shown(f), { weights, means, sds } = now.values.fits[i];
        drawPoints(plane);
        title.textContent = `${f.label}: iteration ${f.iterations[s]}${f.iterations[s + 1] ? "" : ", the last"}`;
        parts.forEach(({ ellipses, mark, line }, k) => {
          const mean = f.means[s][k];
          line.textContent = `component ${k + 1}: weight ${format(weights[k])}; mean ${list(means[k])}; standard deviations along the axes ${list(sds[k])}`;
          ellipses(mean, productOf(f.factors[s][k]));
          put(mark, { transform: `translate(${plane.pixel(mean)})` });
        });
      });
    });

    // The lowest has no logarithm: it, and what is within rounding of it, lies on the bottom.
    const all = fits.flatMap((f) => f.history.excess), low = 10 ** floor(log10(max(1e-10, min(...all.filter((e) => e > 0), 1))));
    const high = 1.3 * max(...all, 10 * low), plane = ui.excess("NLL of the fits", {}, low, high, (w, narrow) => (narrow ? 140 : 190));
    const x = (plane.x = new SinceStart({ low: 0, high: 1, unit: 1 })), curves = fits.map((_, i) => plane.curve(colors[i], 2, { "stroke-dasharray": dashes[i] }));
    const line = plane.curve("currentColor"), here = fits.map((_, i) => plane.add("path", { d: marks[i], fill: colors[i], stroke: "#fff" }));
    const drawCurves = kept(["against", "box"], ({ against }) => {
      const last = end() || 1, unit = min(...fits.map((f) => f.history[against][1] || last));
      Object.assign(x, { high: last, unit, frames: frames(), name: `${traitOf[against]} (logarithmic)` });
      plane.drawAxes();
      fits.forEach(({ history: h }, i) => put(curves[i], { d: plane.path(downTo(low, h.excess.map((e, j) => [h[against][j], e]))) }));
    });
    ui.refresh.push(() => {
      drawCurves({ against: by(), box: plane.box });
      put(line, { d: plane.path([[moment(), low], [moment(), high]]) });
      fits.forEach((f, i) => { const s = shown(f); put(here[i], { transform: `translate(${plane.pixel([f[by()][s], max(f.excess[s], low)])})` }); });
    });
    // Onto the nearest frame, so that a link restores it exactly.
    const near = (t) => { const off = (v) => abs(x.at(v) - x.at(t)); go(x.frames.reduce((a, b) => (off(b) < off(a) ? b : a))); };
    const knob = plane.handle({
      label: "moment", across: true, shape: "square", at: () => [moment(), low], text: () => `${traitOf[by()]} ${format(moment())}`,
      move: ([t]) => near(t),
    });
    plane.svg.addEventListener("click", (event) => {
      if (knob.contains(event.target)) return;
      near(x.clip(plane.units(plane.pixels(event))[0]));
      ui.touched(true);
    });
    ui.legend([[GRAY, drawn, "dot"], ...fits.map(({ label }, i) => [colors[i], label, ["", "dashed"][i]])]);

    const step = (d) => go(x.move(moment(), d));
    ui.play({
      label: toEnd(), stop: "Pause", wait: () => min(700, 1e4 / x.frames.length), jump: () => go(end()),
      begin() { if (moment() >= end()) go(0); },
      step() { const more = moment() < end(); if (more) step(1); return more; },
    });
    ui.button("Step back", () => step(-1));
    ui.button("Step forward", () => step(1));
    // The same moment in the other unit: that of the fit with more iterations.
    const [longer] = [...fits].sort((a, b) => b.iterations.at(-1) - a.iterations.at(-1));
    ui.choice({ label: "Against", name: "against", options: UNITS }).addEventListener("change", () => {
      const other = UNITS.find((unit) => unit !== by()), i = indexBefore(longer[other], now[traitOf[other]]);
      go(i && longer[by()][i]);
    });
    ui.table(["fit", "NLL (nats)", "iteration", "seconds"], fits.map(({ label }, i) => [
      colors[i], label, ({ fits: shown }) => [format(shown[i].nll, 7), shown[i].iteration, format(shown[i].seconds)],
    ]));
    // One fit may have more components than the other.
    ui.table(["weight", ...fits.map(({ label }) => label)], times(max(...fits.map(({ weights }) => weights[0].length)), (k) => [
      colorOf(k), k + 1, ({ fits: shown }) => shown.map(({ weights }) => (k in weights ? format(weights[k], 3) : "")),
    ]));
    ui.readout(fits.slice(1).map(({ label }) => [`NLL of ${label} less ${fits[0].label}`, (v) => format(zeroed(v.difference))]));
  }

  return {
    build, actions: {}, wide: "none",
    values({ fits, lowest, against, ...state }) {
      const shown = fits.map((f) => {
        const i = indexBefore(f[against], state[traitOf[against]]);
        // The shorter by the determinant: nothing cancels.
        const sds = f.factors[i].map(([p, q, r]) => { const [long] = principal(productOf([p, q, r])).sds; return [long, (p * r) / long]; });
        return { iteration: f.iterations[i], seconds: f.seconds[i], nll: lowest + f.excess[i], weights: f.weights[i], means: f.means[i], sds };
      });
      return { fits: shown, difference: shown.length > 1 ? shown[1].nll - shown[0].nll : 0 };
    },
    encode: ({ against, iteration, seconds }) => [UNITS.indexOf(against), iteration, seconds],
    decode(numbers, { fits }) {
      const [by, iteration, seconds] = numbers, ranges = [[0, 1, true], ...UNITS.map((unit, i) => [0, framesOf(fits, unit).at(-1), !i])];
      return within(numbers, ranges) ? { against: UNITS[by], iteration, seconds } : null;
    },
    say: ({ fits, values }) => values.fits.map((f, i) => `${fits[i].label}: iteration ${f.iteration}, NLL ${format(f.nll, 6)}`).join("; "),
  };
})();
