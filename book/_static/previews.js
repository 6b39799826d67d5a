// What a link in the text points to is shown beside it while the link is pointed at or has focus: an
// equation, a term, a figure, an entry of the bibliography. Without this script it is a link.
(() => {
  "use strict";
  const LINKS = "article a.internal[href*='#']";
  /** What of a target is shown, by the kind of its id; nothing of what is not listed. */
  const PARTS = [
    [/^equation-/, (target) => [target.closest("div.math") ?? target]],
    [/^term-/, (target) => [...target.nextElementSibling.children].slice(0, 1)],
    [/^fig-/, (target) => [...target.querySelectorAll("img, figcaption")]],
    [/^id\d+$/, (target) => target.matches(".citation") ? [...target.querySelectorAll("p")] : []],
  ];

  const pages = new Map();
  function pageOf(address) {
    if (address === location.href.split("#")[0]) return document;
    if (!pages.has(address)) {
      const parse = (text) => new DOMParser().parseFromString(text, "text/html");
      pages.set(address, fetch(address).then((answer) => answer.text()).then(parse));
    }
    return pages.get(address);
  }

  /** Copies of what a link points to; of another page with its pictures, and its TeX set. */
  async function contentOf(link) {
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

  const tip = document.createElement("div");
  Object.assign(tip, { id: "gm-tip", className: "gm-tip", hidden: true });
  tip.setAttribute("role", "tooltip");
  let shown = null, timer = 0;

  function place(link) {
    // A link may be broken over two lines: the line that it starts on.
    const [line] = link.getClientRects(), box = tip.getBoundingClientRect(), gap = 6;
    const below = line.bottom + gap + box.height <= innerHeight || line.top < box.height + gap;
    const left = Math.max(8, Math.min(line.left, document.documentElement.clientWidth - box.width - 8));
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(below ? line.bottom + gap : line.top - gap - box.height) + scrollY}px`;
  }

  function hide() {
    clearTimeout(timer);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    tip.hidden = true;
  }

  async function show(link) {
    if (shown === link) return;
    hide();
    shown = link;
    const content = await contentOf(link).catch(() => []);
    if (shown !== link || !content.length) return;
    link.removeAttribute("title");
    tip.replaceChildren(...content);
    tip.hidden = false;
    if (!tip.querySelector("mjx-container")) await window.MathJax?.typesetPromise?.([tip]);
    if (shown !== link) return;
    link.setAttribute("aria-describedby", tip.id);
    place(link);
  }

  const soon = (wait, f) => {
    clearTimeout(timer);
    timer = setTimeout(f, wait);
  };

  function start() {
    document.body.append(tip);
    for (const link of document.querySelectorAll(LINKS)) {
      link.addEventListener("pointerenter", (event) => {
        if (event.pointerType === "mouse") soon(150, () => show(link));
      });
      link.addEventListener("pointerleave", () => soon(250, hide));
      link.addEventListener("focus", () => { if (link.matches(":focus-visible")) show(link); });
      link.addEventListener("blur", hide);
    }
    // The pointer may rest on what is shown.
    tip.addEventListener("pointerenter", () => clearTimeout(timer));
    tip.addEventListener("pointerleave", () => soon(250, hide));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
