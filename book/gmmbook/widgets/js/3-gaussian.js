// One Gaussian in the plane: its ellipses, margins and a conditional slice.

kinds.gaussian = {
  wide: "values",
  values({ mean, covariance, point, slice }) {
    const [[a, b], [, c]] = covariance, factor = factorOf(covariance);
    return {
      correlation: b / sqrt(a * c),
      sds: principal(covariance).sds,
      log_density: logDensity(point, mean, factor),
      mahalanobis: hypot(...whiten(point, mean, factor)),
      conditional_mean: mean[1] + (b / a) * (slice - mean[0]),
      conditional_sd: sqrt(c - (b * b) / a),
    };
  },
  actions: {},
  encode: ({ mean, covariance: [[a, b], [, c]], slice, point }) => [...mean, a, b, c, slice, ...point],
  decode(numbers, { limit }) {
    const [m, n, a, b, c, slice, u, v] = numbers, covariance = [[a, b], [b, c]], place = [-limit, limit];
    // A thin one that lies aslant is thinner than its handles allow, and a link rounds.
    const size = [5e-4 * limit, 1.5 * limit];
    const fits = numbers.length === 8 && factorOf(covariance) && within([m, n, slice, u, v, ...principal(covariance).sds], [...Array(5).fill(place), size, size]);
    return fits ? { mean: [m, n], covariance, slice, point: [u, v] } : null;
  },
  say: ({ values: { sds, correlation } }) => `standard deviations ${list(sds, 3)}; correlation ${format(zeroed(correlation), 2)}`,
  build(ui) {
    const { now } = ui, { label, limit } = now, axis = (name) => ({ low: -limit, high: limit, name });
    // Room for the marginals, above and on the right.
    const room = (w) => 0.17 * (w - 62), margin = (w) => ({ top: 8 + room(w), right: 14 + room(w) });
    const plane = ui.plane({ label, x: axis("x\u2081"), y: axis("x\u2082"), height: (w) => w - 12, margin });
    const [blue, red] = PALETTE;
    const ellipses = plane.component(blue), cross = plane.curve("currentColor");
    const above = plane.curve(GRAY), beside = plane.curve(GRAY), given = plane.curve(red, 2, { "stroke-dasharray": "6 3" }), cut = plane.curve(red, 2, { "stroke-dasharray": "6 3" });

    // The first lies below: it follows the pointer.
    plane.handle({ label: "point whose density is read", at: () => now.point, move: (point) => ui.set({ point }), text: () => `${list(now.point, 3)}; log density ${format(now.values.log_density)}`, shape: "none" });
    plane.handle({
      label: "conditional slice, x1", across: true, at: () => [now.slice, -limit], move: ([slice]) => ui.set({ slice }),
      text: () => `${format(now.slice, 3)}; x2 then: mean ${format(now.values.conditional_mean, 3)}, sd ${format(now.values.conditional_sd, 3)}`, color: red, shape: "square",
    });
    plane.handle({ label: "mean", at: () => now.mean, move: (mean) => ui.set({ mean }), text: () => list(now.mean, 3), color: blue });
    plane.handleAxes({
      get: () => [now.mean, now.covariance, blue], set: (covariance) => ui.set({ covariance }), label: (i) => `end of principal axis ${i}`,
    });
    const read = (event) => {
      const point = plane.units(plane.pixels(event));
      if (point.every((v) => abs(v) <= limit)) ui.set({ point });
    };
    plane.svg.addEventListener("pointermove", (event) => {
      if (event.buttons || event.pointerType !== "mouse") return;
      ui.passing = true;
      read(event);
    });
    // A finger does not hover.
    plane.svg.addEventListener("click", (event) => { if (!event.target.closest(".gm-handle")) { read(event); ui.touched(true); } });
    ui.slider({
      label: "correlation \u03c1", low: -0.99, high: 0.99, step: 0.01, color: blue, get() { const [[a, b], [, c]] = now.covariance; return zeroed(b / sqrt(a * c)); },
      set(rho) { const [[a], [, c]] = now.covariance, b = rho * sqrt(a * c); ui.set({ covariance: [[a, b], [b, c]] }); },
    });
    ui.slider({ label: "given x\u2081", name: "slice", low: -limit, high: limit, step: limit / 80, color: red });
    ui.legend([[blue, "50 % and 95 % ellipse"], [GRAY, "marginals"], [red, "x\u2082 given x\u2081", "dashed"]]);
    const sd = (d) => sqrt(now.covariance[d][d]), pair = (mean, sd) => [mean, sd].map((v) => format(v, 3));
    ui.table(["curve", "mean", "sd"], [
      [GRAY, "x\u2081", () => pair(now.mean[0], sd(0))],
      [GRAY, "x\u2082", () => pair(now.mean[1], sd(1))],
      [red, "x\u2082 given x\u2081", (v) => pair(v.conditional_mean, v.conditional_sd)],
    ]);
    ui.readout([
      ["sds along the axes", (v) => list(v.sds, 3), blue],
      ["covariance \u03a3\u2081\u2082", () => { const [[a, b], [, c]] = now.covariance; return format(zeroed(b, sqrt(a * c)), 3); }],
      ["cross at", () => list(now.point, 3)],
      ["log density there", (v) => format(v.log_density)],
      ["Mahalanobis distance", (v) => format(v.mahalanobis)],
    ]);
    ui.refresh.push(() => {
      const { mean: [m, n], covariance, slice, point, values: { conditional_mean, conditional_sd } } = now, { x, y } = plane;
      const [s, t] = [0, 1].map((d) => sqrt(covariance[d][d])), grid = even(160, -limit, limit);
      // Room for the narrowest of the three, on a scale that changes only by doubling.
      const tall = 0.85 * room(plane.box.width) / 2 ** Math.ceil(Math.log2(normal(0, 0, min(s, t, conditional_sd))));
      const right = (mean, sd) => ({ d: trace(grid.map((v) => [x.end + tall * normal(v, mean, sd), y.at(v)])) });
      ellipses(now.mean, covariance);
      put(above, { d: trace(grid.map((v) => [x.at(v), y.end - tall * normal(v, m, s)])) });
      put(beside, right(n, t));
      put(given, right(conditional_mean, conditional_sd));
      put(cut, { d: plane.path([[slice, -limit], [slice, limit]]) });
      put(cross, { d: plane.cross(point) });
    });
  },
};
