// A color that the text names beside an interactive, or a component that it names by number, is lit
// there while the word is pointed at or has focus. Without this script the words are plain text.
(() => {
  "use strict";
  // Of the components in their order, and of what is data.
  const COLORS = {
    blue: "#0072B2", orange: "#D55E00", green: "#009E73", pink: "#CC79A7", yellow: "#E69F00",
    "light blue": "#56B4E9", purple: "#9030D8", brown: "#904830", gray: "#797979",
  };
  const WORDS = new RegExp(`\\b(?:${Object.keys(COLORS).join("|")}|component ([1-8]))\\b`, "gi");

  /** The texts of a section itself: its paragraphs and lists, but for code, formulas and links. */
  function textsOf(section) {
    const texts = [], walker = document.createTreeWalker(section, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const own = walker.currentNode.parentElement;
      const prose = own.closest("p, li") && !own.closest("figure, code, a, .math, .gm-word");
      if (prose && own.closest("section") === section) texts.push(walker.currentNode);
    }
    return texts;
  }

  function wordOf(ui, color) {
    const word = document.createElement("span");
    word.className = "gm-word";
    word.style.textDecorationColor = color;
    return ui.lights(word, color, true);
  }

  function start() {
    for (const { figure, ui } of Object.values(window.gmmedu?.views ?? {})) {
      const section = figure.closest("section");
      for (const text of section ? textsOf(section) : []) {
        // From the last, so that what is cut off does not move the others.
        for (const found of [...text.data.matchAll(WORDS)].reverse()) {
          const [word, number] = found;
          const color = number ? Object.values(COLORS)[number - 1] : COLORS[word.toLowerCase()];
          if (!figure.querySelector(`[data-color="${color}"]`)) continue;
          const named = text.splitText(found.index), span = wordOf(ui, color);
          named.splitText(word.length);
          named.replaceWith(span);
          span.append(named);
        }
      }
    }
  }
  window.addEventListener("load", start);
})();
