// Two hosts. In Jupyter the model is the widget's, the kernel answers, and `values` are torch's.
// On a static page a store stands in for the model, and the closed forms answer.

/** What an interactive builds with. */
class Interface {
  constructor(model, el, kind) {
    Object.assign(this, { model, kind, planes: [], refresh: [], pending: false });
    this.stage = html("div", { class: "gm-stage" });
    this.controls = html("div", { class: "gm-controls" });
    this.list = html("dl", { class: "gm-values" });
    this.said = html("div", { class: "gm-said", role: "status" });
    this.root = html("div", { class: "gm-widget", role: "group", "aria-label": model.get("label") }, html("style", {}, STYLE), this.stage, this.controls, this.list, this.said);
    el.append(this.root);
  }
  get(name) { return this.model.get(name); }
  set(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.stale = true;
    this.draw();
  }
  /** Ask for something to be computed: by the kernel where there is one. */
  act(name, options = {}) { this.model.send({ do: name, ...options }); }
  /** After a gesture: pass the state on, and when it is done say what came of it. */
  touched(done) {
    this.stale = true;
    this.draw();
    if (!done) return;
    this.model.save_changes();
    clearTimeout(this.later);
    this.later = setTimeout(() => { this.said.textContent = this.kind.say(this) ?? ""; }, 600);
  }
  /** Draw in the next frame, once. */
  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      if (this.stale) { this.stale = false; this.model.save_changes(); }
      this.pending = false;
      for (const refresh of this.refresh) refresh();
    });
  }
  plane(options) { return new Plane(this, options); }
  slider({ label, name, min, max, step, of = (v) => v, from = (v) => v, text = format }) {
    const input = html("input", { type: "range", min, max, step, oninput: () => { this.set({ [name]: from(Number(input.value)) }); }, onchange: () => this.touched(true) });
    const output = html("output", { "aria-hidden": true });
    this.controls.append(html("label", {}, label, input, output));
    this.refresh.push(() => {
      const value = this.get(name);
      input.value = of(value);
      output.textContent = text(value);
      input.setAttribute("aria-valuetext", text(value));
    });
  }
  button(label, press, pressed = null) {
    const button = html("button", { type: "button", onclick: () => { press(); this.touched(true); } }, label);
    this.controls.append(button);
    if (pressed) this.refresh.push(() => button.setAttribute("aria-pressed", pressed()));
    return button;
  }
  choice({ label, name, options }) {
    const select = html("select", { onchange: () => { this.set({ [name]: options[select.selectedIndex][0] }); this.touched(true); } }, ...options.map(([value, text]) => html("option", { value }, text)));
    this.controls.append(html("label", {}, label, select));
    this.refresh.push(() => { select.value = this.get(name); });
  }
  check({ label, name }) {
    const input = html("input", { type: "checkbox", onchange: () => { this.set({ [name]: input.checked }); this.touched(true); } });
    this.controls.append(html("label", {}, input, label));
    this.refresh.push(() => { input.checked = this.get(name); });
  }
  legend(entries) {
    this.stage.append(html("ul", { class: "gm-legend" }, ...entries.map(([color, text]) => {
      const mark = html("i", { "aria-hidden": true });
      mark.style.background = color;
      return html("li", {}, mark, text);
    })));
  }
  /** Names and numbers, from `values`. */
  readout(entries) {
    const cells = entries.map(([name, text]) => {
      const cell = html("dd");
      this.list.append(html("div", {}, html("dt", {}, name), cell));
      return [cell, text];
    });
    this.refresh.push(() => { for (const [cell, text] of cells) cell.textContent = text(this.get("values")); });
  }
}

function render({ model, el }) {
  const kind = kinds[model.get("kind")], ui = new Interface(model, el, kind);
  kind.build(ui);
  ui.button("Reset", () => ui.act("reset"));
  const fit = () => {
    for (const plane of ui.planes) { plane.fit(); plane.drawAxes(); }
    ui.draw();
  };
  const watch = new ResizeObserver(fit);
  watch.observe(ui.stage);
  fit();
  const redraw = () => ui.draw();
  model.on("change", redraw);
  return () => { watch.disconnect(); model.off("change", redraw); };
}

/** Stands in for the model of a widget where there is no kernel. */
class Store {
  constructor(kind, state) {
    Object.assign(this, { kind, state, first: structuredClone(state), listeners: [], saved: () => {} });
    this.answer();
  }
  answer() { this.state.values = this.kind.values({ ...this.state }); }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; }
  save_changes() {
    this.answer();
    for (const listener of this.listeners) listener();
    this.saved();
  }
  send({ do: name, ...options }) {
    Object.assign(this.state, name === "reset" ? structuredClone(this.first) : this.kind.actions[name](this.state, options));
    this.save_changes();
  }
  on(_, listener) { this.listeners.push(listener); }
  off(_, listener) { this.listeners = this.listeners.filter((l) => l !== listener); }
}

// The view in the address: #name=1.5,-2,...&other=..., numbers only. What does not parse, or is not
// a state that the interactive can be in, is ignored.
function readAddress() {
  const found = {}, hash = location.hash.slice(1);
  if (hash.length > 4000 || !hash.includes("=")) return found;
  for (const part of hash.split("&")) {
    const [, name, list] = /^([a-z][a-z0-9-]*)=([-+.,0-9e]+)$/i.exec(part) ?? [];
    const numbers = list?.split(",").map((v) => (v === "" ? NaN : Number(v)));
    if (numbers?.every(Number.isFinite)) found[name] = numbers;
  }
  return found;
}
function writeAddress(views) {
  const parts = [];
  for (const [name, { store, kind }] of Object.entries(views)) {
    const now = kind.encode(store.state), first = kind.encode(store.first);
    if (String(now) !== String(first)) parts.push(`${name}=${now.map((v) => Number(v.toPrecision(6))).join(",")}`);
  }
  const hash = parts.length ? `#${parts.join("&")}` : location.hash.includes("=") ? "" : location.hash;
  if (hash !== location.hash) history.replaceState(history.state, "", location.pathname + location.search + hash);
}

const views = {};
let writing = 0;
function restore() {
  for (const [name, numbers] of Object.entries(readAddress())) {
    const view = Object.hasOwn(views, name) ? views[name] : null, state = view?.kind.decode(numbers, view.store.state);
    if (state) { Object.assign(view.store.state, state); view.store.save_changes(); }
  }
}
/** Make the interactives of a static page out of <figure class="gm-static" data-gmmedu="name">. */
function mount() {
  for (const figure of document.querySelectorAll("figure[data-gmmedu]:not([data-live])")) {
    figure.dataset.live = "";
    const state = JSON.parse(figure.querySelector("script[type='application/json']").textContent), kind = kinds[state.kind];
    const store = new Store(kind, state), base = figure.dataset.gmmedu;
    let name = base;
    for (let i = 2; Object.hasOwn(views, name); i++) name = `${base}-${i}`;
    figure.id ||= name;
    views[name] = { store, kind, figure };
    render({ model: store, el: figure });
    figure.querySelector(".gm-still")?.remove();
    store.saved = () => { clearTimeout(writing); writing = setTimeout(() => writeAddress(views), 400); };
  }
  restore();
}

const math = { principal, covarianceOf, factorOf, logDensity, eStep, emStep, gradient, gradientStep, toUnits, fromUnits };
