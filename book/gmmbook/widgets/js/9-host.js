// Two hosts. In Jupyter the model is the widget's, the kernel answers, and `values` are torch's.
// On a static page a store stands in for the model, and the closed forms answer.

/** What an interactive builds with: `now` has the traits of the state, and `values`. */
class Interface {
  constructor(model, el, kind) {
    const now = new Proxy({}, { get: (_, name) => model.get(name) });
    Object.assign(this, { model, kind, now, planes: [], refresh: [] });
    // All have the same parts, in this order; where there is room the second stands beside the first.
    const part = (name) => html("div", { class: `gm-${name}` });
    for (const name of ["main", "side", "controls", "values"]) this[name] = part(name);
    this.stage = html("div", { class: `gm-stage gm-wide-${kind.wide}` }, this.main, this.side, this.controls, this.values);
    this.said = html("div", { class: "gm-said", role: "status" });
    this.root = html("div", { class: "gm-widget", role: "group", "aria-label": now.label }, html("style", { class: "nohighlight" }, STYLE), this.stage, this.said);
    el.append(this.root);
  }
  set(changes) {
    this.forgets = false;
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.stale = true;
    this.draw();
  }
  /** Ask for something to be computed: by the kernel where there is one, after what it has still to hear. */
  act(name) {
    const { model } = this, asked = model.get("asked");
    if (!asked) return model.send({ do: name });
    model.set("asked", [...asked, name]);
    model.save_changes();
  }
  /** After a gesture, which ends what plays: pass the state on, and when it is done say what came of it. */
  touched(done) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.passing = false;
    this.set({});
    this.ended = done;
    if (!done) return;
    this.stale = false;
    this.model.save_changes();
    this.speak();
  }
  /** Say what came of a gesture that has ended; again where a slow kernel has more to tell. */
  speak() {
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      const text = this.kind.say(this.now);
      if (!this.timer && this.said.textContent !== text) this.said.textContent = text;
    }, 600);
  }
  /** Draw in the next frame, once. */
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      if (this.stale) this.model.save_changes();
      this.stale = false;
      this.frame = null;
      for (const refresh of this.refresh) refresh();
    });
  }
  plane(options) { return new Plane(this, options); }
  /** For curves of what an NLL has above the lowest. */
  excess(label, x, low, high, height) {
    return this.plane({
      label, x, height, y: { low, high, log: true, name: "nats above lowest" }, margin: () => ({ left: 60, right: 24 }),
    });
  }
  get narrow() { return this.stage.clientWidth < 490; }
  /** What has another color fades, but for what is gray; nothing where no color is given. */
  light(color) {
    const nodes = [...this.root.querySelectorAll(".gm-plane [data-color]")];
    // A component that is not there is drawn as nothing.
    const drawn = nodes.filter((node) => node.dataset.color !== GRAY && node.getAttribute("d") !== "").map((node) => node.dataset.color);
    const there = !drawn.length || drawn.includes(color);
    this.lit = color;
    for (const node of nodes) node.classList.toggle("gm-dim", !!color && there && ![color, GRAY].includes(node.dataset.color));
    this.draw();
  }
  /** A color is lit while its name is pointed at or has focus. */
  lights(node, color, stop) {
    const on = () => this.light(color), off = () => this.light();
    return put(node, { onpointerenter: on, onpointerleave: off, onfocus: on, onblur: off, ...(stop && { tabindex: 0 }) });
  }
  control(label, ...content) { return this.controls.appendChild(html("label", {}, html("span", {}, label), ...content)); }
  /** A trait between low and high (or what range() makes of them, where logarithmic), in steps or logarithmic; or what get() and set(value) make of it. */
  slider({ label, name, low, high, range, step, log, color = GRAY, get = () => this.now[name], set = (v) => this.set({ [name]: v }) }) {
    const axis = new Axis({ low, high, ...range?.(), log, start: log ? 0 : low, end: log ? 1 : high });
    const input = html("input", {
      type: "range", min: axis.start, max: axis.end, step: step ?? 0.004, style: `accent-color:${color}`,
      oninput: () => { set(axis.clip(rounded(axis.back(Number(input.value)), 4))); this.touched(false); }, onchange: () => this.touched(true),
    });
    const output = html("output", { "aria-hidden": true });
    this.refresh.push(() => {
      const text = format(get(), 3);
      Object.assign(axis, range?.());
      input.value = axis.at(get());
      output.textContent = text;
      put(input, { "aria-valuetext": text });
    });
    return this.control(label, input, output);
  }
  /** press(playing) is told whether it has stopped what was playing. */
  button(label, press) {
    const onclick = () => { const playing = this.timer; this.touched(true); press(playing); };
    return this.controls.appendChild(html("button", { type: "button", onclick }, label));
  }
  action(label, name) { return this.button(label, () => this.act(name)); }
  /** A button that takes a step each `wait()` ms while step() says that it took one, and stops; without motion it jumps. */
  play({ label, stop, begin, step, wait, jump }) {
    const next = () => { this.timer = setTimeout(() => (this.root.isConnected && step() ? next() : this.touched(true)), wait()); };
    const button = this.button(label, (playing) => {
      if (playing) return;
      if (calm()) return jump();
      begin();
      next();
    });
    this.refresh.push(() => { button.textContent = this.timer ? stop : label; });
  }
  choice({ label, name, options, values = options }) {
    const onchange = () => { this.set({ [name]: values[select.selectedIndex] }); this.touched(true); };
    const select = html("select", { onchange }, ...options.map((option) => html("option", {}, option)));
    this.refresh.push(() => { select.selectedIndex = values.indexOf(this.now[name]); });
    return this.control(label, select);
  }
  /** Of each color what is drawn in it, as a "dot", a "dashed", "dotted" or "thin" line, or a line. */
  legend(entries) {
    this.side.append(html("ul", { class: "gm-legend" }, ...entries.map(([color, text, shape]) => this.lights(html("li", {}, html("i", { class: `gm-${shape}`, style: `border-color:${color}` }), text), color))));
  }
  /** A table of one header and a row [color, name, cells(values)] for each of several; none where there are no cells. */
  table(head, rows) {
    const body = html("tbody");
    const row = (cells) => html("tr", {}, ...cells), start = row(head.map((name) => html("th", { scope: "col" }, name)));
    for (const [color, name, text] of rows) {
      const cells = head.slice(1).map(() => html("td")), own = this.lights(row([html("th", { scope: "row" }, html("i", { style: `background:${color}` }), name), ...cells]), color, true);
      this.refresh.push(() => {
        const shown = text(this.now.values);
        if (!own.parentNode === !!shown) shown ? body.append(own) : own.remove();
        if (shown) cells.forEach((cell, i) => { cell.replaceChildren(shown[i]); });
      });
    }
    this.values.append(html("table", { class: "gm-table" }, html("thead", {}, start), body));
  }
  /** Names and numbers, from `values`, some of one color. */
  readout(entries) {
    const rows = entries.map(([name, text, color]) => {
      const cell = html("dd"), row = html("div", {}, html("dt", {}, ...(color ? [html("i", { style: `background:${color}` })] : []), name), cell);
      this.refresh.push(() => { cell.textContent = text(this.now.values); });
      return color ? this.lights(row, color) : row;
    });
    this.values.append(html("dl", {}, ...rows));
  }
}

