// A mixture over points in the plane, to be moved by hand, by EM and by gradient descent.
// Steps are taken in units of the data; the floor of EM is that of Clamp().

kinds.mixture = (() => {
  // The last pass: numbers and colors of a frame come from the same one.
  const seen = kept(["points", "weights", "means", "covariances"], (state) => eStep(state.points, state));
  /** Whether the state may hold a mixture, given in units of the data. */
  const fits = ({ means, covariances }) => means.flat().every((v) => abs(v) <= 1e4) && covariances.every((c) => {
    const f = factorOf(c);
    return f && min(f[0], f[2]) >= 1e-4 && f.every((v) => abs(v) <= 1e4);
  });
  /** Nothing, and yet with a logarithm. */
  const someWeight = (weights) => weights.map((w) => max(w, 1e-200));
  /** What changes by a step (points, mixture) -> mixture. The history goes on while only steps are taken. */
  function advance(state, step) {
    const { points, history } = state, { nll } = seen(state), next = step(toUnits({ means: points }, state).means, toUnits(state, state));
    if (!fits(next)) return { note: "The step left the range of numbers and was not taken: lower the rate." };
    const changes = fromUnits({ ...next, weights: someWeight(next.weights) }, state);
    const goesOn = abs(history.at(-1) - nll) < 1e-7 * (1 + abs(nll)) && history.length < 1000;
    return { ...changes, note: "", history: [...(goesOn ? history : [nll]), seen({ ...state, ...changes }).nll] };
  }
  const atRest = ({ history }) => abs(history.at(-2) - history.at(-1)) < 1e-8;
  /** Component k with this weight, the others in proportion: equal where they have none. */
  function reweigh(weights, k, weight) {
    const rest = sum(weights, (w, j) => (j === k ? 0 : w));
    return weights.map((w, j) => (j === k ? weight : (1 - weight) * (rest > 0 ? w / rest : 1 / (weights.length - 1))));
  }
  const most = ({ points }) => min(6, points.length);

  const actions = {
    em_step: (state) => advance(state, (z, m) => emStep(z, m, 1e-3)),
    gradient_step: (state) => advance(state, (z, m) => gradientStep(z, m, state.rate)),
    run(state) {
      for (let i = 0; i < 300 && !(i && atRest(state)); i++) state = { ...state, ...actions.em_step(state) };
      return state;
    },
    random_start({ points, weights, data_covariance, seed }) {
      const random = randomFrom(seed), order = points.map((x) => [random(), x]).sort((a, b) => a[0] - b[0]).map(([, x]) => x);
      // Different ones first.
      const means = [...new Map(order.map((x) => [String(x), x])).values(), ...order].slice(0, weights.length);
      return { weights: means.map(() => 1 / means.length), means, covariances: means.map(() => data_covariance), seed: (seed + 1) % 2 ** 31, history: [], note: "" };
    },
    /** One more, at the point that the mixture explains worst. */
    add_component(state) {
      const { points, weights, means, covariances, data_covariance } = state, k = weights.length, { logs } = seen(state);
      if (k === most(state)) return {};
      const worst = points[logs.indexOf(min(...logs))], small = data_covariance.map((row) => row.map((v) => v / 4));
      return { weights: reweigh([...weights, 0], k, 1 / (k + 1)), means: [...means, worst], covariances: [...covariances, small], selected: k, note: "" };
    },
    remove_component({ weights, means, covariances, selected: k }) {
      const others = (all) => all.filter((_, j) => j !== k), selected = min(k, weights.length - 2);
      return selected < 0 ? {} : { weights: others(reweigh(weights, k, 0)), means: others(means), covariances: others(covariances), selected, note: "" };
    },
  };

  function build(ui) {
    const { now } = ui, { points, center, label, limits: [left, right, bottom, top], axis_labels: names } = now, each = times(6, (k) => k);
    const plane = ui.plane({ label, x: { low: left, high: right, name: names[0] }, y: { low: bottom, high: top, name: names[1] }, height: (w, narrow) => (narrow ? 0.78 : 0.85) * w });
    const dots = points.map(() => plane.add("circle", { r: 3 })), border = plane.add("path", { class: "gm-border", fill: "none", stroke: "currentColor" }, plane.inside);
    const grid = [[left, right, 40], [bottom, top, 30]].map(([low, high, n]) => even(n, low, high));
    // Where one of all but the last is as likely as the likeliest of the others.
    const drawBorder = kept(["weights", "means", "covariances", "box"], ({ weights, means, covariances }) => {
      const factors = covariances.map(factorOf), shares = weights.map(log);
      const joint = grid[0].map((x) => grid[1].map((y) => {
        const a = means.map((mean, k) => shares[k] + logDensity([x, y], mean, factors[k])), [first, second] = [...a].sort((p, q) => q - p);
        return { a, first, second };
      }));
      const leads = (k) => joint.map((column) => column.map(({ a, first, second }) => a[k] - (a[k] === first ? second : first)));
      put(border, { d: times(means.length - 1, (k) => levelLines(...grid, leads(k), 0).map((line) => plane.path(line)).join("")).join("") });
    });
    const rings = each.map((k) => plane.component(colorOf(k)));
    const change = (name, k, value) => ui.set({ note: "", selected: k, [name]: now[name].map((old, j) => (j === k ? value : old)) });
    plane.handleAxes({
      get: () => [now.means[now.selected], now.covariances[now.selected], colorOf(now.selected)], set: (c) => change("covariances", now.selected, c),
      label: (i) => `end of axis ${i} of the selected component`,
    });
    const knobs = each.map((k) => {
      // Also where there is no such component: its knob is not in the drawing.
      const at = () => now.means[k] ?? center;
      // A key that only passes by selects nothing.
      return plane.handle({ label: `mean of component ${k + 1}`, at, move: (p) => change("means", k, p), text: () => list(at()), color: colorOf(k), number: k + 1, grasped: () => ui.set({ selected: k }) });
    });

    const { options } = ui.choice({ label: "component", name: "selected", options: each.map((k) => k + 1), values: each }).lastChild;
    const weight = ui.slider({
      label: "its weight", low: 0.01, high: 0.99, step: 0.01, get: () => now.weights[now.selected],
      set: (value) => ui.set({ note: "", weights: reweigh(now.weights, now.selected, value) }),
    }).querySelector("input");
    const add = ui.action("Add component", "add_component"), remove = ui.action("Remove component", "remove_component");
    ui.action("EM step", "em_step");
    let from;
    ui.play({
      label: "Run EM", stop: "Stop", wait: () => 125, jump: () => ui.act("run"), begin() { from = null; },
      step() {
        // Each once the one before has been answered.
        if (now.history === from) return true;
        if (from && atRest(now)) return false;
        from = now.history;
        ui.act("em_step");
        return true;
      },
    });
    ui.action("Gradient step", "gradient_step");
    ui.slider({ label: "rate", name: "rate", low: 0.01, high: 3, log: true });
    ui.action("Random start", "random_start");
    const note = html("p", { class: "gm-note" });
    ui.controls.after(note);
    ui.readout([["mean NLL (nats)", (v) => format(v.nll, 6)]]);
    const won = (k) => sum(seen(now).r, (row) => row[k] === max(...row));
    ui.table(["component", "weight", "\u03a3 r", "points won"], each.map((k) => [
      colorOf(k), k + 1, (v) => k < v.weights.length && [v.weights[k].toFixed(3), v.counts[k].toFixed(1), won(k)],
    ]));
    const chart = ui.plane({ label: "mean NLL after each step", x: { low: 0, name: "step" }, y: { name: "mean NLL" }, height: (w, narrow) => (narrow ? 110 : 150) });
    const curve = chart.curve(PALETTE[6]), last = chart.curve(PALETTE[6], 7, { "stroke-linecap": "round" });
    ui.legend([["currentColor", "border, where two are equally responsible"], [GRAY, "a point mixes the colors of the responsible", "dot"]]);

    const rgb = each.map((k) => [1, 3, 5].map((i) => parseInt(colorOf(k).slice(i, i + 2), 16)));
    const place = kept(["box"], () => dots.forEach((dot, i) => { const [cx, cy] = plane.pixel(points[i]); put(dot, { cx, cy }); }));
    const drawCurve = ({ history: past, values: { nll } }) => {
      // Moved by hand since its last step, the mixture begins anew.
      const history = past.length && abs(past.at(-1) - nll) < 1e-7 * (1 + abs(nll)) ? past : [nll];
      const low = min(...history), high = max(...history), room = high - low > 1e-9 * (1 + abs(high)) ? 0.05 * (high - low) : 0.1;
      chart.x.high = max(10, history.length - 1);
      Object.assign(chart.y, { low: low - room, high: high + room });
      chart.drawAxes();
      put(curve, { d: chart.path(history.map((v, i) => [i, v])) });
      put(last, { d: `${chart.path([[history.length - 1, history.at(-1)]])}h.01` });
    };
    ui.refresh.push(() => {
      const { weights, means, covariances, selected } = now, count = weights.length, { r } = seen(now);
      place(plane);
      drawBorder({ weights, means, covariances, box: plane.box });
      // Of the lit component each point shows the share.
      const lit = each.find((k) => k < count && colorOf(k) === ui.lit);
      dots.forEach((dot, i) => put(dot, { fill: `rgb(${times(3, (c) => round(sum(r[i], (v, k) => v * rgb[k][c])))})`, "fill-opacity": 0.9 * (lit === undefined ? 1 : 0.1 + 0.9 * r[i][lit]) }));
      for (const k of each) {
        const on = k < count, knob = knobs[k];
        if (knob.isConnected !== on) on ? plane.front.append(knob) : knob.remove();
        options[k].hidden = options[k].disabled = !on;
        rings[k](means[k], covariances[k], k === selected ? 3.5 : 1.5);
      }
      const focused = document.activeElement;
      put(weight, { style: `accent-color:${colorOf(selected)}` }).disabled = remove.disabled = count === 1;
      add.disabled = count === most(now);
      if (focused.disabled) (count === 1 ? add : remove).focus();
      note.textContent = now.note;
      drawCurve(now);
    });
  }

  return {
    actions, build, wide: "values",
    values(state) {
      const { weights } = state, { r, nll } = seen(state);
      return { nll, counts: weights.map((_, k) => sum(r, (row) => row[k])), weights };
    },
    /** In units of the data, and covariances by their factors: a few digits then keep what matters. */
    encode(state) {
      const { weights, means, covariances } = toUnits(state, state);
      return [weights.length, state.selected, state.rate, state.seed, ...weights.flatMap((w, k) => [w, ...means[k], ...factorOf(covariances[k])])];
    },
    decode([count, selected, rate, seed, ...rest], state) {
      const rows = times(rest.length / 6, (k) => rest.slice(6 * k, 6 * k + 6)), total = sum(rows, ([w]) => w);
      const ranges = [[1, most(state), true], [0, count - 1, true], [1e-300, 100], [0, 2 ** 31 - 1, true], [0.999, 1.001]];
      if (!within([count, selected, rate, seed, total], ranges) || rest.length !== 6 * count || rows.some(([w, , , p, , r]) => w < 0 || p <= 0 || r <= 0)) return null;
      const read = { weights: someWeight(rows.map(([w]) => w / total)), means: rows.map((row) => row.slice(1, 3)), covariances: rows.map((row) => productOf(row.slice(3))) };
      return fits(read) ? { ...fromUnits(read, state), selected, rate, seed, note: "" } : null;
    },
    say: ({ note, selected, values: { nll, counts } }) => note || `mean NLL ${format(nll, 5)} nats; component ${selected + 1} answers for ${format(counts[selected], 3)} points`,
  };
})();
