// Pixels of a photograph as points, color and weighted position, and the segments that a mixture makes.

kinds.segmentation = (() => {
  const FAMILIES = ["isotropic", "full"], COUNTS = [2, 6], POSITIONS = [0, 2], SURE = 0.9;
  /** The fit for a state: full covariances are those of weight 1 at every weight above 0. */
  const fitOf = ({ table, family, position, num_components: count }) => table[family][family === "full" ? +(position > 0) : 2 * position][count - COUNTS[0]];
  const levelsOf = kept(["picture"], ({ picture }) => Uint8Array.from(atob(picture.levels), (c) => c.charCodeAt(0)));

  const names = ["picture", "table", "num_components", "position", "family"];
  /** Of each pixel, row by row, the responsibilities of the components. */
  const responsibilities = kept(names, (state) => {
    const { picture: { width, height }, family, position } = state, fit = fitOf(state), full = family === "full", levels = levelsOf(state), unit = full ? +(position > 0) : position, z = [];
    const prior = fit.weights.map((w, k) => log(w) - sum(fit.means[k], (_, d) => log(fit.factors[k][full ? (d * (d + 3)) / 2 : 0])));
    return times(width * height, (n) => {
      const x = [levels[3 * n] / 255, levels[3 * n + 1] / 255, levels[3 * n + 2] / 255, (unit * (n % width)) / width, (unit * floor(n / width)) / width];
      return softmax(fit.means.map((mean, k) => {
        const factor = fit.factors[k];
        let square = 0;
        // Whitened, a coordinate after the other.
        for (let d = 0; d < mean.length; d++) {
          z[d] = x[d] - mean[d];
          const row = (d * (d + 1)) / 2;
          if (full) for (let e = 0; e < d; e++) z[d] -= factor[row + e] * z[e];
          z[d] /= factor[full ? row + d : 0];
          square += z[d] * z[d];
        }
        return prior[k] - square / 2;
      }));
    });
  });
  /** Of each pixel its segment and whether it is in doubt; of each segment pixels and pieces. */
  const segments = kept(names, (state) => {
    const { width, height } = state.picture, r = responsibilities(state), sure = r.map((row) => max(...row)), own = r.map((row, n) => row.indexOf(sure[n]));
    const none = () => Array(state.num_components).fill(0), pixels = none(), pieces = none(), met = own.map(() => false);
    own.forEach((k, n) => {
      pixels[k]++;
      if (met[n]) return;
      pieces[k]++;
      const border = [n];
      met[n] = true;
      while (border.length) {
        const at = border.pop(), column = at % width;
        for (const [near, there] of [[at - width, at >= width], [at + width, at + width < width * height], [at - 1, column], [at + 1, column + 1 < width]]) {
          if (there && !met[near] && own[near] === k) { met[near] = true; border.push(near); }
        }
      }
    });
    return { own, doubtful: sure.map((v) => v < SURE), pixels, pieces };
  });
  function values(state) {
    const { weights, means } = fitOf(state), { doubtful, pixels, pieces } = segments(state), [column, row] = state.pixel, all = sum(weights);
    return {
      weights: weights.map((w) => w / all), colors: means.map((mean) => mean.slice(0, 3)), pixels, pieces,
      doubt: sum(doubtful), responsibilities: responsibilities(state)[row * state.picture.width + column],
    };
  }

  function build(ui) {
    const { now } = ui, { width, height } = now.picture, levels = levelsOf(now), most = COUNTS[1];
    const plane = (label) => Object.assign(ui.plane({
      label, x: { low: 0, high: width, step: 1 }, y: { low: height, high: 0, step: 1 },
      height: (w) => ((w - 16) * height) / width + 16, margin: () => ({ left: 8, right: 8, bottom: 8 }),
    }), { drawAxes() {} });
    const above = plane("The photograph"), below = plane("Its segments");
    const canvas = html("canvas", { width, height }), ink = canvas.getContext("2d"), data = ink.createImageData(width, height);
    times(width * height, (n) => data.data.set([...levels.slice(3 * n, 3 * n + 3), 255], 4 * n));
    ink.putImageData(data, 0, 0);
    const photograph = above.add("image", { href: canvas.toDataURL(), preserveAspectRatio: "none", style: "image-rendering:pixelated" });
    const area = (color, more) => below.add("path", { fill: color, "data-color": color, "shape-rendering": "crispEdges", ...more });
    const areas = times(most, (k) => area(colorOf(k))), dark = area("#000", { "fill-opacity": 0.5, "data-color": GRAY });
    const marks = [above, below].map((own) => [["#000", 4], ["#fff", 2]].map(([stroke, wide]) => own.add("circle", { r: 6.5, fill: "none", stroke, "stroke-width": wide, "data-color": GRAY })));
    const ask = below.ask("What joins the sky? Move the ring there.");
    // The segments are shown once a reader has said what they will be.
    let first = String(encode(now)), open = false;
    ui.forget = () => { open = false; };
    ui.legend([[GRAY, "darkened: in doubt, all responsibilities below 0.9", "dot"]]);
    const centre = () => now.pixel.map((v) => v + 0.5);
    const choose = ([x, y]) => ui.set({ pixel: [clip(floor(x), 0, width - 1), clip(floor(y), 0, height - 1)] });
    const share = (v) => v.toFixed(3), ringed = () => now.values.responsibilities, best = () => ringed().indexOf(max(...ringed()));
    for (const own of [above, below]) {
      put(own.svg, { onclick(event) { if (!event.target.closest(".gm-handle")) { choose(own.units(own.pixels(event))); ui.touched(true); } } });
    }
    const knob = above.handle({ label: "ringed pixel", at: centre, move: choose, text: () => `${list(now.pixel)}; ${open ? `segment ${best() + 1}, responsibility ${share(ringed()[best()])}` : "column and row"}` });
    put(knob.querySelector(".gm-knob"), { style: "fill:none" });
    ui.slider({ label: "components K", name: "num_components", low: COUNTS[0], high: most, step: 1 });
    ui.slider({ label: "weight of position", name: "position", low: POSITIONS[0], high: POSITIONS[1], step: 0.5 });
    ui.choice({ label: "covariances", name: "family", options: FAMILIES });
    for (const [label, num_components, position, family] of [["Sky and lake are one", 3, 0, FAMILIES[0]], ["A sky in three", 6, 2, FAMILIES[0]], ["A slider without effect", 4, 1, FAMILIES[1]]]) {
      ui.button(label, () => { open = true; ui.set({ num_components, position, family }); ui.touched(true); });
    }
    const chip = (color) => {
      const percent = color.map((v) => `${round(100 * v)}%`);
      return html("i", { role: "img", "aria-label": `red, green, blue ${percent.join(", ")}`, style: `background:rgb(${percent});border-radius:0` });
    };
    ui.table(["segment", "mean", "weight", "pixels", "pieces", "ring"], times(most, (k) => [colorOf(k), k + 1, (v) => (k < v.weights.length
      ? [chip(v.colors[k]), v.weights[k].toFixed(2), ...(open ? [v.pixels[k], v.pieces[k], share(v.responsibilities[k])] : ["?", "?", "?"])] : null)]));
    ui.values.style.alignItems = "start";
    ui.readout([
      ["pixels in doubt", (v) => `${v.doubt} of ${width * height}`],
      ["pieces in all", (v) => (open ? sum(v.pieces) : "?")],
      ["ringed pixel", () => `column ${now.pixel[0]}, row ${now.pixel[1]}`],
    ]);
    /** Runs of pixels of a row, as rectangles. */
    const runs = (inside) => {
      let d = "";
      for (let row = 0; row < height; row++) for (let start = 0, end; start < width; start = end) {
        const within = inside(row * width + start);
        for (end = start + 1; end < width && inside(row * width + end) === within;) end++;
        if (within) d += `${trace([[start, row], [end, row], [end, row + 1], [start, row + 1]].map((corner) => below.pixel(corner)))}Z`;
      }
      return d;
    };
    const paint = kept(["found", "open", "box"], ({ found: { own, doubtful } }) => {
      areas.forEach((path, k) => put(path, { d: open ? runs((n) => own[n] === k) : "" }));
      put(dark, { d: open ? runs((n) => doubtful[n]) : "" });
    });
    // Before the handle and the table, which tell what is open.
    ui.refresh.unshift(() => {
      open ||= String(encode(now)) !== first;
      const [left, top] = above.pixel([0, 0]), [right, bottom] = above.pixel([width, height]);
      put(photograph, { x: left, y: top, width: right - left, height: bottom - top });
      for (const [i, own] of [above, below].entries()) {
        const [cx, cy] = own.pixel(centre());
        for (const mark of marks[i]) put(mark, { cx, cy });
      }
      paint({ found: segments(now), open, box: below.box });
      ask(!open);
    });
  }

  const encode = ({ num_components, position, family, pixel }) => [num_components, position, FAMILIES.indexOf(family), ...pixel];
  return {
    values, build, encode, responsibilities, actions: {}, wide: "curve",
    decode(numbers, { picture: { width, height } }) {
      const [num_components, position, family, ...pixel] = numbers;
      if (!within(numbers, [[...COUNTS, true], POSITIONS, [0, 1, true], [0, width - 1, true], [0, height - 1, true]]) || (2 * position) % 1) return null;
      return { num_components, position, family: FAMILIES[family], pixel };
    },
    say: ({ num_components: count, values: { pieces, doubt } }) => `${count} segments in ${list(pieces)} pieces; ${doubt} pixels in doubt`,
  };
})();