function render({ model, el }) {
  const kind = kinds[model.get("kind")], ui = new Interface(model, el, kind);
  const redraw = () => {
    // A kernel resets some frames later, and may have other things to tell before.
    if (ui.forgets) ui.forget?.();
    if (ui.ended) ui.speak();
    ui.draw();
  };
  kind.build(ui);
  // On no line by itself.
  const last = ui.controls.lastChild, reset = ui.button("Reset", () => {
    ui.forget?.();
    ui.forgets = true;
    ui.act("reset");
  });
  ui.controls.append(html("span", {}, last, reset));
  let width;
  const fit = () => {
    if (width === ui.stage.clientWidth) return;
    width = ui.stage.clientWidth;
    for (const plane of ui.planes) plane.fit();
    redraw();
  };
  const watch = new ResizeObserver(fit);
  watch.observe(ui.stage);
  fit();
  model.on("change", redraw);
  const end = () => {
    watch.disconnect();
    model.off("change", redraw);
    for (const timer of [ui.timer, ui.later]) clearTimeout(timer);
    cancelAnimationFrame(ui.frame);
  };
  return Object.assign(end, { ui });
}

/** Stands in for the model of a widget where there is no kernel. */
class Store {
  constructor(kind, state) {
    Object.assign(this, { kind, state, first: { ...state }, saved() {} });
    this.answer();
  }
  answer() { this.state.values = this.kind.values(this.state); }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; }
  on(_, listener) { this.changed = listener; }
  save_changes() {
    this.answer();
    this.changed();
    this.saved();
  }
  send({ do: name }) {
    Object.assign(this.state, name === "reset" ? this.first : this.kind.actions[name](this.state));
    this.save_changes();
  }
}

