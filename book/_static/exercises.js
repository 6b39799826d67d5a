// Exercises that answer on the page. What is right and what is said of a wrong answer comes with
// each exercise as data, from the checkers of the notebooks (gmmbook/exercises); here an answer is
// read and held to those rules, in the checkers' order. Answers are kept in this browser alone.
(() => {
  "use strict";

  // ---- an answer as it is typed: numbers, arithmetic, lists ----

  class Unreadable extends Error {}
  const NAMES = new Map([["pi", Math.PI], ["π", Math.PI], ["e", Math.E]]);
  const FUNCTIONS = new Map([
    ["log", Math.log], ["ln", Math.log], ["log2", Math.log2], ["log10", Math.log10],
    ["exp", Math.exp], ["sqrt", Math.sqrt], ["√", Math.sqrt],
  ]);
  const NUMBER = /((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)/, NAME = /([a-zπ][a-z\d]*|√)/;
  const SIGN = /(\*\*|[-+*/^%()[\],;])/;
  const TOKEN = new RegExp(`\\s*(?:${NUMBER.source}|${NAME.source}|${SIGN.source})`, "iy");

  function tokensOf(text) {
    const plain = text.replace(/[−–]/g, "-").replace(/[×·]/g, "*").trim(), tokens = [];
    let at = 0;
    while (at < plain.length) {
      TOKEN.lastIndex = at;
      const found = TOKEN.exec(plain);
      const rest = plain.slice(at).trim();
      if (!found) throw new Unreadable(`this could not be read from “${rest}” on.`);
      tokens.push(found[1] ? Number(found[1]) : (found[2] || found[3]).toLowerCase());
      at = TOKEN.lastIndex;
    }
    return tokens;
  }

  /** A number, a list of numbers or a list of lists, from text such as "2 + log(9) / 4". */
  function read(text) {
    const tokens = tokensOf(text);
    let at = 0;
    const take = (...signs) => signs.includes(tokens[at]) && tokens[at++];
    const stuck = () => {
      const where = at < tokens.length ? `“${tokens[at]}”` : "its end";
      return new Unreadable(`this could not be read at ${where}. Numbers, lists with commas, ` +
        "+ - * / ^, brackets, log, exp, sqrt and pi are understood.");
    };
    function base() {
      const token = tokens[at++];
      if (typeof token === "number") return token;
      if (NAMES.has(token)) return NAMES.get(token);
      const f = FUNCTIONS.get(token);
      if ((f && take("(")) || token === "(") {
        const inner = sum();
        if (!take(")")) throw stuck();
        return f ? f(inner) : inner;
      }
      at -= 1;
      throw stuck();
    }
    function power() {
      let value = base();
      if (take("^", "**")) value **= signed();
      return take("%") ? value / 100 : value;
    }
    const signed = () => (take("-") ? -signed() : take("+") ? signed() : power());
    function product() {
      let value = signed();
      for (;;) {
        const next = tokens[at];
        if (take("*")) value *= signed();
        else if (take("/")) value /= signed();
        // As it is written: 2 pi, 3 log(2), 2 (1 - x).
        else if (next === "(" || NAMES.has(next) || FUNCTIONS.has(next)) value *= power();
        else return value;
      }
    }
    function sum() {
      let value = product();
      for (;;) {
        if (take("+")) value += product();
        else if (take("-")) value -= product();
        else return value;
      }
    }
    function entry() {
      if (!take("[")) return sum();
      const entries = list("]");
      if (!take("]")) throw stuck();
      return entries;
    }
    /** Entries up to a closing bracket; rows where semicolons part lists with commas. */
    function list(end) {
      const rows = [[]];
      let commas = false, semicolons = false;
      while (at < tokens.length && tokens[at] !== end) {
        rows.at(-1).push(entry());
        if (take(",")) commas = true;
        else if (take(";")) { semicolons = true; rows.push([]); }
      }
      const full = rows.filter((row) => row.length);
      return commas && semicolons ? full : full.flat();
    }
    const entries = list();
    return entries.length === 1 ? entries[0] : entries;
  }

  const shapeOf = (value) => {
    if (!Array.isArray(value)) return [];
    const shapes = value.map((entry) => shapeOf(entry).join());
    if (new Set(shapes).size > 1) throw new Unreadable("the rows of this have different lengths.");
    return [value.length, ...(value.length ? shapeOf(value[0]) : [])];
  };

  // ---- numbers against the rules, as checkers.py has it ----

  const flat = (value) => [value].flat(Infinity);
  const bounds = (value, none) => flat(value).map((bound) => bound ?? none);
  const same = (one, other) => one.join() === other.join();
  const between = (given, { low, high }) => {
    const lows = bounds(low, -Infinity), highs = bounds(high, Infinity);
    return given.every((value, i) => value >= lows[i] && value <= highs[i]);
  };
  const total = (values) => values.reduce((all, value) => all + value, 0);

  function near(given, wanted, tolerance) {
    const within = tolerance * Math.max(...wanted.map(Math.abs)) + 1e-12;
    return given.every((value, i) => Math.abs(value - wanted[i]) <= within);
  }

  function shapeProblem(got, wanted) {
    if (!wanted.length) return `one number is wanted, and this is a list of ${got[0] ?? 0}: ` +
      "a comma parts entries, a point the decimals.";
    const say = (shape) => shape.length > 1 ? `${shape[0]} rows of ${shape[1]}` :
      shape.length ? `a list of ${shape[0]}` : "one number";
    return `${say(wanted)} is wanted, and this is ${say(got)}.`;
  }

  function normalization(given, { expected, shape, tolerance }) {
    if (!shape.length || !expected) return "";
    const wanted = flat(expected), last = shape.at(-1);
    const sums = (values) => last > 1 && near(
      values.flatMap((_, i) => i % last ? [] : [total(values.slice(i, i + last))]),
      Array(values.length / last).fill(1), tolerance);
    if (Math.min(...wanted) < 0 || !wanted.some((w) => w > 0 && w < 1) || !sums(wanted)) return "";
    return Math.min(...given) < -1e-12 ? "negative" : sums(given) ? "" : "sum";
  }

  function relation(given, { expected, shape, tolerance }) {
    if (!shape.length || !expected) return "";
    const wanted = flat(expected), last = shape.at(-1);
    if (shape.length === 2 && shape[0] === last) {
      const entries = (f) => wanted.map((_, i) => f(Math.floor(i / last), i % last));
      const transposed = (v) => entries((i, j) => v[j * last + i]);
      const inner = (v) => entries((i, j) => total(
        Array.from({ length: last }, (_, k) => v[k * last + i] * v[k * last + j])));
      if (near(transposed(given), wanted, tolerance)) return "transposed";
      if (near(inner(given), inner(wanted), tolerance)) return "turned";
    }
    const sorted = (values) => [...values].sort((a, b) => a - b);
    if (near(sorted(given), sorted(wanted), tolerance)) return "order";
    const close = wanted.length > 1 && given.every((v, i) => Math.abs(v / wanted[i] - 1) <= 10 * tolerance);
    for (const [name, f] of [["shift", (v, w) => v - w], ["factor", (v, w) => v / w]]) {
      if (name === "factor" && close) return "close";
      const all = given.map((value, i) => f(value, wanted[i])), mean = total(all) / all.length;
      const constant = all.every(Number.isFinite) && near(all, all.map(() => mean), tolerance);
      if (all.length > 1 && constant) return name;
    }
    return "";
  }

  /** What is wrong with a typed answer; null where nothing is. */
  function problemOf(exercise, text) {
    const { phrases, shape, rules, usual, hint } = exercise;
    if (!text.trim()) throw new Unreadable("type your answer first.");
    let value = read(text);
    if (!shape.length && Array.isArray(value) && value.length === 1) [value] = value;
    const got = shapeOf(value), given = flat(value);
    if (!same(got, shape)) return shapeProblem(got, shape);
    const known = rules.find((each) => between(given, each));
    if (known) return known.say;
    const unnormalized = normalization(given, exercise);
    if (unnormalized) return phrases[unnormalized];
    const mistake = usual.find((each) => between(given, each));
    if (mistake) return mistake.say;
    if (given.some(Number.isNaN)) return `this is not a number: ${phrases.nan}`;
    if (!given.every(Number.isFinite)) return phrases.infinite;
    return phrases[relation(given, exercise)] || hint;
  }

  function problemOfLetters({ letters, right, others, missing, phrases }, given) {
    if (!given) return `choose out of ${letters.join(", ")}.`;
    const wrong = [...given].sort().find((letter) => !right.includes(letter));
    if (wrong) return `(${wrong}) ${others[wrong]}`;
    const left = [...right].find((letter) => !given.includes(letter));
    return left ? `${phrases["not all"]} ${missing[left] ?? ""}`.trim() : null;
  }

  function verdict(exercise, answer) {
    const { phrases, praise, kind } = exercise;
    let problem;
    try {
      problem = (kind === "letters" ? problemOfLetters : problemOf)(exercise, answer);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      problem = error.message;
    }
    if (problem === null) return { right: true, message: `${phrases.right} ${praise}`.trim() };
    const line = problem[0].toUpperCase() + problem.slice(1);
    return { right: false, message: `${phrases.wrong} ${line}` };
  }

  // ---- what is kept on this machine: an answer for each exercise, and whether it is right ----

  const KEY = "gmmedu-answers";
  // Where the browser keeps nothing, the page does while it is open.
  let own = {}, forgets = false;
  const kept = () => {
    if (forgets) return own;
    try { return JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { return own; }
  };
  const keep = (answers) => {
    own = answers;
    try {
      if (Object.keys(answers).length) localStorage.setItem(KEY, JSON.stringify(answers));
      else localStorage.removeItem(KEY);
    } catch { forgets = true; }
  };

  // ---- the page ----

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  function field(exercise, number) {
    if (exercise.kind === "letters") {
      const box = (letter) => make("input", { type: "checkbox", value: letter });
      const boxes = exercise.letters.map(box);
      const choices = boxes.map((each) => make("label", {}, each, each.value));
      const legend = make("legend", { textContent: `Your answer to ${number}` });
      return {
        element: make("fieldset", {}, legend, ...choices),
        get: () => boxes.filter((each) => each.checked).map((each) => each.value).join(""),
        set: (answer) => boxes.forEach((each) => { each.checked = answer.includes(each.value); }),
      };
    }
    const input = make("input", {
      type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: false,
      placeholder: exercise.shape.length ? "numbers, with commas" : "a number",
    });
    return {
      element: make("label", {}, `Your answer to ${number}`, input),
      get: () => input.value,
      set: (answer) => { input.value = answer; },
    };
  }

  function build(host) {
    const exercise = JSON.parse(host.dataset.rules), { identifier, number } = exercise;
    const own = field(exercise, number), said = make("output");
    const button = make("button", { textContent: "Check" });
    const form = make("form", { noValidate: true }, own.element, button, said);
    const show = ({ right, message }) => {
      said.textContent = message;
      form.dataset.right = right;
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const answer = own.get(), found = verdict(exercise, answer);
      show(found);
      keep({ ...kept(), [identifier]: { answer, right: found.right } });
      document.dispatchEvent(new Event("gmm-answered"));
    });
    const restore = () => {
      const before = kept()[identifier];
      own.set(before?.answer ?? "");
      if (before) show(verdict(exercise, before.answer));
      else { said.textContent = ""; delete form.dataset.right; }
    };
    document.addEventListener("gmm-erased", restore);
    restore();
    host.replaceChildren(form);
    return identifier;
  }

  /** How many are right, where exercises begin; a button that erases what is kept. */
  function count(identifiers) {
    const said = make("span", { role: "status", tabIndex: -1 });
    const erase = make("button", { type: "button", textContent: "Erase my answers" });
    const line = make("p", { className: "gm-progress" }, said, erase);
    const show = () => {
      const answers = kept(), right = identifiers.filter((each) => answers[each]?.right).length;
      said.textContent = `Right: ${right} of the ${identifiers.length} that can be answered ` +
        "here. Your answers stay in this browser.";
      erase.hidden = !identifiers.some((each) => answers[each]);
    };
    erase.addEventListener("click", () => {
      const others = Object.entries(kept()).filter(([each]) => !identifiers.includes(each));
      keep(Object.fromEntries(others));
      document.dispatchEvent(new Event("gmm-erased"));
      show();
      // The button is gone, and the focus would be with it.
      said.focus();
    });
    document.addEventListener("gmm-answered", show);
    show();
    return line;
  }

  function start() {
    const hosts = [...document.querySelectorAll(".gm-answer[data-rules]")];
    if (!hosts.length) return;
    const identifiers = hosts.map(build), section = document.getElementById("exercises");
    section?.querySelector("h2")?.after(count(identifiers));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
