// A network of tanh layers whose last outputs are the numbers of a mixture: p(t | x) at one x, and
// what one target says to it.

kinds.density = (() => {
  const RANGE = [-0.1, 1.1], SPAN = [-0.1, 1.1], HIGHEST = 10;
  const layer = (h, [weight, bias]) => weight.map((row, i) => bias[i] + sum(row, (w, j) => w * h[j]));
  const softplus = (v) => max(v, 0) + Math.log1p(exp(-abs(v)));

  /** Weights, means and standard deviations at x. */
  function mixtureAt({ layers, center, scale, floor }, x) {
    const last = layers.length - 1, h = layers.slice(0, last).reduce((values, own) => layer(values, own).map(Math.tanh), [x]);
    const outputs = layer(h, layers[last]), k = outputs.length / 3;
    return {
      weights: softmax(outputs.slice(0, k)), means: outputs.slice(k, 2 * k).map((v) => center + scale * v),
      sds: outputs.slice(2 * k).map((v) => scale * (floor + softplus(v))),
    };
  }
  const densityAt = ({ weights, means, sds }, t) => sum(weights, (w, k) => w * normal(t, means[k], sds[k]));
  /** Where ascent from a component's mean ends: where precisions balance, or by Newton's step, whichever is higher. */
  function climb(mixture, t) {
    const { weights, means, sds } = mixture;
    for (let i = 0, height = densityAt(mixture, t); i < 200; i++) {
      const r = weights.map((w, k) => (w * normal(t, means[k], sds[k])) / height), pulls = means.map((m, k) => (m - t) / sds[k] ** 2);
      const slope = sum(r, (v, k) => v * pulls[k]), balance = sum(r, (v, k) => v / sds[k] ** 2), bend = balance - sum(r, (v, k) => v * pulls[k] ** 2) + slope ** 2;
      const [best, top] = [balance, bend].map((b) => [t + slope / b, densityAt(mixture, t + slope / b)]).reduce((a, b) => (b[1] > a[1] ? b : a));
      if (!(top > height)) break;
      [t, height] = [best, top];
    }
    return t;
  }
  function values({ at, target, network }) {
    const mixture = mixtureAt(network, at), { weights, means, sds } = mixture, mean = sum(weights, (w, k) => w * means[k]);
    const mode = means.map((m) => climb(mixture, m)).reduce((a, b) => (densityAt(mixture, b) > densityAt(mixture, a) ? b : a));
    const joint = weights.map((w, k) => log(w) - 0.5 * ((target - means[k]) / sds[k]) ** 2 - log(sds[k]) - LOG_2PI / 2), all = logSumExp(joint);
    return { ...mixture, mean, nll: -all, responsibilities: softmax(joint, all), sd: sqrt(sum(weights, (w, k) => w * (sds[k] ** 2 + (means[k] - mean) ** 2))), mode, height: densityAt(mixture, mode) };
  }

  function build(ui) {
    const { now } = ui, red = PALETTE[1], mean = PALETTE[6], mode = PALETTE[7], components = now.values.means.map((_, k) => colorOf(k));
    const left = ui.plane({
      label: "Points, and mean and mode of the target against the input", x: { low: RANGE[0], high: RANGE[1], name: "input x" }, y: { low: SPAN[0], high: SPAN[1], name: "target t" },
    });
    const dots = left.curve(GRAY, 4, { "stroke-linecap": "round", "stroke-opacity": 0.5 }), line = left.curve(red, 1.5, { "stroke-dasharray": "5 4" });
    const curves = [mean, mode].map((color, i) => left.curve(color, 3, i ? { "stroke-linecap": "round" } : {}));
    const right = ui.plane({ label: "Density of the target at this input", x: { low: SPAN[0], high: SPAN[1], name: "target t" }, y: { low: 0, high: HIGHEST, name: "p(t | x)" } });
    const parts = components.map((color) => right.curve(color, 2, {}, right.inside)), whole = right.curve("currentColor", 3, {}, right.inside);
    const marks = [mean, mode].map((color) => right.curve(color, 2.5, { "stroke-dasharray": "2 3" }));
    const ask = right.ask("Where is the mean at x = 0.35?");
    // The curves are drawn as far as a reader has been.
    let seen = [Infinity, -Infinity];
    ui.forget = () => { seen = [Infinity, -Infinity]; };
    ui.legend([["currentColor", "p(t | x)"], [mean, "mean"], [mode, "mode"], [GRAY, "points", "dot"]]);
    left.handle({
      label: "input x", across: true, color: red, at: () => [now.at, SPAN[0]], text: () => `${format(now.at, 3)}; mean ${format(now.values.mean, 3)}, mode ${format(now.values.mode, 3)}`,
      move: ([v]) => ui.set({ at: clip(rounded(v, 3), ...RANGE) }),
    });
    right.handle({
      label: "target t", across: true, color: GRAY, shape: "square", at: () => [now.target, 0], text: () => `${format(now.target, 3)}; loss ${format(now.values.nll, 3)}`,
      move: ([v]) => ui.set({ target: clip(rounded(v, 3), ...SPAN) }),
    });
    ui.slider({ label: "x", name: "at", low: RANGE[0], high: RANGE[1], step: 0.005, color: red });
    for (const at of [0.2, 0.35, 0.5, 1.1]) ui.button(`x = ${at}`, () => { ui.set({ at }); ui.touched(true); });
    ui.table(["component", "weight", "mean", "sd", "has made t"], components.map((color, k) => [color, `${k + 1}`, ({ weights, means, sds, responsibilities: r }) => [weights, means, sds, r].map((all) => format(abs(all[k]) < 5e-4 ? 0 : all[k], 2))]));
    ui.readout([
      ["mean of t", (v) => format(v.mean, 3), mean],
      ["mode of t", (v) => format(v.mode, 3), mode],
      ["standard deviation of t", (v) => format(v.sd, 3)],
      ["density at the mode", (v) => format(v.height, 3)],
      ["loss of the target (nats)", (v) => format(v.nll, 3)],
    ]);
    const grid = even(120, ...RANGE), along = grid.map((at) => [at, values({ at, target: 0, network: now.network })]);
    const place = kept(["box"], () => put(dots, { d: now.points.map((p) => `${left.path([p])}h0`).join("") }));
    ui.refresh.push(() => {
      const { at, values: v } = now, ts = even(240, ...SPAN);
      place({ box: left.box });
      put(line, { d: left.path([[at, SPAN[0]], [at, SPAN[1]]]) });
      seen = [min(seen[0], at), max(seen[1], at)];
      const been = along.filter(([x]) => x >= seen[0] - 0.006 && x <= seen[1] + 0.006);
      put(curves[0], { d: been.length ? left.path(been.map(([x, own]) => [x, own.mean])) : "" });
      // The mode jumps, so it is no line.
      put(curves[1], { d: been.map(([x, own]) => `${left.path([[x, own.mode]])}h.01`).join("") });
      ask(seen[1] - seen[0] < 0.1);
      const draw = (path, f) => put(path, { d: right.path(ts.map((t) => [t, min(f(t), 2 * HIGHEST)])) });
      parts.forEach((path, k) => draw(path, (t) => v.weights[k] * normal(t, v.means[k], v.sds[k])));
      draw(whole, (t) => densityAt(v, t));
      [v.mean, v.mode].forEach((t, i) => put(marks[i], { d: right.path([[t, 0], [t, HIGHEST]]) }));
    });
  }

  return {
    values, build, actions: {}, wide: "curve",
    encode: ({ at, target }) => [at, target],
    decode: (numbers) => (within(numbers, [RANGE, SPAN]) ? { at: numbers[0], target: numbers[1] } : null),
    say: ({ at, values: { mean, mode, nll } }) => `x ${format(at, 3)}: mean ${format(mean, 3)}, mode ${format(mode, 3)}; loss of the target ${format(nll, 3)}`,
  };
})();
