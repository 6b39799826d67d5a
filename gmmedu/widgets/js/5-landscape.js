// The NLL over the two means of a mixture in one dimension, and two roads down: EM and descent.

const landscape = (() => {
  /** Keep what was made last, as long as these parts of the state are the same objects. */
  const kept = (names, make) => {
    let key = [], last;
    return (state) => {
      const now = names.map((name) => state[name]);
      if (now.some((v, i) => v !== key[i])) [last, key] = [make(state), now];
      return last;
    };
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
  function emAt(state, means) {
    const logs = [[], []], { nll } = at(state, means, logs);
    const to = means.map((mean, k) => { // in shares softmax(log r): also where every r underflows
      const shares = softmax(logs[k]);
      return state.x.reduce((sum, v, i) => sum + shares[i] * (v - mean), mean);
    });
    return { nll, to };
  }
  /** Heights on a square grid, and the lowest point: from the lowest of the grid by EM. */
  const surface = kept(["x", "weights", "sds", "limits"], (state) => {
    const [low, high] = state.limits, axis = Array.from({ length: 61 }, (_, i) => low + ((high - low) * i) / 60);
    const heights = axis.map((u) => axis.map((v) => at(state, [u, v]).nll)), all = heights.flat(), top = Math.max(...all);
    const least = all.indexOf(Math.min(...all));
    let means = [axis[Math.floor(least / 61)], axis[least % 61]];
    for (let i = 0; i < 500; i++) means = emAt(state, means).to;
    const { nll } = at(state, means), span = Math.max(top - nll, 1e-9);
    const lines = Array.from({ length: 15 }, (_, i) => contour(axis, heights, nll + span * 1.5 ** (-i - 0.5))).flat();
    return { means, nll, span, lines };
  });
  /** Segments of the line of equal height, by marching squares. */
  function contour(axis, heights, level) {
    const found = [];
    for (let i = 0; i < 60; i++) for (let j = 0; j < 60; j++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1], [i, j]];
      for (let k = 0, cuts = 0; k < 4; k++) {
        const [[p, q], [r, s]] = corners.slice(k), a = heights[p][q] - level, b = heights[r][s] - level, u = a / (a - b);
        if (a > 0 === b > 0) continue;
        found.push([axis[p] + u * (axis[r] - axis[p]), axis[q] + u * (axis[s] - axis[q])]);
        if (++cuts % 2 === 0) found.push(null);
      }
    }
    return found;
  }
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
  const roads = kept(["x", "weights", "sds", "limits", "start", "rate", "momentum", "num_steps"], (state) => {
    let sum = [0, 0];
    const descend = (means) => {
      const { nll, slopes } = at(state, means);
      sum = sum.map((b, d) => state.momentum * b + slopes[d]);
      return { nll, to: means.map((v, d) => v - state.rate * sum[d]) };
    };
    return { em: walk(state, (means) => emAt(state, means)), descent: walk(state, descend) };
  });
  const pair = (p, digits) => p.map((v) => format(v, digits)).join(", ");
  const ending = ({ road, exit }) => (exit ? `leaves the plane at step ${road.length}` : `ends at ${pair(road.at(-1), 4)}`);

  function build(ui) {
    const state = new Proxy({}, { get: (_, name) => ui.get(name) }), [low, high] = state.limits, within = (p) => p.every((v) => v >= low && v <= high);
    const axis = (k) => ({ low, high, name: `mean ${k}${state.unit && ` (${state.unit})`}` }), top = 10 ** Math.ceil(Math.log10(surface(state).span));
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
    const lines = ["em", "descent"].map((name, k) => [name, ...[plane, below].flatMap((where) => [
      path(where, { stroke: PALETTE[k], "stroke-dasharray": k ? "5 3" : "none" }),
      path(where, { stroke: PALETTE[k], "stroke-width": 6 - k, "stroke-linecap": k ? "square" : "round" }),
    ])]);
    let begun = -Infinity, drawn = [];
    const play = () => { if (!calm()) begun = performance.now(); ui.draw(); };
    const move = (start) => { begun = -Infinity; ui.set({ start }); };
    const place = plane.handle({
      label: "start, the two means", at: () => state.start, move, step: [(high - low) / 120, (high - low) / 120],
      text: () => `${pair(state.start, 3)}; NLL ${format(roads(state).em.nll[0])}`,
    });
    // A press takes the start there: by mouse at once, by touch when it was a tap and no scrolling.
    const [knob] = plane.knobs;
    plane.svg.style.cursor = "crosshair";
    for (const kind of ["pointerdown", "click"]) plane.svg.addEventListener(kind, (event) => {
      const p = plane.at(event), mouse = event.pointerType === "mouse";
      if (mouse !== (kind === "pointerdown") || event.button || knob.group.contains(event.target) || !within(p)) return;
      event.preventDefault();
      move(p);
      if (mouse) knob.grasp(event, plane.pixels(event));
      else ui.touched(true);
      play();
    });
    const size = state.sds[0] * state.sds[1], min = Math.log10(size / 50), max = Math.log10(size * 20);
    ui.slider({ label: "learning rate \u03b7", name: "rate", min, max, step: (max - min) / 300, of: Math.log10, from: (v) => Number((10 ** v).toPrecision(3)) });
    ui.slider({ label: "momentum \u03b2", name: "momentum", min: 0, max: 0.95, step: 0.05 });
    ui.slider({ label: "steps", name: "num_steps", min: 1, max: 100, step: 1 });
    if (!calm()) ui.button("Walk", play);
    ui.legend([[PALETTE[0], "EM: solid, round dots"], [PALETTE[1], "descent: dashed, square dots"], [GREY, "equal NLL; + the lowest"]]);
    ui.readout([
      ["start", () => pair(state.start, 4)],
      ["its NLL (nats)", (v) => format(v.em.nll[0])],
      ["slopes there", (v) => pair(v.gradient, 3)],
      ...["em", "descent"].flatMap((name, k) => [
        [k ? "descent" : "EM", (v) => ending(v[name]).replace(" the plane", "")],
        ["NLL there", (v) => format(v[name].nll.at(-1), 6)],
        ["above the lowest", (v) => format(Math.max(v[name].nll.at(-1) - v.lowest, 0), 2)],
      ]),
    ]);
    ui.refresh.push(() => {
      const { means, nll: lowest, lines: equal } = surface(state), steps = state.num_steps, shown = (performance.now() - begun) / 40;
      if (below.x.high !== steps) { below.x.high = steps; below.drawAxes(); }
      if (drawn[0] !== equal || drawn[1] !== plane.box.width) {
        drawn = [equal, plane.box.width];
        put(contours, { d: plane.path(equal) });
        put(cross, { d: within(means) ? `${plane.path([means])}m-6 0h12m-6-6v12` : "" });
      }
      for (const [name, ...four] of lines) {
        const { road, nll, exit } = roads(state)[name], part = road.slice(0, shown + 1);
        const excess = part.map((_, t) => [t, Math.max(nll[t] - lowest, below.y.low)]), whole = exit && shown >= road.length ? [...part, exit] : part;
        [[plane, whole, part], [below, excess, excess]].forEach(([where, line, dots], i) => {
          put(four[2 * i], { d: where.path(line) });
          put(four[2 * i + 1], { d: dots.map((p) => `${where.path([p])}h.01`).join("") });
        });
      }
      place();
      if (shown < steps) ui.draw();
    });
  }
  return {
    values: (state) => ({ ...roads(state), gradient: at(state, state.start).slopes, lowest: surface(state).nll }),
    actions: {},
    encode: ({ start, rate, momentum, num_steps }) => [...start, rate, momentum, num_steps],
    decode([m, n, rate, momentum, num_steps, ...rest], { limits: [low, high] }) {
      const steps = Number.isInteger(num_steps) && num_steps >= 1 && num_steps <= 100, inside = Math.min(m, n) >= low && Math.max(m, n) <= high;
      return steps && inside && !rest.length && rate > 0 && momentum >= 0 && momentum < 1 ? { start: [m, n], rate, momentum, num_steps } : null;
    },
    say: (ui) => `EM ${ending(ui.get("values").em)}; descent ${ending(ui.get("values").descent)}`,
    build,
  };
})();
