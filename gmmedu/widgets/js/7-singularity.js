// A mixture of data on a line is held, and one more component, the needle, shrinks: its mean is
// `point`, its weight the last. Each cure says in its own way what a sigma costs.

const singularity = (() => {
  const CURES = ["none", "clamp", "prior", "tied"], MIN_SCALE = [1e-6, 1], SCATTER = [1e-6, 10];
  const PSEUDO = 5; // points that the prior adds, nu + D + 1 with nu = D + 2 (eq-map-covariance)
  const effective = ({ sigma, cure, min_scale, unit }) => Math.max(sigma, cure === "clamp" ? min_scale * unit : 0);
  const sdsOf = (state, sigma = effective(state)) => [...state.sds, sigma].map((s) => (state.cure === "tied" ? sigma : s));
  const density = ({ weights, means, point }, v, sds) => weights.reduce((sum, w, k) => sum + w * normal(v, means[k] ?? point, sds[k]), 0);
  const logJoint = (w, z, s) => Math.log(w) - 0.5 * z * z - Math.log(s) - LOG_2PI / 2;
  const rests = new WeakMap(); // log density of the held part at each point of some data

  function values(state) {
    const { x, weights, means, sds, point, sigma, cure, scatter, unit } = state, s = effective(state), n = x.length, tied = cure === "tied";
    if (!rests.has(x)) rests.set(x, x.map((v) => logSumExp(means.map((m, k) => logJoint(weights[k], (v - m) / sds[k], sds[k])))));
    const rest = rests.get(x), tops = weights.map((w) => logJoint(w, 0, s));
    let nll = 0, slope = 0, j = 0, distance = Infinity;
    x.forEach((v, i) => {
      let all = tied ? -Infinity : rest[i], steep = 0; // log density so far; its part that has sigma, its slope
      for (let k = tied ? 0 : means.length; k < tops.length; k++) {
        const z = (v - (means[k] ?? point)) / s, own = tops[k] - 0.5 * z * z, e = Math.exp(-Math.abs(own - all));
        const r = (own > all ? 1 : e) / (1 + e);
        steep = steep * (1 - r) + r * (1 - z * z);
        all = Math.max(own, all) + Math.log1p(e);
      }
      nll -= all / n;
      slope += steep / n;
      j += v === point;
      distance = Math.min(distance, Math.abs(v - point));
    });
    let objective = nll;
    if (s > sigma) slope = 0;
    if (cure === "prior") {
      const q = (PSEUDO * (s / unit) ** 2) / scatter; // sigma squared, 1 at the prior's mode
      objective += (PSEUDO * (Math.log(q) + 1 / q - 1)) / (2 * n);
      slope += (PSEUDO * (1 - 1 / q)) / n;
    }
    return { nll, objective, slope, effective_sigma: s, j, distance, peak: density(state, point, sdsOf(state)) };
  }
  const place = ({ j, distance }) => (j ? `on ${j} point${j > 1 ? "s" : ""}` : `${format(distance, 3)} off the nearest point`);

  function build(ui) {
    const now = new Proxy({}, { get: (_, name) => ui.get(name) }), few = (v) => format(v, 3), color = PALETTE[1];
    const { x, weights, limits: [narrowest, widest], span: [left, right], heights: [bottom, top] } = now;
    const share = weights.at(-1), peak = (s, w = share) => w * normal(0, 0, s), ground = 3e-4 / widest, height = (w) => clip(0.4 * w, 230, 300);
    const line = (plane, stroke, width) => plane.add("path", { fill: "none", stroke, "stroke-width": width });

    const above = ui.plane({
      label: "Density over the data", height, x: { low: left, high: right, name: now.axis_label },
      y: { low: ground, high: 2 * peak(narrowest), name: "density", log: true },
    });
    const rug = line(above, GREY, 1.2), mixture = line(above, PALETTE[0], 4), needle = line(above, color, 1.8);
    const below = ui.plane({
      label: "Objective against sigma", height, x: { low: widest, high: narrowest, name: "standard deviation \u03c3 of the needle", log: true },
      y: { low: bottom, high: top, name: "objective (nats)" }, margin: { right: 24 },
    });
    const bare = line(below, GREY, 1.5), cured = line(below, PALETTE[0], 3);
    ui.legend([[PALETTE[0], "thick: mixture; objective with the cure"], [color, "needle"], [GREY, "ticks: data; thin: objective without cure"]]);

    const round = (v, low, high) => clip(Number(v.toPrecision(4)), low, high), step = 10 ** Math.floor(Math.log10((right - left) / 2000));
    const knobs = [
      above.handle({
        label: "mean of the needle", only: "x", step: [step, 0], color, shape: "square", text: () => `${format(now.point, 5)}, ${place(now.values)}`,
        at: () => [now.point, ground], move: ([v]) => ui.set({ point: clip(Number((Math.round(v / step) * step).toPrecision(12)), left, right) }),
      }),
      below.handle({
        label: "sigma", only: "x", step: [0.1, 0], color, text: () => `${few(now.sigma)}, objective ${format(now.values.objective)}`,
        at: () => [now.sigma, below.y.clip(now.values.objective)], move: ([v]) => ui.set({ sigma: round(v, narrowest, widest) }),
      }),
    ];
    const slider = (label, name, from, to) => { // logarithmic: in shares of the way
      const of = (v) => Math.log(v / from) / Math.log(to / from);
      ui.slider({ label, name, min: 0, max: 1, step: 0.004, text: few, of, from: (u) => round(from * (to / from) ** u, Math.min(from, to), Math.max(from, to)) });
      return ui.controls.lastChild;
    };
    slider("\u03c3", "sigma", widest, narrowest);
    ui.button("Onto the nearest point", () => ui.act("snap"));
    ui.button("Half-way between two", () => ui.act("halfway"));
    ui.choice({ label: "cure", name: "cure", options: CURES.map((cure) => [cure, cure]) });
    const settings = { clamp: slider("floor (sds)", "min_scale", ...MIN_SCALE), prior: slider("scatter", "scatter", ...SCATTER) }, slot = html("span");
    slot.append(settings.clamp, settings.prior); // shows the setting of the cure that is on
    ui.controls.append(slot);
    ui.readout([
      ["\u03c3 in effect", (v) => few(v.effective_sigma)],
      ["mean NLL f (nats)", (v) => format(v.nll, 5)],
      ["objective (nats)", (v) => format(v.objective, 5)],
      ["its slope in log \u03c3", (v) => few(v.slope)],
      ["j / N", ({ j }) => `${j} / ${x.length} = ${few(j / x.length)}`],
      ["nearest point, off by", (v) => few(v.distance)],
      ["density at the mean", (v) => few(v.peak)],
    ]);

    const even = (n, from, to) => Array.from({ length: n + 1 }, (_, i) => from + ((to - from) * i) / n);
    const widths = even(180, 0, 1).map((u) => widest * (narrowest / widest) ** u);
    let drawn, shown;
    function drawCurves() { // only where something but sigma is new
      const key = [now.point, now.cure, now.min_scale, now.scatter, below.box.width].join();
      if (key === drawn) return;
      drawn = key;
      const trace = (change) => { // what has climbed far out of the plane does not come back
        const points = [];
        for (const sigma of widths) {
          const f = values({ __proto__: now, ...change, sigma }).objective, before = points.at(-1)?.[1];
          points.push([sigma, f]);
          if (f > before && f > 2 * top - bottom) break;
        }
        return { d: below.path(points) };
      };
      put(bare, trace({ cure: "none" }));
      put(cured, trace());
      put(rug, { d: x.map((v, n) => `M${above.x.at(v).toFixed(1)} ${above.y.start}v${-10 - 2 * Math.min(n - x.indexOf(v), 15)}`).join("") });
      if (now.cure !== shown) slot.replaceChildren(settings[(shown = now.cure)] ?? "");
    }
    ui.refresh.push(() => {
      drawCurves();
      const { point, means } = now, sds = sdsOf(now);
      // Each component has a grid of its own, as far out as it is seen: an even one steps over a needle.
      const grids = sds.map((s, k) => {
        const m = means[k] ?? point, reach = s * Math.sqrt(2 * Math.log(Math.max(peak(s, weights[k]) / ground, 1)));
        return even(60, m - reach, m + reach).filter((v) => v >= left && v <= right);
      });
      const path = (grid, f) => ({ d: above.path(grid.map((v) => [v, Math.max(f(v), ground)])) });
      put(mixture, path([...grids.flat(), ...even(200, left, right)].sort((a, b) => a - b), (v) => density(now, v, sds)));
      put(needle, path(grids.at(-1), (v) => share * normal(v, point, sds.at(-1))));
      for (const move of knobs) move();
    });
  }

  return {
    values, build,
    actions: {
      snap: ({ x, point }) => ({ point: x.reduce((best, v) => (Math.abs(v - point) < Math.abs(best - point) ? v : best)) }),
      halfway({ x, point }) { // x is sorted
        const u = [...new Set(x)], i = clip(u.filter((v) => v <= point).length, 1, u.length - 1);
        return { point: (u[i - 1] + u[i]) / 2 };
      },
    },
    // The place of the mean in its span: six digits of it tell a data point from what is beside it.
    encode: ({ point, span: [a, b], sigma, cure, min_scale, scatter }) => [(point - a) / (b - a), sigma, CURES.indexOf(cure), min_scale, scatter],
    decode(numbers, { x, limits, span: [a, b] }) {
      const ranges = [[0, 1], limits, [0, 3], MIN_SCALE, SCATTER], [u, sigma, cure, min_scale, scatter] = numbers;
      if (numbers.length !== 5 || !Number.isInteger(cure) || numbers.some((v, i) => v !== clip(v, ...ranges[i]))) return null;
      const same = x.find((v) => Number(((v - a) / (b - a)).toPrecision(6)) === u);
      return { point: same ?? clip(a + u * (b - a), a, b), sigma, cure: CURES[cure], min_scale, scatter };
    },
    say(ui) {
      const v = ui.get("values");
      return `sigma ${format(ui.get("sigma"), 2)}, the mean ${place(v)}: objective ${format(v.objective)} nats, slope ${format(v.slope, 2)}`;
    },
  };
})();
