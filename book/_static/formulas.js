// Formulas are no stops for the Tab key, but for those that are wider than their place: these scroll,
// by keyboard too, and show by a mark at their edge that they do.
(() => {
  "use strict";
  const left = ({ scrollWidth, clientWidth, scrollLeft }) => scrollWidth - clientWidth - scrollLeft;
  const mark = (formula) => formula.classList.toggle("gm-goes-on", left(formula) > 1);
  function look() {
    for (const formula of document.querySelectorAll("mjx-container, span.math")) {
      const wide = formula.clientWidth > 0 && formula.scrollWidth > formula.clientWidth + 1;
      if (wide && formula.matches("[display], span")) {
        formula.tabIndex = 0;
        formula.onscroll = () => mark(formula);
        mark(formula);
      } else {
        formula.removeAttribute("tabindex");
        formula.classList.remove("gm-goes-on");
      }
    }
  }
  // What an address names, again when the formulas above it have their height, unless the reader
  // has moved on.
  let moved = false;
  for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"])
    addEventListener(kind, () => { moved = true; }, { once: true, passive: true });
  function settle() {
    const type = performance.getEntriesByType("navigation")[0]?.type;
    if (type === "navigate" && !moved) document.querySelector(":target")?.scrollIntoView();
  }
  async function start() {
    await window.MathJax?.startup?.promise;
    // Until its face has come, a letter has the width of another's.
    document.fonts.addEventListener("loadingdone", look);
    look();
    settle();
    new ResizeObserver(look).observe(document.querySelector("article") ?? document.body);
  }
  window.addEventListener("load", start);
})();
