// The NLL over the two means of a mixture in one dimension, and two roads down: EM and descent.

kinds.landscape = (() => {
  /** The mean NLL at two means, and its slopes; log responsibilities go onto two lists, if given. */
  function at({ x, weights, sds: [s, t] }, [m, n], logs) {
    const c = log(weights[0] / s), d = log(weights[1] / t);
    let nll = LOG_2PI / 2, g = 0, h = 0;
    for (const v of x) {
      // The log odds by themselves: at equal means and widths they are the same for all points, to the last bit.
      const y = (v - m) / s, z = (v - n) / t, odds = c - d - ((y - z) * (y + z)) / 2, lesser = exp(-abs(odds)), more = Math.log1p(lesser);
      nll -= ((odds > 0 ? c - (y * y) / 2 : d - (z * z) / 2) + more) / x.length;
      g -= (y * (odds > 0 ? 1 : lesser)) / (1 + lesser);
      h -= (z * (odds > 0 ? lesser : 1)) / (1 + lesser);
      if (logs) { logs[0].push(min(odds, 0) - more); logs[1].push(min(-odds, 0) - more); }
    }
    return { nll, slopes: [g / s / x.length, h / t / x.length] };
  }
  function em(state, means) {
    const logs = [[], []], { nll } = at(state, means, logs);
    // In shares of the largest responsibility: also where every one underflows.
    const to = means.map((mean, k) => {
      const top = max(...logs[k]), shares = logs[k].map((v) => exp(v - top));
      return mean + sum(state.x, (v, i) => shares[i] * (v - mean)) / sum(shares);
    });
    return { nll, to };
  }
  /** Lines of equal height by marching squares, and the lowest point: by EM from the lowest of the grid. */
  const surface = kept(["x", "weights", "sds", "limits"], (state) => {
    const axis = even(60, ...state.limits), heights = axis.map((u) => axis.map((v) => at(state, [u, v]).nll)), lines = [];
    const all = heights.flat(), least = all.indexOf(min(...all));
    let means = [axis[floor(least / 61)], axis[least % 61]];
    for (let i = 0; i < 500; i++) means = em(state, means).to;
    const { nll } = at(state, means), span = max(...all, nll + 1e-9) - nll;
    // Round numbers of nats above the lowest.
    for (let e = floor(log10(span)); e > log10(span) - 2.7; e--) for (const level of [5, 2, 1].map((v) => rounded(v * 10 ** e, 1))) {
      if (level < span) lines.push([level, levelLines(axis, axis, heights, nll + level)]);
    }
    return { means, nll, span, lines };
  });
  /** Steps inside the plane, the NLL at each, and where the road crosses the edge, if it does. */
  function walk({ start, num_steps, limits }, step) {
    const [low, high] = limits;
    for (const road = [start], nll = []; ;) {
      const here = road.at(-1), next = step(here), way = next.to.map((v, d) => v - here[d]);
      nll.push(next.nll);
      if (road.length > num_steps) return { road, nll, exit: null };
      if (within(next.to, [limits, limits])) { road.push(next.to); continue; }
      const share = min(...way.map((w, d) => (w ? ((w > 0 ? high : low) - here[d]) / w : 1)));
      return { road, nll, exit: way.every(Number.isFinite) ? here.map((v, d) => clip(v + share * way[d], low, high)) : here };
    }
  }
  const roads = kept(["x", "weights", "sds", "limits", "start", "rate", "momentum", "num_steps"], (state) => {
    let velocity = [0, 0];
    const descend = (means) => {
      const { nll, slopes } = at(state, means);
      velocity = velocity.map((v, d) => state.momentum * v + slopes[d]);
      return { nll, to: means.map((v, d) => v - state.rate * velocity[d]) };
    };
    return { em: walk(state, (means) => em(state, means)), descent: walk(state, descend) };
  });
  const ending = ({ road, exit }, where = " the plane") => (exit ? `leaves${where} at step ${road.length}` : `is at ${list(road.at(-1))}`);

  function build(ui) {
    const { now } = ui, { limits: [low, high], unit, label } = now, topOf = (span) => 10 ** Math.ceil(log10(span)), top = topOf(surface(now).span);
    const axis = (name) => ({ low, high, name: `mean ${name}${unit && " (" + unit + ")"}` });
    const plane = ui.plane({ label, x: axis("\u03bc\u2081"), y: axis("\u03bc\u2082"), height: (w, narrow) => (narrow ? 0.85 : 1) * w - 12 });
    const below = ui.excess("NLL after each step", { low: 0, name: "step" }, top / 1e8, top);
    ui.stage.style.setProperty("--main", "1.4fr");
    // Code may set other limits and other data.
    const drawAxes = kept(["limits", "span"], ({ limits: [low, high], span }) => {
      for (const each of [plane.x, plane.y]) Object.assign(each, { low, high, step: (high - low) / 120 });
      Object.assign(below.y, { low: topOf(span) / 1e8, high: topOf(span) });
      for (const each of [plane, below]) each.drawAxes();
    });
    ui.refresh.push(() => drawAxes({ limits: now.limits, span: surface(now).span }));
    const diagonal = plane.curve(GRAY, 2, { "stroke-dasharray": "2 6" }), contours = plane.curve(GRAY, 1), marks = plane.back.appendChild(svg("g")), cross = plane.curve("currentColor");
    // The roads differ in color, dashes and the shape of their dots: caps of segments of no length.
    const drawings = [0, 1].map((k) => [plane, below].map((where) => [
      where.curve(PALETTE[k], 2, { "stroke-dasharray": k ? "5 3" : "none" }),
      where.curve(PALETTE[k], 6 - k, { "stroke-linecap": k ? "square" : "round" }),
    ]));
    let begun = -Infinity;
    const walked = () => { begun = performance.now(); };
    // Onto the diagonal, which no hand would meet; an arrow key leaves it.
    const snapped = ([m, n]) => [m, abs(m - n) < 0.9 * plane.x.step ? m : n];
    const knob = plane.handle({
      label: "start, the two means", at: () => now.start, move: (start) => ui.set({ start: snapped(start) }),
      text: () => `${list(now.start, 3)}; NLL ${format(roads(now).em.nll[0])}`,
    });
    // A tap too, which is no scrolling.
    plane.svg.addEventListener("click", (event) => {
      const start = plane.units(plane.pixels(event));
      if (knob.contains(event.target) || !within(start, [now.limits, now.limits])) return;
      knob.focus({ preventScroll: true });
      walked();
      ui.set({ start: snapped(start) });
      ui.touched(true);
    });
    const range = () => { const size = now.sds[0] * now.sds[1]; return { low: size / 50, high: size * 20 }; };
    ui.slider({ label: "learning rate \u03b7", name: "rate", range, log: true, color: PALETTE[1] });
    ui.slider({ label: "momentum \u03b2", name: "momentum", low: 0, high: 0.95, step: 0.05, color: PALETTE[1] });
    ui.slider({ label: "steps", name: "num_steps", low: 1, high: 100, step: 1 });
    if (!calm()) ui.button("Walk", walked);
    ui.legend([[PALETTE[0], "EM"], [PALETTE[1], "descent", "dashed"], [GRAY, "equal NLL, in nats above the lowest (+)", "thin"], [GRAY, "equal means", "dotted"]]);
    const row = (nll, lowest, end) => [format(nll, 6), format(max(nll - lowest, 0), 2), end];
    ui.table(["place", "NLL (nats)", "above lowest", "means"], [
      [GRAY, "start", (v) => row(v.em.nll[0], v.lowest, list(now.start))],
      ...["em", "descent"].map((key, k) => [PALETTE[k], ["EM", "descent"][k], (v) => row(v[key].nll.at(-1), v.lowest, v[key].exit ? ending(v[key], "") : list(v[key].road.at(-1)))]),
    ]);
    ui.readout([["slopes at the start", (v) => list(v.gradient, 3)]]);
    const drawSurface = kept(["lines", "box"], ({ lines, means }) => {
      const [low, high] = now.limits;
      put(contours, { d: lines.map(([, segments]) => segments.map((line) => plane.path(line)).join("")).join("") });
      // Named where they pass below the lowest, as far as there is room.
      const names = [];
      for (const [level, segments] of lines) {
        const cut = segments.map(([p]) => plane.pixel(p)), [m, n] = plane.pixel(means), [place] = cut.filter(([x, y]) => y > n + 10 && abs(x - m) < 6).sort((a, b) => a[1] - b[1]);
        if (place && names.every(([, y]) => abs(y - place[1]) > 15)) names.push([m, place[1], level]);
      }
      marks.replaceChildren(...names.map(([x, y, level]) => svg("text", { x, y: y + 4, "text-anchor": "middle", class: "gm-text gm-halo" }, format(level, 2))));
      put(diagonal, { d: plane.path([[low, low], [high, high]]) });
      put(cross, { d: within(means, [now.limits, now.limits]) ? plane.cross(means) : "" });
    });
    const drawSteps = kept(["num_steps"], ({ num_steps }) => { below.x.high = num_steps; below.drawAxes(); });
    ui.refresh.push(() => {
      const { em, descent } = roads(now), shown = calm() ? Infinity : (performance.now() - begun) / 40, lowest = surface(now).nll;
      drawSteps(now);
      drawSurface({ ...surface(now), box: plane.box });
      [em, descent].forEach(({ road, nll, exit }, k) => {
        const part = road.slice(0, shown + 1), excess = downTo(below.y.low, part.map((_, t) => [t, nll[t] - lowest]));
        [[plane, exit && shown >= road.length ? [...part, exit] : part, part], [below, excess, excess]].forEach(([where, line, dots], i) => {
          put(drawings[k][i][0], { d: where.path(line) });
          put(drawings[k][i][1], { d: dots.map((p) => `${where.path([p])}h.01`).join("") });
        });
      });
      if (shown < now.num_steps) ui.draw();
    });
  }
  return {
    build, actions: {}, wide: "curve",
    values: (state) => ({ ...roads(state), gradient: at(state, state.start).slopes, lowest: surface(state).nll }),
    encode: ({ start, rate, momentum, num_steps }) => [...start, rate, momentum, num_steps],
    decode(numbers, { limits }) {
      const [m, n, rate, momentum, num_steps] = numbers, ranges = [limits, limits, [1e-300, Infinity], [0, 0.999999], [1, 100, true]];
      return within(numbers, ranges) ? { start: [m, n], rate, momentum, num_steps } : null;
    },
    say: ({ values: { em, descent } }) => `EM ${ending(em)}; descent ${ending(descent)}`,
  };
})();