// The view in the address: #name=1.5,-2,...&other=..., numbers only. What does not parse, or is not
// a state that the interactive can be in, is ignored.
const written = (kind, state) => String(kind.encode(state).map((v) => (Number.isInteger(v) ? v : rounded(v, 6))));
function writeAddress() {
  const parts = [];
  for (const [name, { store, kind }] of Object.entries(views)) {
    const now = written(kind, store.state);
    if (now !== written(kind, store.first)) parts.push(`${name}=${now}`);
  }
  // The place in the page that the address names stays in it.
  const place = location.hash.slice(1).split("&").filter((part) => part && !part.includes("="));
  const hash = [...place, ...parts].join("&").replace(/^(?=.)/, "#");
  if (hash !== location.hash) history.replaceState(history.state, "", location.pathname + location.search + hash);
}

const views = Object.create(null);
let writing = 0, shown;
// What a link is to show; again when all pictures and formulas above it have their height, unless the reader has moved on.
const show = () => shown?.scrollIntoView();
const settle = () => { show(); window.MathJax?.startup?.promise?.then(show); };
/** Take the view that the address names, and show it; a reader who comes back to the page, or finds it as it is, stays. */
function restore(event) {
  const back = !event && ["reload", "back_forward"].includes(performance.getEntriesByType("navigation")[0]?.type);
  for (const part of location.hash.slice(1).split("&")) {
    const [, name, text] = /^([\w-]+)=([-+.0-9e]+(?:,[-+.0-9e]+)*)$/i.exec(part) ?? [], numbers = text?.split(",").map(Number);
    if (!views[name] || !numbers.every(Number.isFinite)) continue;
    const { store, kind, figure } = views[name], state = kind.decode(numbers, store.state);
    if (!state || String(numbers) === written(kind, store.state)) continue;
    Object.assign(store.state, state);
    store.save_changes();
    if (back) continue;
    shown = figure;
    show();
    for (const gesture of ["wheel", "touchstart", "pointerdown", "keydown"]) addEventListener(gesture, () => { shown = null; }, { once: true, passive: true });
  }
}
/** Make the interactives of a static page out of <figure class="gm-static" data-gmmedu="name">. */
function mount() {
  for (const figure of document.querySelectorAll("figure[data-gmmedu]:not([data-live])")) {
    const state = JSON.parse(figure.querySelector("script[type='application/json']").textContent), kind = kinds[state.kind];
    // The script of its kind is still to come.
    if (!kind) continue;
    const store = new Store(kind, state), base = figure.dataset.gmmedu;
    let name = base;
    for (let i = 2; views[name]; i++) name = `${base}-${i}`;
    figure.dataset.live = "";
    figure.id ||= name;
    const { ui } = render({ model: store, el: figure });
    views[name] = { store, kind, figure, ui };
    figure.querySelector(".gm-still")?.remove();
    // What a pointer meets in passing is nothing to link to.
    store.saved = () => {
      if (ui.passing) return;
      clearTimeout(writing);
      writing = setTimeout(writeAddress, 400);
    };
  }
  restore();
}

const math = { principal, covarianceOf, factorOf, logDensity };
