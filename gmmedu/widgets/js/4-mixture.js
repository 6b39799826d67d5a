// A mixture over points in the plane, to be moved by hand, by EM and by gradient descent.
// Steps are taken in units of the data; the floor of EM is that of Clamp().

const inUnits = ({ points, center, scale }) => points.map((x) => x.map((v, d) => (v - center[d]) / scale[d]));
let mixturePass = {}; // the last one: numbers and colors of a frame come from the same pass
function mixtureSeen({ points, weights, means, covariances }) {
  const key = [points, weights, means, covariances];
  if (!mixturePass.key?.every((v, i) => v === key[i])) mixturePass = { key, ...eStep(points, { weights, means, covariances }) };
  return mixturePass;
}
/** Whether the state may hold a mixture, given in units of the data. */
const mixtureFits = ({ means, covariances }) => means.flat().every((v) => Math.abs(v) <= 1e4) && covariances.every((c) => {
  const f = factorOf(c);
  return f && Math.min(f[0], f[2]) >= 1e-4 && f.every((v) => Math.abs(v) <= 1e4);
});
const someWeight = (weights) => weights.map((w) => Math.max(w, 1e-200)); // nothing, and yet with a logarithm
/** What changes by a step (points, mixture) -> mixture. The history goes on while only steps are taken. */
function mixtureStep(state, step) {
  const { center, scale, history } = state, { nll } = mixtureSeen(state), next = step(inUnits(state), toUnits(state, center, scale));
  if (!mixtureFits(next)) return { note: "The step left the range of numbers and was not taken: lower the rate." };
  const changes = fromUnits({ ...next, weights: someWeight(next.weights) }, center, scale), goesOn = Math.abs(history.at(-1) - nll) < 1e-7 * (1 + Math.abs(nll)) && history.length < 1000;
  return { ...changes, note: "", history: [...(goesOn ? history : [nll]), mixtureSeen({ ...state, ...changes }).nll] };
}
const mixtureAtRest = (history) => Math.abs(history.at(-2) - history.at(-1)) < 1e-8;
/** Component k with this weight, the others in proportion: equal where they have none. */
function mixtureReweigh(weights, k, weight) {
  const rest = weights.reduce((s, w, j) => (j === k ? s : s + w), 0);
  return weights.map((w, j) => (j === k ? weight : (1 - weight) * (rest > 0 ? w / rest : 1 / (weights.length - 1))));
}

