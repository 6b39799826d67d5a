// The NLL over the two means of a mixture in one dimension, and two roads down: EM and descent.

const landscape = (() => {
  /** Keep what was made last, as long as these parts of the state are the same objects. */
  const latest = (names, make, key = [], last = null) => (state) => {
    const now = names.map((name) => state[name]);
    if (now.some((v, i) => v !== key[i])) [last, key] = [make(state), now];
    return last;
  };
  /** The mean NLL at two means, and its slopes; log responsibilities go onto two lists, if given. */
  function at({ x, weights, sds: [s, t] }, [m, n], logs) {
    const c = Math.log(weights[0] / s), d = Math.log(weights[1] / t);
    let nll = LOG_2PI / 2, g = 0, h = 0;
    for (const v of x) {
      const y = (v - m) / s, z = (v - n) / t, a = c - (y * y) / 2, b = d - (z * z) / 2;
      const lesser = Math.exp(-Math.abs(a - b)), all = Math.max(a, b) + Math.log1p(lesser);
      nll -= all / x.length;
      g -= (y * (a > b ? 1 : lesser)) / (1 + lesser);
      h -= (z * (a > b ? lesser : 1)) / (1 + lesser);
      if (logs) { logs[0].push(a - all); logs[1].push(b - all); }
    }
    return { nll, slopes: [g / s / x.length, h / t / x.length] };
  }
  function em(state, means) {
    const logs = [[], []], { nll } = at(state, means, logs), { x } = state;
    const to = means.map((mean, k) => { // in shares softmax(log r): also where every r underflows
      const top = Math.max(...logs[k]);
      let count = 0, first = 0;
      for (let i = 0; i < x.length; i++) { const r = Math.exp(logs[k][i] - top); count += r; first += r * (x[i] - mean); }
      return mean + first / count;
    });
    return { nll, to };
  }
  /** Lines of equal height by marching squares, and the lowest point: by EM from the lowest of the grid. */
  const surface = latest(["x", "weights", "sds", "limits"], (state) => {
    const [low, high] = state.limits, axis = Array.from({ length: 61 }, (_, i) => low + ((high - low) * i) / 60), lines = [];
    const heights = axis.map((u) => axis.map((v) => at(state, [u, v]).nll)), all = heights.flat(), least = all.indexOf(Math.min(...all));
    let means = [axis[Math.floor(least / 61)], axis[least % 61]];
    for (let i = 0; i < 500; i++) means = em(state, means).to;
    const { nll } = at(state, means), span = Math.max(...all, nll + 1e-9) - nll;
    for (let level = 0.8 * span; level > 0.0025 * span; level /= 1.5) for (let i = 0; i < 60; i++) for (let j = 0; j < 60; j++) {
      const around = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1], [i, j]], up = around.map(([p, q]) => heights[p][q] - nll - level);
      const cuts = [0, 1, 2, 3].filter((k) => up[k] > 0 !== up[k + 1] > 0);
      cuts.forEach((k, i) => {
        const [p, q] = around[k], [r, s] = around[k + 1], u = up[k] / (up[k] - up[k + 1]);
        lines.push([axis[p] + u * (axis[r] - axis[p]), axis[q] + u * (axis[s] - axis[q])], ...(i % 2 ? [null] : []));
      });
    }
    return { means, nll, span, lines };
  });
  /** Steps inside the plane, the NLL at each, and where the road crosses the edge, if it does. */
  function walk({ start, num_steps, limits: [low, high] }, step) {
    for (const road = [start], nll = []; ;) {
      const here = road.at(-1), next = step(here), way = next.to.map((v, d) => v - here[d]);
      nll.push(next.nll);
      if (road.length > num_steps) return { road, nll, exit: null };
      if (next.to.every((v) => v >= low && v <= high)) { road.push(next.to); continue; }
      const share = Math.min(...way.map((w, d) => (w ? ((w > 0 ? high : low) - here[d]) / w : 1)));
      return { road, nll, exit: way.every(Number.isFinite) ? here.map((v, d) => clip(v + share * way[d], low, high)) : here };
    }
  }
  const roads = latest(["x", "weights", "sds", "limits", "start", "rate", "momentum", "num_steps"], (state) => {
    let sum = [0, 0];
    const descend = (means) => {
      const { nll, slopes } = at(state, means);
      sum = sum.map((b, d) => state.momentum * b + slopes[d]);
      return { nll, to: means.map((v, d) => v - state.rate * sum[d]) };
    };
    return { em: walk(state, (means) => em(state, means)), descent: walk(state, descend) };
  });
  const pair = (p, digits) => p.map((v) => format(v, digits)).join(", ");
  const ending = ({ road, exit }, where = " the plane") => (exit ? `leaves${where} at step ${road.length}` : `ends at ${pair(road.at(-1), 4)}`);

  function build(ui) {
    const state = new Proxy({}, { get: (_, name) => ui.get(name) }), [low, high] = state.limits, top = 10 ** Math.ceil(Math.log10(surface(state).span));
    const axis = (k) => ({ low, high, name: `mean ${k}${state.unit && ` (${state.unit})`}` }), within = (p) => p.every((v) => v >= low && v <= high);
    const plane = ui.plane({ label: state.label, x: axis("\u03bc\u2081"), y: axis("\u03bc\u2082"), height: (w) => w - 12, margin: { right: 14 } });
    const below = ui.plane({
      label: "NLL after each step", x: { low: 0, high: 0, name: "step" }, y: { low: top / 1e8, high: top, log: true, name: "NLL above the lowest (nats)" },
      height: (w) => clip(w, 230, 300), margin: { left: 60, right: 14 },
    });
    const side = (flex, content) => html("div", { style: `flex:${flex};min-width:0` }, content);
    ui.stage.append(html("div", { style: "display:flex;flex-wrap:wrap;align-items:end" }, side("3 1 23em", plane.svg), side("2 1 16em", below.svg)));
    const path = (where, attributes) => where.add("path", { fill: "none", "stroke-width": 2, ...attributes });
    const contours = path(plane, { stroke: GREY, "stroke-width": 1 }), cross = path(plane, { stroke: "currentColor" });
    // The roads differ in color, dashes and the shape of their dots: caps of segments of no length.
    const drawings = [0, 1].map((k) => [plane, below].map((where) => [
      path(where, { stroke: PALETTE[k], "stroke-dasharray": k ? "5 3" : "none" }),
      path(where, { stroke: PALETTE[k], "stroke-width": 6 - k, "stroke-linecap": k ? "square" : "round" }),
    ]));
    let begun = -Infinity, drawn = null;
    const step = (high - low) / 120, walked = () => { begun = performance.now(); };
    const place = plane.handle({
      label: "start, the two means", at: () => state.start, move: (start) => ui.set({ start }), step: [step, step],
      text: () => `${pair(state.start, 3)}; NLL ${format(roads(state).em.nll[0])}`,
    });
    plane.svg.addEventListener("click", (event) => { // a tap too, which is no scrolling
      const start = plane.at(event), { group } = plane.knobs[0];
      if (group.contains(event.target) || !within(start)) return;
      group.focus({ preventScroll: true });
      walked();
      ui.set({ start });
      ui.touched(true);
    });
    const size = state.sds[0] * state.sds[1], min = Math.log10(size / 50), max = Math.log10(size * 20);
    ui.slider({ label: "learning rate \u03b7", name: "rate", min, max, step: 0.01, of: Math.log10, from: (v) => Number((10 ** v).toPrecision(3)) });
    ui.slider({ label: "momentum \u03b2", name: "momentum", min: 0, max: 0.95, step: 0.05 });
    ui.slider({ label: "steps", name: "num_steps", min: 1, max: 100, step: 1 });
    if (!calm()) ui.button("Walk", walked);
    ui.legend([[PALETTE[0], "EM: solid, round dots"], [PALETTE[1], "descent: dashed, square dots"], [GREY, "equal NLL; + the lowest"]]);
    ui.readout([
      ["start", () => pair(state.start, 4)], ["its NLL (nats)", (v) => format(v.em.nll[0])], ["slopes there", (v) => pair(v.gradient, 3)],
      ...["em", "descent"].flatMap((name, k) => [
        [k ? "descent" : "EM", (v) => ending(v[name], "")], ["NLL there", (v) => format(v[name].nll.at(-1), 6)],
        ["above the lowest", (v) => format(Math.max(v[name].nll.at(-1) - v.lowest, 0), 2)],
      ]),
    ]);
    ui.refresh.push(() => {
      const { means, nll: lowest, lines } = surface(state), both = roads(state), shown = calm() ? Infinity : (performance.now() - begun) / 40;
      if (below.x.high !== state.num_steps) { below.x.high = state.num_steps; below.drawAxes(); }
      if (drawn?.lines !== lines || drawn.width !== plane.box.width) {
        drawn = { lines, width: plane.box.width };
        put(contours, { d: plane.path(lines) });
        put(cross, { d: within(means) ? `${plane.path([means])}m-6 0h12m-6-6v12` : "" });
      }
      [both.em, both.descent].forEach(({ road, nll, exit }, k) => {
        const part = road.slice(0, shown + 1), excess = part.map((_, t) => [t, Math.max(nll[t] - lowest, below.y.low)]);
        [[plane, exit && shown >= road.length ? [...part, exit] : part, part], [below, excess, excess]].forEach(([where, line, dots], i) => {
          put(drawings[k][i][0], { d: where.path(line) });
          put(drawings[k][i][1], { d: dots.map((p) => `${where.path([p])}h.01`).join("") });
        });
      });
      place();
      if (shown < state.num_steps) ui.draw();
    });
  }
  return {
    build, actions: {},
    values: (state) => ({ ...roads(state), gradient: at(state, state.start).slopes, lowest: surface(state).nll }),
    encode: ({ start, rate, momentum, num_steps }) => [...start, rate, momentum, num_steps],
    decode([m, n, rate, momentum, num_steps, ...rest], { limits: [low, high] }) {
      const steps = Number.isInteger(num_steps) && num_steps >= 1 && num_steps <= 100, inside = Math.min(m, n) >= low && Math.max(m, n) <= high;
      return steps && inside && !rest.length && rate > 0 && momentum >= 0 && momentum < 1 ? { start: [m, n], rate, momentum, num_steps } : null;
    },
    say: (ui) => `EM ${ending(ui.get("values").em)}; descent ${ending(ui.get("values").descent)}`,
  };
})();
