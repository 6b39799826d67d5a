// What a link in the text points to is shown beside it while it is pointed at or has focus: an
// equation, a term, a figure, an entry of the bibliography; and what a letter of a formula means, or
// beside the number of an equation what all its letters mean, in the words of the page of notation.
// Without this script a link is a link, and the page of notation is in the table of contents.
(() => {
  "use strict";
  const LINKS = "article a.internal[href*='#']", NUMBERS = "article .eqno";
  const LETTERS = "article mjx-mi";
  /** What of a target is shown, by the kind of its id; nothing of what is not listed. */
  const PARTS = [
    [/^equation-/, (target) => [target.closest("div.math") ?? target]],
    [/^term-/, (target) => [...target.nextElementSibling.children].slice(0, 1)],
    [/^fig-/, (target) => [...target.querySelectorAll("img, figcaption")]],
    [/^cite-/, (target) => target.matches(".citation") ? [...target.querySelectorAll("p")] : []],
  ];

  const pages = new Map();
  function pageOf(address) {
    if (address === location.href.split("#")[0]) return document;
    if (!pages.has(address)) {
      const parse = (text) => new DOMParser().parseFromString(text, "text/html");
      const textOf = (answer) => answer.ok ? answer.text() : Promise.reject(new Error(answer.status));
      const page = fetch(address).then(textOf).then(parse);
      // What did not come is asked for again the next time.
      page.catch(() => pages.delete(address));
      pages.set(address, page);
    }
    return pages.get(address);
  }

  /** Copies of what a link points to; of another page with its pictures, and its TeX set. */
  async function targetOf(link) {
    const [address, fragment] = link.href.split("#"), id = decodeURIComponent(fragment);
    const [, part] = PARTS.find(([pattern]) => pattern.test(id)) ?? [];
    if (!part) return [];
    const page = await pageOf(address), target = page.getElementById(id);
    const copies = target ? part(target).map((node) => document.importNode(node, true)) : [];
    for (const copy of copies) {
      for (const each of [copy, ...copy.querySelectorAll("*")]) {
        each.removeAttribute("id");
        if (each.matches("img")) each.src = new URL(each.getAttribute("src"), address).href;
        if (each.matches(".headerlink, .eqno")) each.remove();
      }
    }
    return copies;
  }

  /** A letter as it is drawn: L, bold L and a script L are three. */
  const drawn = (node) => [...node.querySelectorAll("mjx-c")].map((glyph) => glyph.className).join(" ");

  /** A letter with its index, where it has one, and alone: what its meaning is looked up by. */
  function namesOf(letter) {
    const name = drawn(letter), whole = letter.closest("mjx-script, mjx-msub, mjx-msubsup");
    if (!whole || whole.matches("mjx-script") || drawn(whole.firstElementChild) !== name) return [name];
    return [`${name} _ ${drawn(whole.lastElementChild.lastElementChild)}`, name];
  }

  /** The rows of the page of notation by the names of their symbols; one without an index first. */
  let meanings;
  async function readMeanings() {
    const address = document.querySelector("a[href$='notation.html']")?.href;
    const page = address ? await pageOf(address) : document;
    const table = document.importNode(page.querySelector("#symbols tbody"), true);
    if (!table.querySelector("mjx-container")) {
      const aside = document.createElement("table");
      aside.hidden = true;
      aside.append(table);
      document.body.append(aside);
      await window.MathJax.typesetPromise([aside]);
      aside.remove();
    }
    const indexed = new Map(), alone = new Map();
    for (const row of table.rows) {
      for (const symbol of row.cells[0].querySelectorAll("mjx-container")) {
        const names = namesOf(symbol.querySelector("mjx-mi"));
        const [own, base] = names.length > 1 ? names : [null, names[0]];
        if (own) indexed.set(own, row);
        if (!own || !alone.has(base)) alone.set(base, row);
      }
    }
    return new Map([...alone, ...indexed]);
  }

  /** A line for each letter of those that the page of notation has: what it means. */
  async function meaningsOf(letters) {
    meanings ??= readMeanings().catch((error) => { meanings = null; throw error; });
    const known = await meanings;
    const rows = letters.map((letter) => namesOf(letter).map((name) => known.get(name)).find(Boolean));
    return [...new Set(rows)].filter(Boolean).map((row) => {
      const line = document.createElement("p"), [symbol, meaning, shape, code] = row.cells;
      const copies = (cell) => [...(cell.querySelector("p") ?? cell).cloneNode(true).childNodes];
      line.append(...copies(symbol), ": ", ...copies(meaning));
      if (letters.length === 1) {
        if (shape.textContent.trim()) line.append("; shape ", ...copies(shape));
        if (code.textContent.trim()) line.append("; in the package ", ...copies(code));
      }
      return line;
    });
  }

  function contentOf(subject) {
    const number = subject.closest(NUMBERS);
    if (number) return meaningsOf([...number.closest("div.math").querySelectorAll("mjx-mi")]);
    return subject.matches(LETTERS) ? meaningsOf([subject]) : targetOf(subject);
  }

  const tip = document.createElement("div");
  Object.assign(tip, { id: "gm-tip", className: "gm-tip", hidden: true });
  tip.setAttribute("role", "tooltip");
  let shown = null, timer = 0;

  function place(subject) {
    // A link may be broken over two lines: the line that it starts on.
    const [line] = subject.getClientRects(), box = tip.getBoundingClientRect(), gap = 6;
    const below = line.bottom + gap + box.height <= innerHeight || line.top < box.height + gap;
    const left = Math.max(8, Math.min(line.left, document.documentElement.clientWidth - box.width - 8));
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(below ? line.bottom + gap : line.top - gap - box.height) + scrollY}px`;
  }

  function hide() {
    clearTimeout(timer);
    shown?.removeAttribute("aria-describedby");
    shown?.classList.remove("gm-told");
    shown = null;
    tip.hidden = true;
  }

  async function show(subject) {
    if (shown === subject) return;
    hide();
    shown = subject;
    const content = await Promise.resolve(contentOf(subject)).catch(() => []);
    if (shown !== subject || !content.length) return;
    window.MathJax?.typesetClear?.([tip]);
    tip.replaceChildren(...content);
    tip.hidden = false;
    if (!tip.querySelector("mjx-container")) await window.MathJax?.typesetPromise?.([tip]);
    if (shown !== subject) return;
    subject.classList.add("gm-told");
    if (subject.matches("a")) {
      subject.removeAttribute("title");
      subject.setAttribute("aria-describedby", tip.id);
    }
    place(subject);
  }

  const soon = (wait, f) => {
    clearTimeout(timer);
    timer = setTimeout(f, wait);
  };

  /** What of a page an event is about, if anything that has something to show. */
  const subjectOf = ({ target }) => target.closest?.(`${LINKS}, ${NUMBERS}`) ?? target.closest?.(LETTERS);

  function start() {
    document.body.append(tip);
    document.addEventListener("pointerover", (event) => {
      const subject = subjectOf(event);
      if (event.pointerType === "mouse" && subject) soon(150, () => show(subject));
      // The pointer may rest on what is shown.
      else if (tip.contains(event.target)) clearTimeout(timer);
    });
    document.addEventListener("pointerout", (event) => {
      if (subjectOf(event) || tip.contains(event.target)) soon(250, hide);
    });
    document.addEventListener("focusin", (event) => {
      if (event.target.matches(`${LINKS}, ${NUMBERS} a`) && event.target.matches(":focus-visible")) {
        show(event.target);
      }
    });
    document.addEventListener("focusout", hide);
    // A click does not tell in every browser what made it.
    let pointer = "mouse";
    document.addEventListener("pointerdown", (event) => { pointer = event.pointerType; });
    document.addEventListener("click", (event) => {
      if (pointer !== "touch") return;
      const number = event.target.closest?.(NUMBERS), subject = number ?? event.target.closest?.(LETTERS);
      // The link of a number leads to where the reader is, and would take the focus with it.
      if (number) event.preventDefault();
      subject ? show(subject) : hide();
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