const mixture = {
  values(state) {
    const { r, nll } = mixtureSeen(state);
    return { nll, counts: state.weights.map((_, k) => r.reduce((s, row) => s + row[k], 0)), weights: state.weights };
  },
  actions: {
    em_step: (state) => mixtureStep(state, (z, m) => emStep(z, m, 1e-3)),
    gradient_step: (state) => mixtureStep(state, (z, m) => gradientStep(z, m, state.rate)),
    run(state) {
      for (let i = 0; i < 300 && !(i && mixtureAtRest(state.history)); i++) state = { ...state, ...mixture.actions.em_step(state) };
      return state;
    },
    random_start({ points, weights, data_covariance, seed }) {
      const random = randomFrom(seed), order = points.map((x) => [random(), x]).sort((a, b) => a[0] - b[0]).map(([, x]) => x);
      const means = [...new Map(order.map((x) => [String(x), x])).values(), ...order].slice(0, weights.length);
      return { weights: means.map(() => 1 / means.length), means, covariances: means.map(() => data_covariance), seed: (seed + 1) % 2 ** 31, history: [], note: "" };
    },
    /** One more, at the point that the mixture explains worst. */
    add_component(state) {
      const { points, weights, means, covariances, data_covariance } = state, k = weights.length, { logs } = mixtureSeen(state);
      if (k === Math.min(6, points.length)) return {};
      const worst = points[logs.indexOf(Math.min(...logs))], small = data_covariance.map((row) => row.map((v) => v / 4));
      return { weights: mixtureReweigh([...weights, 0], k, 1 / (k + 1)), means: [...means, worst], covariances: [...covariances, small], selected: k, note: "" };
    },
    remove_component({ weights, means, covariances, selected: k }) {
      const others = (list) => list.filter((_, j) => j !== k);
      if (weights.length === 1) return {};
      return { weights: others(mixtureReweigh(weights, k, 0)), means: others(means), covariances: others(covariances), selected: Math.min(k, weights.length - 2), note: "" };
    },
  },
  /** In units of the data, and covariances by their factors: a few digits then keep what matters. */
  encode(state) {
    const { weights, means, covariances } = toUnits(state, state.center, state.scale);
    return [weights.length, state.selected, state.rate, state.seed, ...weights.flatMap((w, k) => [w, ...means[k], ...factorOf(covariances[k])])];
  },
  decode([count, selected, rate, seed, ...rest], { points, center, scale }) {
    const whole = (v, low, high) => Number.isInteger(v) && v >= low && v < high;
    if (!whole(count, 1, Math.min(6, points.length) + 1) || !whole(selected, 0, count) || !whole(seed, 0, 2 ** 31) || rest.length !== 6 * count) return null;
    const rows = Array.from({ length: count }, (_, k) => rest.slice(6 * k, 6 * k + 6)), total = rows.reduce((s, row) => s + row[0], 0);
    if (!(rate > 0 && rate <= 100 && Math.abs(total - 1) < 1e-3) || rows.some((row) => !(row[0] >= 0 && row[3] > 0 && row[5] > 0))) return null;
    const read = { weights: someWeight(rows.map(([w]) => w / total)), means: rows.map((row) => row.slice(1, 3)), covariances: rows.map((row) => productOf(row.slice(3))) };
    return mixtureFits(read) ? { ...fromUnits(read, center, scale), selected, rate, seed, note: "" } : null;
  },
  say(ui) {
    const { nll, counts } = ui.get("values"), k = ui.get("selected");
    return ui.get("note") || `mean NLL ${format(nll, 5)} nats; component ${k + 1} answers for ${format(counts[k] ?? 0, 3)} points`;
  },
  build(ui) {
    const state = new Proxy({}, { get: (_, name) => ui.get(name) });
    const { points, center, scale, limits: [left, right, low, high], axis_labels: [across, up] } = state;
    const each = [0, 1, 2, 3, 4, 5], step = [(right - left) / 60, (high - low) / 60];
    const plane = ui.plane({
      label: ui.get("label"), x: { low: left, high: right, name: across }, y: { low, high, name: up },
      height: (w) => clip((w * step[1] * scale[0]) / (step[0] * scale[1]), 0.6 * w, w < 500 ? w : 0.75 * w),
    });
    const dots = points.map(() => plane.add("circle", { r: 3, "fill-opacity": 0.75 }));
    const rings = each.map((k) => [0.12, 0].map((opacity) => plane.add("path", { stroke: colorOf(k), fill: colorOf(k), "fill-opacity": opacity }, plane.inside)));
    let timer = 0, steps, from;
    const halt = () => { clearTimeout(timer); timer = 0; };
    const change = (name, k, value) => { halt(); ui.set({ note: "", [name]: state[name].map((old, j) => (j === k ? value : old)) }); };

    // The axes of the selected component, in units of the data. Which is which, and by which end it is
    // held, must not change under a hand: kept here, and read anew when anything else changed it.
    let held = {};
    const reach = Math.sqrt(radius2(0.95)), convert = (c, way) => way({ means: [], covariances: [c] }, center, scale).covariances[0];
    const end = (i, sign) => {
      const way = held.angle + (i * Math.PI) / 2, size = sign * reach * held.sds[i];
      return [held.mean[0] + size * scale[0] * Math.cos(way), held.mean[1] + size * scale[1] * Math.sin(way)];
    };
    const shown = ([x, y]) => [clip(x, left, right), clip(y, low, high)];
    const outside = (p) => shown(p).some((v, d) => Math.abs(v - p[d]) > step[d] / 10);
    const read = () => {
      const k = state.selected, mean = state.means[k], c = state.covariances[k], key = String([mean, c]);
      if (key === held.key) return;
      held = { k, mean, key, ...principal(convert(c, toUnits)) };
      held.signs = [0, 1].map((i) => (outside(end(i, 1)) && !outside(end(i, -1)) ? -1 : 1));
    };
    const pull = (i) => (p) => {
      read();
      const [u, v] = p.map((w, d) => (held.signs[i] * (w - held.mean[d])) / scale[d]), length = Math.hypot(u, v);
      held.sds[i] = clip(length / reach, 0.01, 10);
      if (length > 0.01) held.angle = Math.atan2(v, u) - (i * Math.PI) / 2;
      const c = convert(covarianceOf(held.sds, held.angle), fromUnits);
      held.key = String([held.mean, c]);
      change("covariances", held.k, c);
    };
    const knob = (options) => [plane.handle({ step, ...options }), plane.front.lastChild];
    const tips = [0, 1].map((i) => knob({
      label: `end of axis ${i + 1} of the selected component`, at: () => { read(); return shown(end(i, held.signs[i])); }, move: pull(i), shape: "square",
      text: () => `component ${held.k + 1}: standard deviation ${format(held.sds[i], 3)} times that of the data`,
    }));
    const knobs = each.map((k) => {
      const text = () => state.means[k].map((v) => format(v)).join(", ");
      const made = knob({ label: `mean of component ${k + 1}`, at: () => state.means[k] ?? center, move: (p) => change("means", k, p), text, color: colorOf(k) });
      made[1].addEventListener("focus", () => ui.set({ selected: k }));
      made[1].append(svg("text", { x: 8, y: -8, class: "gm-text", style: "font-size:15px;font-weight:700" }, k + 1));
      return made;
    });

    const chosen = () => state.weights[state.selected], last = () => ui.controls.lastChild.children[0];
    ui.choice({ label: "component", name: "selected", options: each.map((k) => [k, k + 1]) });
    const { options } = last();
    ui.slider({
      label: "its weight", name: "weights", min: 0.01, max: 0.99, step: 0.01, of: chosen, text: () => format(chosen(), 3),
      from: (v) => { halt(); return mixtureReweigh(state.weights, state.selected, v); },
    });
    const weight = last(), button = (label, name) => ui.button(label, () => { halt(); ui.act(name); });
    const add = button("Add component", "add_component"), remove = button("Remove component", "remove_component");
    button("EM step", "em_step");
    const tick = () => { // eight steps a second, each once the one before has been answered
      const h = state.history, answered = state.means !== from;
      if (!ui.root.isConnected || (from && answered && (!steps || h.length < 2 || mixtureAtRest(h)))) { halt(); ui.touched(true); return; }
      if (answered) { steps--; from = state.means; ui.act("em_step"); }
      timer = setTimeout(tick, 125);
    };
    const run = ui.button("Run EM", () => {
      if (timer) halt();
      else if (calm()) ui.act("run");
      else { steps = 300; from = null; tick(); }
    });
    button("Gradient step", "gradient_step");
    ui.slider({ label: "rate", name: "rate", min: -2, max: 0.5, step: 0.05, of: Math.log10, from: (v) => Number((10 ** v).toPrecision(3)), text: (v) => format(v, 3) });
    button("Random start", "random_start");
    const note = html("p");
    ui.controls.after(note);
    ui.legend([[GREY, "ellipses of 50 % and 95 %, thick for the selected component; points colored by responsibilities"]]);
    ui.readout([["mean NLL (nats)", (v) => format(v.nll, 6)], ...each.map((k) => [((s) => `\u03c0${s}, N${s}`)(String.fromCharCode(0x2081 + k)), (v) => `${v.weights[k]?.toFixed(3)}, ${v.counts[k]?.toFixed(1)}`])]);
    const chart = ui.plane({ label: "mean NLL after each step", x: { low: 0, high: 1, name: "step" }, y: { low: 0, high: 1, name: "mean NLL" }, height: () => 150 });
    const curve = chart.add("path", { fill: "none", stroke: PALETTE[6], "stroke-width": 2 });
    ui.root.append(chart.svg);

    const rgb = each.map((k) => [1, 3, 5].map((i) => parseInt(colorOf(k).slice(i, i + 2), 16))), colors = [];
    const show = (node, on) => { node.style.display = on ? "" : "none"; };
    let drawn = {};
    ui.refresh.push(() => {
      const { weights, means, covariances, selected, history: h } = state, count = weights.length, { r } = mixtureSeen(state);
      dots.forEach((dot, i) => { // most points keep their color from frame to frame
        if (drawn.box !== plane.box) put(dot, { cx: plane.x.at(points[i][0]).toFixed(1), cy: plane.y.at(points[i][1]).toFixed(1) });
        const color = `rgb(${[0, 1, 2].map((c) => Math.round(r[i].reduce((s, v, k) => s + v * rgb[k][c], 0)))})`;
        if (color !== colors[i]) put(dot, { fill: (colors[i] = color) });
      });
      for (const k of each) {
        const [place, group] = knobs[k];
        if (group.isConnected !== k < count) group.isConnected ? group.remove() : plane.front.append(group);
        for (const node of [ui.list.children[k + 1], ...rings[k]]) show(node, k < count);
        options[k].hidden = options[k].disabled = k >= count;
        if (k >= count) continue;
        rings[k].forEach((ring, i) => put(ring, { d: plane.ellipse(means[k], covariances[k], radius2(i ? 0.95 : 0.5)), "stroke-width": k === selected ? 3.5 : 1.5 }));
        place();
      }
      for (const [place, group] of tips) { place(); put(group.children[1], { fill: colorOf(selected) }); }
      weight.disabled = remove.disabled = count === 1;
      add.disabled = count === Math.min(6, points.length);
      run.textContent = timer ? "Stop" : "Run EM";
      note.textContent = state.note;
      show(chart.svg, h.length > 1);
      if (h.length > 1 && (drawn.h !== h || drawn.wide !== chart.box)) {
        const bottom = Math.min(...h), top = Math.max(...h), room = 0.05 * (top - bottom) || 0.1;
        chart.x.high = Math.max(10, h.length - 1);
        Object.assign(chart.y, { low: bottom - room, high: top + room });
        chart.drawAxes();
        put(curve, { d: chart.path(h.map((v, i) => [i, v])) });
      }
      drawn = { box: plane.box, wide: chart.box, h };
    });
  },
};
