// Fifteen points, two Gaussians with one standard deviation that EM has fitted to them, and how the
// fit follows a point: the gradient of the fixed point, exact and of so many steps.

kinds.layer = (() => {
  const RANGE = [-4, 10], STEPS = [1, 40], HIGHEST = 0.999, OUTPUTS = ["weight 2", "mean 1", "mean 2", "log sd"], START = [0.5, -1, 4, 0];
  const mul = (a, b) => a.map((row) => b[0].map((_, j) => sum(row, (v, k) => v * b[k][j])));
  const plus = (a, b) => a.map((row, i) => row.map((v, j) => v + b[i][j]));
  const ONE = times(4, (i) => times(4, (j) => +(i === j)));
  const moved = ({ points, selected, at }) => points.map((v, i) => (i === selected ? at : v));
  const shown = (v) => (v == null ? "none" : format(zeroed(v, 1e8), 3));
  /** Of points at few places one may be pulled onto another, and the deviation end at 0. */
  const able = (points) => new Set(points).size > 3;

  /** One step of EM on the weight of the second, the means and the log sd; and its responsibilities. */
  function step(x, [w, m, n, l]) {
    const odds = (1 - w) / w, both = 2 * exp(2 * l), r = x.map((v) => 1 / (1 + odds * exp(((v - n) ** 2 - (v - m) ** 2) / both))), b = sum(r), a = x.length - b;
    const p = sum(x, (v, i) => (1 - r[i]) * v) / a, q = sum(x, (v, i) => r[i] * v) / b;
    return { r, theta: [b / x.length, p, q, log(sum(x, (v, i) => (1 - r[i]) * (v - p) ** 2 + r[i] * (v - q) ** 2) / x.length) / 2] };
  }
  /** The Jacobians of a step, in the parameters and in the points, and the inverse of I - J. */
  function slopes(x, old) {
    const [w, m, n, l] = old, { r, theta: [v, p, q, k] } = step(x, old), s = exp(2 * l), t = exp(2 * k), size = x.length, odds = r.map((u) => u * (1 - u));
    const ways = x.map((z) => [1 / (w * (1 - w)), (m - z) / s, (z - n) / s, ((z - n) ** 2 - (z - m) ** 2) / s]);
    const answers = x.map((z) => [1 / size, (p - z) / (1 - v) / size, (z - q) / v / size, ((z - q) ** 2 - (z - p) ** 2) / (2 * t * size)]);
    const direct = x.map((z, i) => [0, (1 - r[i]) / (1 - v) / size, r[i] / v / size, ((1 - r[i]) * (z - p) + r[i] * (z - q)) / (t * size)]);
    const J = times(4, (i) => times(4, (j) => sum(odds, (u, c) => u * answers[c][i] * ways[c][j])));
    const B = times(4, (i) => odds.map((u, c) => (answers[c][i] * u * (n - m)) / s + direct[c][i]));
    // Twice as many powers each time: I + J + J^2 + ...
    let inverse = ONE, power = J;
    for (let i = 0; i < 26; i++) [inverse, power] = [plus(inverse, mul(inverse, power)), mul(power, power)];
    return { J, B, inverse };
  }
  /** EM from the start, until nothing moves by so much. */
  function settle(x, close) {
    let theta = START, far = 1;
    for (let i = 0; i < 4000 && far > close; i++) {
      const next = step(x, theta).theta;
      far = max(...next.map((v, j) => abs(v - theta[j])));
      theta = next;
    }
    return theta;
  }
  /** And Newton's steps from there to where nothing moves at all. */
  function fit(x) {
    let theta = settle(x, 1e-9);
    for (let i = 0; i < 3; i++) {
      const left = step(x, theta).theta.map((v, j) => [v - theta[j]]), by = mul(slopes(x, theta).inverse, left);
      if (!(max(...by.map(([v]) => abs(v))) < 1e-3)) break;
      theta = theta.map((v, j) => v + by[j][0]);
    }
    return theta;
  }
  /** The fit, and the gradient of the output in each point: of the fixed point, and of so many steps. */
  function look(x, { output, steps }) {
    const theta = fit(x), { J, B, inverse } = slopes(x, theta), own = OUTPUTS.indexOf(output);
    let some = ONE, power = inverse;
    for (let i = 1; i < steps; i++) some = plus(ONE, mul(J, some));
    // Squared until its largest eigenvalue, 1 / (1 - rate), is left.
    const trace = (a) => sum(a, (row, i) => row[i]);
    for (let i = 0; i < 30; i++) {
      const size = trace(power);
      power = mul(power, power).map((row) => row.map((v) => v / size ** 2));
    }
    // Where both means are one the weight is free: I - J is singular.
    const rate = 1 - trace(power) / trace(mul(power, inverse)), gradient = rate > HIGHEST ? null : mul([inverse[own]], B)[0];
    return { theta, rate, output: theta[own], gradient, unrolled: mul([some[own]], B)[0] };
  }
  function values(state) {
    const { theta: [weight, ...means], ...own } = look(moved(state), state), { output: before, ...start } = look(state.points, state);
    const [slope, slope_unrolled] = [start.gradient, start.unrolled].map((all) => all && all[state.selected]);
    return { ...own, weights: [1 - weight, weight], sd: exp(means.pop()), means, before, slope, slope_unrolled, predicted: slope === null ? null : before + slope * (state.at - state.points[state.selected]) };
  }

  function build(ui) {
    const { now } = ui, exact = PALETTE[6], some = PALETTE[4], axis = { low: RANGE[0], high: RANGE[1] }, STRIP = 34;
    const above = ui.plane({
      label: "Points, the fitted density, and the gradient at each point", x: { ...axis, step: 0.1, name: "x" }, y: { low: 0, high: 0.45, name: "density" },
      height: (w, narrow) => (narrow ? 0.42 : 0.27) * w + 2 * STRIP, margin: () => ({ bottom: 44 + 2 * STRIP }),
    });
    const whole = above.curve("currentColor", 3, {}, above.inside), parts = [0, 1].map((k) => above.curve(colorOf(k), 2, {}, above.inside));
    const level = above.curve(GRAY, 1), bars = [exact, some].map((color) => above.curve(color, 4)), text = times(2, () => above.add("text", { class: "gm-text", "text-anchor": "end" }));
    const below = ui.plane({
      label: "The output against the position of the point", x: { ...axis, step: 0.1, name: "position of the point" }, y: { low: 0, high: 1 },
      height: (w, narrow) => (narrow ? 0.5 : 0.3) * w,
    });
    const lines = [exact, some].map((color, i) => below.curve(color, 2, { "stroke-dasharray": "6 6", "stroke-dashoffset": 6 * i }, below.inside)), dots = below.curve("currentColor", 3, { "stroke-linecap": "round" }), ask = below.ask("How far does the line hold? Pull the point.");
    // The curve is drawn as far as a reader has been, from where the point was taken.
    let seen, key;
    ui.forget = () => { key = null; };
    const follow = kept(["points", "selected"], (state) => even(280, ...RANGE).map((at) => [at, settle(moved({ ...state, at }), 1e-7)]));
    ui.refresh.push(() => {
      const { points, selected, output, at } = now, curve = follow({ points, selected }).map(([v, theta]) => [v, theta[OUTPUTS.indexOf(output)]]), start = points[selected], all = curve.map(([, v]) => v);
      const room = 0.1 * max(max(...all) - min(...all), 0.1), named = String([points, selected]);
      if (key !== named) [key, seen] = [named, [start, start]];
      seen = [min(seen[0], at), max(seen[1], at)];
      Object.assign(below.y, { low: min(...all) - room, high: max(...all) + room, name: output });
      below.drawAxes();
      put(dots, { d: curve.filter(([v]) => v >= seen[0] - 0.03 && v <= seen[1] + 0.03).map((p) => `${below.path([p])}h.01`).join("") });
      const { before, slope, slope_unrolled } = now.values;
      [slope, slope_unrolled].forEach((by, i) => put(lines[i], { d: by === null ? "" : below.path(RANGE.map((v) => [v, before + by * (v - start)])) }));
      ask(seen[1] - seen[0] < 0.5);
    });
    ui.legend([["currentColor", "density; refits"], [exact, "gradient of the fixed point"], [some, "of T steps"], [exact, "predictions", "dashed"]]);
    const take = (i, v) => {
      const points = i === now.selected ? now.points : moved(now), at = clip(rounded(v, 3), ...RANGE);
      if (able(points)) ui.set({ points, selected: i, at });
    };
    const groups = now.points.map((_, i) => above.handle({
      label: `point ${i + 1}`, across: true, at: () => [moved(now)[i], 0], move: ([v]) => take(i, v),
      text: () => `${format(moved(now)[i], 3)}; gradient ${shown(now.values.gradient?.[i])}, of T steps ${shown(now.values.unrolled[i])}`,
    }));
    below.handle({
      label: "position along the curve", across: true, color: exact, at: () => [now.at, now.values.output], move: ([v]) => take(now.selected, v),
      text: () => `${format(now.at, 3)}; ${now.output} ${format(now.values.output, 3)}, predicted ${shown(now.values.predicted)}`,
    });
    ui.choice({ label: "output", name: "output", options: OUTPUTS });
    ui.slider({ label: "steps T", name: "steps", low: STEPS[0], high: STEPS[1], step: 1, color: some });
    for (const [label, scene] of Object.entries(now.scenes)) ui.button(label, () => { ui.set(scene); ui.touched(true); });
    ui.table(["component", "weight", "mean", "sd"], [0, 1].map((k) => [colorOf(k), `${k + 1}`, ({ weights, means, sd }) => [weights[k], means[k], sd].map((v) => format(v, 3))]));
    ui.values.style.alignItems = "start";
    const percent = (a, b) => (abs(b) > 1e-4 ? `${format((100 * a) / b, 3)} %` : "none");
    ui.readout([
      ["rate \u03b3", (v) => format(v.rate, 3)],
      ["gradient at the point", (v) => shown(v.gradient?.[now.selected]), exact],
      ["of T steps", (v) => `${shown(v.unrolled[now.selected])}, ${percent(v.unrolled[now.selected], v.gradient?.[now.selected])}`, some],
      ["predicted", (v) => shown(v.predicted), exact],
      ["refit", (v) => format(v.output, 3)],
    ]);
    const xs = even(280, ...RANGE);
    ui.refresh.push(() => {
      const { values: { weights, means, sd, gradient, unrolled }, selected } = now, all = [gradient ?? [], unrolled], middle = above.y.start + 42 + STRIP, top = max(...all.flat().map(abs), 1e-3);
      const part = (k) => (x) => weights[k] * normal(x, means[k], sd), draw = (path, f) => put(path, { d: above.path(xs.map((x) => [x, f(x)])) });
      parts.forEach((path, k) => draw(path, part(k)));
      draw(whole, (x) => part(0)(x) + part(1)(x));
      put(level, { d: `M${above.x.start} ${middle}H${above.x.end}` });
      const x = moved(now);
      all.forEach((own, i) => put(bars[i], { d: own.map((v, c) => `M${(above.x.at(x[c]) + 4 * i - 2).toFixed(1)} ${middle}v${((-STRIP * v) / top).toFixed(2)}`).join("") }));
      put(text[0], { x: above.x.start - 7, y: middle - STRIP + 9 }).textContent = format(top, 2);
      put(text[1], { transform: `rotate(-90 12 ${middle})`, x: 12, y: middle, "text-anchor": "middle" }).textContent = "gradient";
      groups.forEach((group, i) => put(group.querySelector(".gm-knob"), { fill: i === selected ? exact : GRAY }));
    });
  }

  return {
    values, build, actions: {}, wide: "none",
    encode: ({ output, steps, selected, at, points }) => [OUTPUTS.indexOf(output), steps, selected, at, ...points],
    decode(numbers, { points: { length } }) {
      const [output, steps, selected, at, ...points] = numbers;
      if (!within(numbers, [[0, 3, true], [...STEPS, true], [0, length - 1, true], RANGE, ...Array(length).fill(RANGE)]) || !able(points)) return null;
      return { output: OUTPUTS[output], steps, selected, at, points };
    },
    say: ({ at, output, values: v }) => `point at ${format(at, 3)}: ${output} ${format(v.output, 3)}, predicted ${shown(v.predicted)}; rate ${format(v.rate, 3)}`,
  };
})();
