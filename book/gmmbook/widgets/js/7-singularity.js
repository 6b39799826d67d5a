// A mixture of data on a line is held, and one more component, the needle, shrinks: its mean is
// `point`, its weight the last. Each cure says in its own way what a sigma costs.

kinds.singularity = (() => {
  const CURES = ["none", "clamp", "prior", "tied"], MIN_SCALE = [1e-6, 1], SCATTER = [1e-6, 10];
  // Points that the prior adds, nu + D + 1 with nu = D + 2 (eq-map-covariance).
  const PSEUDO = 5;
  const effective = ({ sigma, cure, min_scale, unit }) => max(sigma, cure === "clamp" ? min_scale * unit : 0);
  const sdsOf = (state) => [...state.sds, 0].map((s) => (s && state.cure !== "tied" ? s : effective(state)));
  const density = ({ weights, means, point }, v, sds) => sum(weights, (w, k) => w * normal(v, means[k] ?? point, sds[k]));
  const logJoint = (w, z, s) => log(w) - 0.5 * z * z - log(s) - LOG_2PI / 2;
  const rest = kept(["x", "weights", "means", "sds"], ({ x, weights, means, sds }) => x.map((v) => logSumExp(means.map((m, k) => logJoint(weights[k], (v - m) / sds[k], sds[k])))));

  function values(state) {
    const { x, weights, means, point, sigma, cure, scatter, unit } = state, s = effective(state), n = x.length, tied = cure === "tied";
    const held = rest(state), tops = weights.map((w) => logJoint(w, 0, s));
    let nll = 0, slope = 0;
    x.forEach((v, i) => {
      // The log density so far, and the slope of its part that has sigma.
      let all = tied ? -Infinity : held[i], steep = 0;
      for (let k = tied ? 0 : means.length; k < tops.length; k++) {
        const z = (v - (means[k] ?? point)) / s, own = tops[k] - 0.5 * z * z, e = exp(-abs(own - all)), r = (own > all ? 1 : e) / (1 + e);
        steep = steep * (1 - r) + r * (1 - z * z);
        all = max(own, all) + Math.log1p(e);
      }
      nll -= all / n;
      slope += steep / n;
    });
    let objective = nll;
    if (s > sigma) slope = 0;
    if (cure === "prior") {
      // Sigma squared, 1 at the mode of the prior.
      const q = (PSEUDO * (s / unit) ** 2) / scatter;
      objective += (PSEUDO * (log(q) + 1 / q - 1)) / (2 * n);
      slope += (PSEUDO * (1 - 1 / q)) / n;
    }
    const off = x.map((v) => abs(v - point));
    return { nll, objective, slope, effective_sigma: s, j: off.filter((d) => d === 0).length, distance: min(...off), peak: density(state, point, sdsOf(state)) };
  }
  const place = ({ j, distance }) => (j ? `on ${j} point${j > 1 ? "s" : ""}` : `${format(distance, 3)} off the nearest point`);

  function build(ui) {
    const { now } = ui, { x, weights, limits: [narrowest, widest], span: [left, right], heights: [bottom, top], axis_label } = now;
    const [blue, red] = PALETTE, few = (v) => format(v, 3), step = 10 ** floor(log10((right - left) / 2000));
    const share = weights.at(-1), peak = (s, w = share) => w * normal(0, 0, s), ground = 3e-4 / widest;
    const above = ui.plane({
      label: "Density over the data", x: { low: left, high: right, step, name: axis_label },
      y: { low: ground, high: 1, name: "density", log: true },
    });
    const rug = above.curve(GRAY, 1.2), mixture = above.curve(blue, 3.5), needle = above.curve(red);
    const below = ui.plane({
      label: "Objective against sigma", x: { low: widest, high: narrowest, name: "\u03c3 of the needle, narrower to the right", log: true },
      y: { low: bottom, high: top, name: "objective (nats)" }, margin: () => ({ right: 24 }),
    });
    const beyond = below.front.appendChild(svg("text", { class: "gm-text" })), ask = below.ask("Level, or lower and lower? Pull \u03c3.");
    const bare = below.curve(GRAY, 2, {}, below.inside), cured = below.curve(PALETTE[6], 3.5, {}, below.inside);
    // The narrowest so far: the objective is drawn as far as a reader has been.
    let seen = Infinity;
    ui.forget = () => { seen = Infinity; };
    ui.legend([[blue, "mixture"], [red, "needle"], [PALETTE[6], "objective"], [GRAY, "without the cure; ticks: data", "thin"]]);

    above.handle({
      label: "mean of the needle", across: true, color: red, shape: "square", text: () => `${format(now.point, 5)}, ${place(now.values)}`,
      at: () => [now.point, ground], move: ([v]) => ui.set({ point: clip(rounded(round(v / step) * step, 12), left, right) }),
    });
    below.handle({
      label: "sigma", across: true, color: red, text: () => `${few(now.sigma)}, objective ${format(now.values.objective)}`,
      at: () => [now.sigma, below.y.clip(now.values.objective)], move: ([v]) => ui.set({ sigma: below.x.clip(rounded(v, 4)) }),
    });
    const slider = (label, name, [low, high], color) => ui.slider({ label, name, low, high, log: true, color });
    slider("\u03c3", "sigma", [widest, narrowest], red);
    ui.choice({ label: "cure", name: "cure", options: CURES });
    // Shows the setting of the cure that is on.
    const settings = { clamp: slider("floor (sds of the data)", "min_scale", MIN_SCALE), prior: slider("scatter (of the data)", "scatter", SCATTER) };
    const slot = ui.controls.appendChild(html("span", {}, ...Object.values(settings)));
    ui.action("Onto a point", "snap");
    ui.action("Half-way", "halfway");
    ui.button("A step beside", () => { ui.set({ point: clip(rounded(now.point + step, 12), left, right) }); ui.touched(true); });
    const showSetting = kept(["cure"], ({ cure }) => slot.replaceChildren(settings[cure] ?? ""));
    ui.readout([
      ["mean of the needle", () => format(now.point, 5), red],
      ["\u03c3 in effect", (v) => few(v.effective_sigma), red],
      ["mean NLL f (nats)", (v) => format(v.nll, 5)],
      ["objective (nats)", (v) => format(v.objective, 5), PALETTE[6]],
      ["its slope in log \u03c3", (v) => few(zeroed(v.slope)), PALETTE[6]],
      ["j / N", ({ j }) => `${j} / ${x.length} = ${few(j / x.length)}`],
      ["nearest point, off by", (v) => few(v.distance)],
      ["mixture at needle", (v) => few(v.peak), blue],
    ]);

    const widths = even(180, 0, 1).map((u) => widest * (narrowest / widest) ** u);
    // Only where something but sigma is new; what is far out of the plane stays just out of it.
    const objective = (change) => widths.map((sigma) => [sigma, min(values({ __proto__: now, ...change, sigma }).objective, 2 * top - bottom)]);
    const objectives = kept(["point", "cure", "min_scale", "scatter"], () => [objective({ cure: "none" }), objective()]);
    const drawCurves = kept(["curves", "seen", "box"], ({ curves }) => {
      [bare, cured].forEach((path, i) => put(path, { d: below.path(curves[i].filter(([sigma]) => sigma >= seen * 0.999)) }));
      ask(seen > 0.1 * widest);
    });
    const drawAbove = kept(["high", "box"], ({ high }) => {
      above.y.high = high;
      above.drawAxes();
      put(rug, { d: x.map((v, n) => `M${above.x.at(v).toFixed(1)} ${above.y.start}v${-10 - 2 * min(n - x.indexOf(v), 15)}`).join("") });
    });
    ui.refresh.push(() => {
      const { point, means } = now, sds = sdsOf(now);
      showSetting(now);
      // The knob stays in the plane; how high it should be is said beside it.
      const at = below.x.at(now.sigma);
      put(beyond, { x: at, "text-anchor": at > below.box.width / 2 ? "end" : "start", y: below.y.end + 22 }).textContent = now.values.objective > top ? `\u2191 ${format(now.values.objective)}` : "";
      seen = min(seen, now.sigma);
      drawCurves({ curves: objectives({ __proto__: now }), seen, box: below.box });
      // Higher by three decades at a time.
      const tallest = 2 * max(now.values.peak, ...sds.map((s, k) => peak(s, weights[k])));
      drawAbove({ high: 10 ** (3 * Math.ceil(log10(tallest) / 3)), box: above.box });
      // Each component has a grid of its own, as far out as it is seen: an even one steps over a needle.
      const grids = sds.map((s, k) => {
        const m = means[k] ?? point, reach = s * sqrt(2 * log(max(peak(s, weights[k]) / ground, 1)));
        return even(60, m - reach, m + reach).filter((v) => v >= left && v <= right);
      });
      const path = (grid, f) => ({ d: above.path(grid.map((v) => [v, max(f(v), ground)])) });
      put(mixture, path([...grids.flat(), ...even(200, left, right)].sort((a, b) => a - b), (v) => density(now, v, sds)));
      put(needle, path(grids.at(-1), (v) => share * normal(v, point, sds.at(-1))));
    });
  }

  return {
    values, build, wide: "curve",
    actions: {
      snap: ({ x, point }) => ({ point: x.reduce((best, v) => (abs(v - point) < abs(best - point) ? v : best)) }),
      // x is sorted.
      halfway({ x, point }) {
        const u = [...new Set(x)], i = clip(u.filter((v) => v <= point).length, 1, u.length - 1);
        return { point: (u[i - 1] + u[i]) / 2 };
      },
    },
    // The place of the mean in its span: six digits of it tell a data point from what is beside it.
    encode: ({ point, span: [a, b], sigma, cure, min_scale, scatter }) => [(point - a) / (b - a), sigma, CURES.indexOf(cure), min_scale, scatter],
    decode(numbers, { x, limits, span: [a, b] }) {
      const ranges = [[0, 1], limits, [0, 3, true], MIN_SCALE, SCATTER], [u, sigma, cure, min_scale, scatter] = numbers;
      if (!within(numbers, ranges)) return null;
      const same = x.find((v) => rounded((v - a) / (b - a), 6) === u);
      return { point: same ?? clip(a + u * (b - a), a, b), sigma, cure: CURES[cure], min_scale, scatter };
    },
    say: ({ sigma, values: v }) => `sigma ${format(sigma, 2)}, the mean ${place(v)}: objective ${format(v.objective)} nats, slope ${format(v.slope, 2)}`,
  };
})();
