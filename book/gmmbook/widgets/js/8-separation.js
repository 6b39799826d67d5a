// Two Gaussians of standard deviation 1, `apart` from one another, the second of weight `share`, and
// the rate of EM near the optimum: the largest share of information that is missing (eq-em-rate).

kinds.separation = (() => {
  const APART = [1, 8], SHARE = [0.01, 0.99], POINTS = 1200, REACH = 9, FALL = log(1000);
  const dot = (u, v) => sum(u, (w, i) => w * v[i]);

  /** The largest eigenvalue of a symmetric matrix without negative ones: squared until one is left. */
  function largest(matrix) {
    let power = matrix;
    for (let i = 0; i < 40; i++) {
      const size = sum(power, (row, j) => row[j]);
      power = power.map((row) => power.map((other) => dot(row, other) / size ** 2));
    }
    const v = power.reduce((best, row) => (dot(row, row) > dot(best, best) ? row : best));
    return dot(v, matrix.map((row) => dot(row, v))) / dot(v, v);
  }

  function values({ apart, share }) {
    const step = (apart + 2 * REACH) / POINTS, missing = times(5, () => Array(5).fill(0)), w = [1 - share, share];
    let doubt = 0;
    for (const x of even(POINTS, -REACH, apart + REACH)) {
      const u = x - apart, p = w[0] * normal(x, 0, 1), q = w[1] * normal(x, apart, 1), mass = (p + q) * step;
      // Gradients of a_n1 - a_n2 in the logit, the means and the log standard deviations.
      const slopes = [1, x, -u, x * x - 1, 1 - u * u], both = (p * q * step) / (p + q);
      for (let i = 0; i < 5; i++) for (let j = 0; j <= i; j++) missing[i][j] += both * slopes[i] * slopes[j];
      doubt += (mass * min(p, q)) / (p + q);
    }
    // The complete information is diagonal: the M-step finds each of the five by itself.
    const complete = [w[0] * w[1], ...w, 2 * w[0], 2 * w[1]];
    const rate = largest(times(5, (i) => times(5, (j) => missing[max(i, j)][min(i, j)] / sqrt(complete[i] * complete[j]))));
    return { rate, iterations: FALL / (-2 * log(rate)), doubt };
  }

  function build(ui) {
    const { now } = ui, [blue, red] = PALETTE;
    const above = ui.plane({
      label: "Densities of the two components", x: { low: -4, high: 12, name: "x (standard deviations)" }, y: { low: 0, high: 0.42, name: "density" },
    });
    const whole = above.curve("currentColor", 3), parts = [blue, red].map((color) => above.curve(color));
    const below = ui.plane({
      label: "Iterations of the last stretch against the separation", x: { low: APART[0], high: APART[1], name: "separation (standard deviations)" },
      y: { low: 0.3, high: 1e6, log: true, name: "iterations" },
    });
    const equal = below.curve(GRAY, 2, { "stroke-dasharray": "5 4" }), law = below.curve(PALETTE[6], 3), ask = below.ask("How many at 2? Pull them together.");
    // The curve is drawn as far as a reader has been.
    let seen = [Infinity, 0];
    ui.forget = () => { seen = [Infinity, 0]; };
    ui.legend([["currentColor", "both components"], [PALETTE[6], "iterations of EM from 1e\u22123 to 1e\u22126 nats above the lowest"], [GRAY, "at equal weights", "dashed"]]);
    above.handle({
      label: "mean of the second component", across: true, color: red, at: () => [now.apart, 0], text: () => `${format(now.apart, 3)} standard deviations off`,
      move: ([v]) => ui.set({ apart: clip(rounded(v, 3), ...APART) }),
    });
    below.handle({
      label: "separation along the curve", across: true, color: red, at: () => [now.apart, below.y.clip(now.values.iterations)],
      text: () => `${format(now.apart, 3)}; ${format(now.values.iterations, 3)} iterations`, move: ([v]) => ui.set({ apart: rounded(v, 3) }),
    });
    ui.slider({ label: "separation", name: "apart", low: APART[0], high: APART[1], step: 0.05, color: red });
    ui.slider({ label: "weight of the second", name: "share", low: SHARE[0], high: SHARE[1], step: 0.01, color: red });
    for (const [label, apart, share] of [["6 sd", 6, 0.5], ["2.2 sd", 2.2, 0.5], ["4 sd, 90/10", 4, 0.1]]) {
      ui.button(label, () => { ui.set({ apart, share }); ui.touched(true); });
    }
    ui.table(["component", "mean", "weight"], [[blue, "first", () => [0, format(1 - now.share, 2)]], [red, "second", () => [now.apart, now.share].map((v) => format(v, 3))]]);
    ui.readout([
      ["rate of EM \u03b3", (v) => format(v.rate, 4)],
      ["iterations of the last stretch", (v) => format(v.iterations, 3), PALETTE[6]],
      ["mean of the smaller responsibility", (v) => format(v.doubt, 2)],
    ]);
    const grid = even(70, ...APART), curve = ({ share }) => grid.map((apart) => [apart, values({ apart, share }).iterations]), own = kept(["share"], curve), balanced = curve({ share: 0.5 });
    const drawCurve = (path, points, shown) => put(path, { d: shown ? below.path(points.filter(([apart]) => apart >= seen[0] - 0.05 && apart <= seen[1] + 0.05)) : "" });
    ui.refresh.push(() => {
      const { apart, share } = now, xs = even(200, -4, 12), pair = [(x) => (1 - share) * normal(x, 0, 1), (x) => share * normal(x, apart, 1)];
      const draw = (path, f) => put(path, { d: above.path(xs.map((x) => [x, f(x)])) });
      pair.forEach((f, k) => draw(parts[k], f));
      draw(whole, (x) => pair[0](x) + pair[1](x));
      seen = [min(seen[0], apart), max(seen[1], apart)];
      drawCurve(equal, balanced, share !== 0.5);
      drawCurve(law, own(now), true);
      ask(seen[1] - seen[0] < 1);
    });
  }

  return {
    values, build, actions: {}, wide: "curve",
    encode: ({ apart, share }) => [apart, share],
    decode: (numbers) => (within(numbers, [APART, SHARE]) ? { apart: numbers[0], share: numbers[1] } : null),
    say: ({ apart, values: { rate, iterations } }) => `${format(apart, 3)} standard deviations apart: rate ${format(rate, 3)}, ${format(iterations, 3)} iterations`,
  };
})();
