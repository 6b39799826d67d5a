// Points arrive in batches: EM that steps once after each and forgets, beside EM that keeps them all.

kinds.stream = (() => {
  const STREAMS = ["steady", "shift", "bad start"], ALPHA = [0.51, 1], BATCHES = 60, SIZE = 10, PASSES = 20, OFFSET = 2, FLOOR = 0.2;
  const startOf = (stream) => ({ weights: [0.5, 0.5], means: stream === "bad start" ? [-4, -3] : [-1, 1], sds: [1, 1] });
  const truthOf = (stream, batch) => ({ weights: [0.4, 0.6], means: [-2, stream === "shift" && batch > BATCHES / 2 ? 4.5 : 2], sds: [0.8, 0.8] });
  /** The points of the first so many batches. */
  const pointsOf = ({ points, stream }, batches) => points[stream === "shift" ? 1 : 0].slice(0, SIZE * batches);
  const stepSize = (batch, alpha) => (batch + OFFSET) ** -alpha;

  /** Mean statistics of points: of both components the counts, the sums and the sums of squares. */
  function count(points, { weights: [v, w], means: [m, n], sds: [s, t] }) {
    const total = Array(6).fill(0), prior = log((v * t) / (w * s));
    for (const x of points) {
      const r = 1 / (1 + exp(prior + (((x - n) / t) ** 2 - ((x - m) / s) ** 2) / 2));
      [1 - r, r].forEach((share, k) => { total[k] += share; total[k + 2] += share * x; total[k + 4] += share * x * x; });
    }
    return total.map((u) => u / points.length);
  }
  /** What they are on average where points come from the mixture itself. */
  const own = ({ weights, means, sds }) => [...weights, ...weights.map((w, k) => w * means[k]), ...weights.map((w, k) => w * (means[k] ** 2 + sds[k] ** 2))];
  function mStep(s) {
    const means = [s[2] / s[0], s[3] / s[1]];
    return { weights: s.slice(0, 2), means, sds: means.map((m, k) => sqrt(max(s[4 + k] / s[k] - m * m, FLOOR ** 2))) };
  }
  /** The start and what next(mixture, batch) makes of it, batch after batch. */
  const roadOf = (mixture, next) => [mixture, ...times(BATCHES, (i) => (mixture = next(mixture, i + 1)))];
  const exact = kept(["points", "stream"], (state) => roadOf(startOf(state.stream), (mixture, batch) => {
    const points = pointsOf(state, batch);
    for (let i = 0; i < PASSES; i++) mixture = mStep(count(points, mixture));
    return mixture;
  }));
  const stepwise = kept(["points", "stream", "alpha"], (state) => {
    const start = startOf(state.stream);
    let s = own(start);
    return roadOf(start, (mixture, batch) => {
      const fresh = count(pointsOf(state, batch).slice(-SIZE), mixture), step = stepSize(batch, state.alpha);
      s = s.map((v, i) => v + step * (fresh[i] - v));
      return mStep(s);
    });
  });
  const logJoint = ({ weights, means, sds }, x) => weights.map((w, k) => log(w / sds[k]) - ((x - means[k]) / sds[k]) ** 2 / 2 - LOG_2PI / 2);
  /** What the mean NLL of endless fresh points has above that of the truth. */
  const excess = (mixture, truth) => sum(even(440, -10, 12), (x) => {
    const own = logSumExp(logJoint(truth, x));
    return exp(own) * (own - logSumExp(logJoint(mixture, x))) / 20;
  });

  function values(state) {
    const { stream, alpha, arrived } = state, truth = truthOf(stream, arrived), steps = times(arrived, (i) => stepSize(i + 1, alpha));
    // Of each batch the part that the later ones have left of it.
    let left = 1;
    const shares = [...steps].reverse().map((step) => { const share = left * step; left *= 1 - step; return share; });
    const shown = (road) => ({ ...road[arrived], excess: excess(road[arrived], truth), road: road.slice(0, arrived + 1).map(({ means }) => means) });
    return {
      exact: { ...shown(exact(state)), read: (PASSES * SIZE * arrived * (arrived + 1)) / 2 }, stepwise: { ...shown(stepwise(state)), read: SIZE * arrived },
      step: steps.at(-1), start: left, first: shares.at(-1), remembered: (SIZE * sum(shares) ** 2) / sum(shares, (v) => v * v),
    };
  }

  function build(ui) {
    const { now } = ui, [blue, red] = PALETTE, [low, high] = [-5, 8], fits = [["exact", blue], ["stepwise", red]];
    const above = ui.plane({ label: "Points so far, and densities", x: { low, high, name: "x" }, y: { low: 0, high: 0.45, name: "density" } });
    const bars = above.curve(GRAY, 1, { fill: GRAY, "fill-opacity": 0.2 }, above.inside), rug = above.curve(GRAY, 1.5);
    const below = ui.plane({
      label: "Means against the number of batches", x: { low: 0, high: BATCHES, step: 1, name: "batches of 10 points" }, y: { low, high: 6, name: "means" },
    });
    const dashes = { "stroke-dasharray": "5 4" }, truths = [above, below].map((plane) => plane.curve("currentColor", 1.5, dashes, plane.inside));
    const curves = fits.map(([, color]) => [above, below].map((plane) => plane.curve(color, 3, {}, plane.inside))), ask = below.ask(`Which is nearer after 60? Press ${toEnd()}.`);
    ui.legend([[blue, `exact EM, ${PASSES} passes over all so far`], [red, "stepwise EM, a step a batch"], ["currentColor", "truth", "dashed"], [GRAY, "points so far; ticks: last batch", "dot"]]);
    const go = (v) => ui.set({ arrived: clip(round(v), 1, BATCHES) });
    below.handle({
      label: "batches that have arrived", across: true, shape: "square", at: () => [now.arrived, low], move: ([v]) => go(v),
      text: () => `${now.arrived}; means exact ${list(now.values.exact.means, 3)}, stepwise ${list(now.values.stepwise.means, 3)}`,
    });
    ui.slider({ label: "batches", name: "arrived", low: 1, high: BATCHES, step: 1 });
    ui.play({
      label: toEnd(), stop: "Pause", wait: () => 120, jump: () => go(BATCHES), begin() { if (now.arrived === BATCHES) go(1); },
      step() { const more = now.arrived < BATCHES; if (more) go(now.arrived + 1); return more; },
    });
    ui.slider({ label: "exponent \u03b1", name: "alpha", low: ALPHA[0], high: ALPHA[1], step: 0.01, color: red });
    // Each is a state that surprises.
    [["Steady", 0.6], ["Shift", 0.6], ["Bad start", 1]].forEach(([label, alpha], i) => {
      const stream = STREAMS[i], button = ui.button(label, () => { ui.set({ stream, alpha, arrived: BATCHES }); ui.touched(true); });
      ui.refresh.push(() => put(button, { "aria-pressed": now.stream === stream, style: now.stream === stream ? "box-shadow:inset 0 0 0 1px" : "" }));
    });
    ui.table(["EM", "means", "nats above truth", "points read"], fits.map(([name, color]) => [
      color, name, ({ [name]: fit }) => [fit.means.map((m) => m.toFixed(2)).join(", ").replace(/-/g, "\u2212"), format(fit.excess, 2), fit.read],
    ]));
    ui.values.style.alignItems = "start";
    const percent = (share) => `${format(100 * share, 2)} %`;
    ui.readout([
      ["step size", (v) => format(v.step, 2), red],
      ["weight of the start", (v) => percent(v.start), red],
      ["weight of batch 1", (v) => percent(v.first), red],
      ["points remembered", (v) => format(v.remembered, 3), red],
    ]);
    const grid = even(260, low, high), drawPoints = kept(["stream", "arrived", "box"], ({ stream, arrived }) => {
      const points = pointsOf({ points: now.points, stream }, arrived), wide = 0.5;
      put(bars, { d: times((high - low) / wide, (i) => {
        const left = low + i * wide, tall = points.filter((v) => v >= left && v < left + wide).length / points.length / wide;
        return `${above.path([[left, 0], [left, tall], [left + wide, tall], [left + wide, 0]])}Z`;
      }).join("") });
      put(rug, { d: points.slice(-SIZE).map((v) => `M${above.x.at(v).toFixed(1)} ${above.y.start}v-12`).join("") });
    });
    ui.refresh.push(() => {
      const { stream, arrived, values: v } = now, density = (mixture) => above.path(grid.map((x) => [x, exp(logSumExp(logJoint(mixture, x)))]));
      const along = (plane, road, k) => plane.path(road.map((means, batch) => [batch, means[k]]));
      drawPoints({ stream, arrived, box: above.box });
      put(truths[0], { d: density(truthOf(stream, arrived)) });
      const truth = times(arrived + 1, (batch) => truthOf(stream, batch).means);
      put(truths[1], { d: along(below, truth, 0) + along(below, truth, 1) });
      fits.forEach(([name], i) => {
        put(curves[i][0], { d: density(v[name]) });
        put(curves[i][1], { d: along(below, v[name].road, 0) + along(below, v[name].road, 1) });
      });
      ask(arrived < 10);
    });
  }

  return {
    values, build, actions: {}, wide: "curve",
    encode: ({ arrived, alpha, stream }) => [arrived, alpha, STREAMS.indexOf(stream)],
    decode: (numbers) => (within(numbers, [[1, BATCHES, true], ALPHA, [0, 2, true]]) ? { arrived: numbers[0], alpha: numbers[1], stream: STREAMS[numbers[2]] } : null),
    say: ({ arrived, values: { exact: a, stepwise: b } }) => `${arrived} batches: nats above the truth, exact ${format(a.excess, 2)}, stepwise ${format(b.excess, 2)}`,
  };
})();
