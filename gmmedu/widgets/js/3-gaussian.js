// One Gaussian in the plane: its ellipses, margins and a conditional slice.

const normal = (x, m, sd) => Math.exp(-0.5 * ((x - m) / sd) ** 2) / (sd * Math.sqrt(2 * Math.PI));

const gaussian = {
  values({ mean, covariance, point, slice }) {
    const [[a, b], [, c]] = covariance, factor = factorOf(covariance), [u, v] = whiten(point, mean, factor);
    return {
      correlation: b / Math.sqrt(a * c),
      sds: principal(covariance).sds,
      log_density: logDensity(point, mean, factor),
      mahalanobis: Math.hypot(u, v),
      conditional_mean: mean[1] + (b / a) * (slice - mean[0]),
      conditional_sd: Math.sqrt(c - (b * b) / a),
    };
  },
  actions: {},
  encode: ({ mean, covariance: [[a, b], [, c]], slice }) => [...mean, a, b, c, slice],
  decode([m, n, a, b, c, slice, ...rest], { limit }) {
    const covariance = [[a, b], [b, c]], within = [m, n, slice].every((v) => Math.abs(v) <= limit);
    if (rest.length || slice === undefined || !within || !factorOf(covariance)) return null;
    const { sds } = principal(covariance);
    return sds[1] >= 0.01 * limit && sds[0] <= limit ? { mean: [m, n], covariance, slice } : null;
  },
  say(ui) {
    const { correlation, sds } = ui.get("values");
    return `standard deviations ${format(sds[0], 3)} and ${format(sds[1], 3)}, correlation ${format(correlation, 2)}`;
  },
  build(ui) {
    const limit = ui.get("limit"), side = 0.17;
    const plane = ui.plane({
      label: ui.get("label"), x: { low: -limit, high: limit, name: "x\u2081" }, y: { low: -limit, high: limit, name: "x\u2082" },
      height: (w) => (w - 58) * (1 - side) + 50 + (w - 58) * side,
    });
    const fit = plane.fit.bind(plane);
    plane.fit = () => { // room for the marginals, above and on the right
      fit();
      const room = (plane.box.width - 58) * side;
      plane.x.end -= room;
      plane.y.end += room;
      plane.room = room;
    };
    const shape = (attributes) => plane.add("path", { fill: "none", "stroke-width": 2, ...attributes });
    const filled = shape({ fill: PALETTE[0], "fill-opacity": 0.13, stroke: PALETTE[0] }), outer = shape({ stroke: PALETTE[0] });
    const axes = shape({ stroke: PALETTE[0], "stroke-dasharray": "4 4" });
    const margins = [shape({ stroke: GREY }), shape({ stroke: GREY })], given = shape({ stroke: PALETTE[1] }), cut = shape({ stroke: PALETTE[1], "stroke-dasharray": "6 3" });
    const cross = shape({ stroke: "currentColor", "stroke-width": 1.5 });

    // Which axis is which must not change under a hand: kept here, and read anew from outside.
    let sds, angle;
    const read = () => {
      const c = ui.get("covariance"), mine = sds && covarianceOf(sds, angle);
      if (!mine || c.flat().some((v, i) => Math.abs(v - mine.flat()[i]) > 1e-12 * limit * limit)) ({ sds, angle } = principal(c));
    };
    const reach = Math.sqrt(radius2(0.95));
    const tip = (i) => {
      read();
      const mean = ui.get("mean"), way = angle + (i * Math.PI) / 2;
      return [mean[0] + reach * sds[i] * Math.cos(way), mean[1] + reach * sds[i] * Math.sin(way)];
    };
    const pull = (i) => (p) => {
      read();
      const mean = ui.get("mean"), u = p[0] - mean[0], v = p[1] - mean[1];
      sds = sds.map((s, j) => (j === i ? clip(Math.hypot(u, v) / reach, 0.01 * limit, limit) : s));
      if (Math.hypot(u, v) > 0.01 * limit) angle = Math.atan2(v, u) - (i * Math.PI) / 2;
      ui.set({ covariance: covarianceOf(sds, angle) });
    };
    const step = [limit / 40, limit / 40], pair = (p) => `${format(p[0], 3)}, ${format(p[1], 3)}`;
    const knobs = [ // the first lies below: it follows the pointer
      plane.handle({ label: "point whose density is read", at: () => ui.get("point"), move: (point) => ui.set({ point }), step, text: () => pair(ui.get("point")), shape: "none" }),
      plane.handle({ label: "conditional slice, x1", only: "x", at: () => [ui.get("slice"), -limit], move: ([x]) => ui.set({ slice: x }), step, text: () => format(ui.get("slice"), 3), color: PALETTE[1], shape: "square" }),
      plane.handle({ label: "mean", at: () => ui.get("mean"), move: (mean) => ui.set({ mean }), step, text: () => pair(ui.get("mean")), color: PALETTE[0] }),
      ...[0, 1].map((i) => plane.handle({
        label: `end of principal axis ${i + 1}`, at: () => tip(i), move: pull(i), step, color: PALETTE[0],
        text: () => `${pair(tip(i))}; standard deviation ${format(sds[i], 3)}`,
      })),
    ];
    plane.svg.addEventListener("pointermove", (event) => {
      const p = plane.at(event);
      if (event.buttons === 0 && event.pointerType === "mouse" && p.every((v) => Math.abs(v) <= limit)) ui.set({ point: p });
    });
    ui.legend([[PALETTE[0], "50 % and 95 % ellipse"], [GREY, "marginals"], [PALETTE[1], "x\u2082 given x\u2081"]]);
    ui.readout([
      ["\u03a3\u2081\u2081, \u03a3\u2081\u2082, \u03a3\u2082\u2082", () => { const [[a, b], [, c]] = ui.get("covariance"); return [a, b, c].map((v) => format(v, 3)).join(", "); }],
      ["standard deviations", (v) => v.sds.map((s) => format(s, 3)).join(", ")],
      ["correlation \u03c1", (v) => format(v.correlation, 3)],
      ["log density at the cross", (v) => format(v.log_density)],
      ["Mahalanobis distance", (v) => format(v.mahalanobis)],
      ["x\u2082 given x\u2081: mean, sd", (v) => `${format(v.conditional_mean, 3)}, ${format(v.conditional_sd, 3)}`],
    ]);
    ui.refresh.push(() => {
      read();
      const mean = ui.get("mean"), covariance = ui.get("covariance"), slice = ui.get("slice"), v = ui.get("values");
      put(filled, { d: plane.ellipse(mean, covariance, radius2(0.5)) });
      put(outer, { d: plane.ellipse(mean, covariance, radius2(0.95)) });
      put(axes, { d: [0, 1].map((i) => { const t = tip(i); return plane.path([t, [2 * mean[0] - t[0], 2 * mean[1] - t[1]]]); }).join("") });
      const wide = [0, 1].map((i) => Math.sqrt(covariance[i][i])), grid = Array.from({ length: 161 }, (_, i) => limit * (i / 80 - 1));
      const tall = 0.85 * plane.room * Math.min(...wide, v.conditional_sd) * Math.sqrt(2 * Math.PI); // of the narrowest of the three
      const line = (points) => "M" + points.map((p) => p.map((q) => q.toFixed(1)).join(" ")).join("L");
      put(margins[0], { d: line(grid.map((x) => [plane.x.at(x), plane.y.end - tall * normal(x, mean[0], wide[0])])) });
      const right = (m, s) => line(grid.map((y) => [plane.x.end + tall * normal(y, m, s), plane.y.at(y)]));
      put(margins[1], { d: right(mean[1], wide[1]) });
      put(given, { d: right(v.conditional_mean, v.conditional_sd) });
      put(cut, { d: plane.path([[slice, -limit], [slice, limit]]) });
      const [x, y] = ui.get("point"), arm = limit / 30;
      put(cross, { d: plane.path([[x - arm, y], [x + arm, y], null, [x, y - arm], [x, y + arm]]) });
      for (const place of knobs) place();
    });
  },
};
