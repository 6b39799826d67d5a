// Mixtures of 1 to 9 components, all fitted beforehand, and what the criteria say of each.

kinds.selection = (() => {
  const FITS = ["floor", "one start", "no floor"], FAMILIES = ["full", "tied"], MOST = 9;
  const NAMES = { aic: "AIC", bic: "BIC", icl: "ICL", held_out: "held-out NLL" }, CRITERIA = Object.keys(NAMES);
  const fitsOf = ({ table, fits, family }) => table[fits][family];
  const free = ({ sds }, family) => 2 * sds.length - 1 + (family === "full" ? sds.length : 1);

  /** The log likelihood and what follows from it (eq-aic, eq-bic, eq-icl). */
  function scores(x, fit, family) {
    const { weights, means, sds } = fit, p = free(fit, family);
    let all = 0, sure = 0;
    for (const v of x) {
      const a = weights.map((w, k) => log(w) - ((v - means[k]) / sds[k]) ** 2 / 2 - log(sds[k]) - LOG_2PI / 2), total = logSumExp(a);
      all += total;
      sure += max(...a) - total;
    }
    const bic = p * log(x.length) - 2 * all;
    return { log_likelihood: all, aic: 2 * p - 2 * all, bic, icl: bic - 2 * sure };
  }
  /** The lowest of a curve among the first so many that are not set aside; 0 where there is none. */
  const lowestOf = (curve, fits, most = MOST) => curve.reduce((best, v, i) => (i < most && fits[i].regular && !(v >= curve[best - 1]) ? i + 1 : best), 0);
  const values = kept(["x", "table", "fits", "family"], (state) => {
    const fits = fitsOf(state), each = fits.map((fit) => ({ ...scores(state.x, fit, state.family), held_out: fit.held_out }));
    const curves = Object.fromEntries(Object.keys(each[0]).map((name) => [name, each.map((one) => one[name])]));
    return { ...curves, lowest: Object.fromEntries(CRITERIA.map((name) => [name, lowestOf(curves[name], fits)])) };
  });
  const shown = (v, name) => v.toFixed(name === "held_out" ? 4 : 2).replace("-", "\u2212");

  function build(ui) {
    const { now } = ui, { x } = now, low = floor(x[0]) - 1, high = Math.ceil(x.at(-1)) + 1, count = () => now.num_components;
    const bins = times(high - low, (i) => x.filter((v) => floor(v) === low + i).length / x.length);
    const above = ui.plane({
      label: "Speeds and the fitted density", x: { low, high, name: "speed (1000 km/s)" }, y: { low: 0, high: 1.4 * max(...bins), name: "density" },
    });
    const bars = above.curve(GRAY, 1, { fill: GRAY, "fill-opacity": 0.2 }), rug = above.curve(GRAY, 1.2);
    const mixture = above.curve("currentColor", 3, {}, above.inside), parts = times(MOST, (k) => above.curve(colorOf(k), 2, {}, above.inside));
    const below = ui.plane({
      label: "The criterion against the number of components", x: { low: 0.5, high: MOST + 0.5, step: 1, name: "components K" }, y: { low: 0, high: 1 }, margin: () => ({ left: 60 }),
    });
    const line = below.curve("currentColor", 1.5), dots = below.curve("currentColor", 7, { "stroke-linecap": "round" }), hollow = below.curve("currentColor", 1.5);
    const best = below.curve("currentColor", 2), word = below.add("text", { class: "gm-text", "text-anchor": "middle" }), ask = below.ask("Which K is lowest?");
    // The curve is drawn as far as a reader has been.
    let seen = 0;
    ui.forget = () => { seen = 0; };
    const drawCurve = kept(["values", "criterion", "seen", "box"], ({ values: v, criterion, seen: most }) => {
      const curve = v[criterion], [bottom, top] = [min(...curve), max(...curve)], room = 0.15 * (top - bottom);
      Object.assign(below.y, { low: bottom - 3 * room, high: top + room, name: NAMES[criterion] + (criterion === "held_out" ? " (nats)" : "") });
      below.drawAxes();
      const fits = fitsOf(now), points = curve.slice(0, most).map((u, i) => [i + 1, u]), own = (regular) => points.filter(([k]) => fits[k - 1].regular === regular);
      const ring = (point, r) => `${below.path([point])}m${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      const k = most > 2 ? lowestOf(curve, fits, most) : 0, point = [k, curve[k - 1]], [px, py] = k ? below.pixel(point) : [0, 0];
      put(line, { d: below.path(points) });
      put(dots, { d: own(true).map((p) => `${below.path([p])}h0`).join("") });
      put(hollow, { d: own(false).map((p) => ring(p, 4)).join("") });
      put(best, { d: k ? ring(point, 13) : "" });
      put(word, { x: px, y: py + 29 }).textContent = k ? `lowest${most < MOST ? " so far" : ""}` : "";
      ask(most < 3);
    });
    // Before the handle, whose place follows from it.
    ui.refresh.push(() => {
      seen = max(seen, count());
      drawCurve({ values: now.values, criterion: now.criterion, seen, box: below.box });
    });
    ui.legend([["currentColor", "mixture, criterion"], [GRAY, "galaxies", "dot"]]);
    const go = (v) => ui.set({ num_components: clip(round(v), 1, MOST) }), value = () => now.values[now.criterion][count() - 1];
    const group = below.handle({
      label: "K along the curve", across: true, number: 1, at: () => [count(), value()], move: ([v]) => go(v),
      text: () => `${count()}; ${NAMES[now.criterion]} ${shown(value(), now.criterion)}`,
    });
    ui.slider({ label: "components K", name: "num_components", low: 1, high: MOST, step: 1 });
    ui.choice({ label: "criterion", name: "criterion", options: Object.values(NAMES), values: CRITERIA });
    ui.choice({ label: "fits", name: "fits", options: ["floor 0.2, many starts", "floor 0.2, one start", "no floor"], values: FITS });
    ui.choice({ label: "variances", name: "family", options: FAMILIES });
    const load = (changes) => {
      const next = { x, table: now.table, fits: now.fits, family: now.family, criterion: now.criterion, ...changes };
      seen = MOST;
      ui.set({ num_components: values(next).lowest[next.criterion], ...changes });
      ui.touched(true);
    };
    const lowest = ui.button("", () => load({}));
    ui.button("A needle wins", () => load({ fits: "no floor", family: "full", criterion: "bic" }));
    ui.button("A local optimum", () => load({ fits: "one start", family: "full", criterion: "bic", num_components: 4 }));
    ui.table(["component", "weight", "mean", "\u03c3"], times(MOST, (k) => [colorOf(k), k + 1, () => {
      const { weights, means, sds } = fitsOf(now)[count() - 1];
      return k < count() ? [weights, means, sds].map((all) => format(all[k], 3)) : null;
    }]));
    ui.values.style.alignItems = "start";
    ui.readout([
      ["free parameters p", () => free(fitsOf(now)[count() - 1], now.family)],
      ["log L (nats)", (v) => shown(v.log_likelihood[count() - 1])],
      ...CRITERIA.map((name) => [NAMES[name], (v) => `${shown(v[name][count() - 1], name)}, lowest ${seen < MOST ? "so far " : ""}at ${lowestOf(v[name], fitsOf(now), seen)}`]),
      ["on the floor", () => (now.fits === FITS[2] ? "no floor" : fitsOf(now)[count() - 1].regular ? "none" : "yes: set aside")],
    ]);

    const drawData = kept(["box"], () => {
      put(bars, { d: bins.map((h, i) => `${above.path([[low + i, 0], [low + i, h], [low + i + 1, h], [low + i + 1, 0]])}Z`).join("") });
      put(rug, { d: x.map((v) => `M${above.x.at(v).toFixed(1)} ${above.y.start}v-6`).join("") });
    });
    ui.refresh.push(() => {
      const { weights, means, sds } = fitsOf(now)[count() - 1];
      drawData(above);
      lowest.textContent = `The lowest ${NAMES[now.criterion]}`;
      group.lastChild.textContent = count();
      // A grid of its own for each component: an even one steps over a needle.
      const part = (k) => (v) => weights[k] * normal(v, means[k], sds[k]), grids = sds.map((s, k) => even(60, means[k] - 5 * s, means[k] + 5 * s).filter((v) => v >= low && v <= high));
      parts.forEach((path, k) => put(path, { d: k < count() ? above.path(grids[k].map((v) => [v, part(k)(v)])) : "" }));
      const whole = [...grids.flat(), ...even(200, low, high)].sort((a, b) => a - b);
      put(mixture, { d: above.path(whole.map((v) => [v, sum(sds, (_, k) => part(k)(v))])) });
    });
  }

  return {
    values, build, actions: {}, wide: "curve",
    encode: ({ num_components, criterion, fits, family }) => [num_components, CRITERIA.indexOf(criterion), FITS.indexOf(fits), FAMILIES.indexOf(family)],
    decode(numbers) {
      const [num_components, criterion, fits, family] = numbers;
      if (!within(numbers, [[1, MOST, true], [0, 3, true], [0, 2, true], [0, 1, true]])) return null;
      return { num_components, criterion: CRITERIA[criterion], fits: FITS[fits], family: FAMILIES[family] };
    },
    say: ({ num_components: count, criterion, values: v }) => `${count} components: log L ${shown(v.log_likelihood[count - 1])}, ${NAMES[criterion]} ${shown(v[criterion][count - 1], criterion)}`,
  };
})();
