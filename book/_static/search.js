// The lines that a search shows of a page are words: a formula, TeX in the page's source, is not.
(() => {
  "use strict";
  document.addEventListener("DOMContentLoaded", () => {
    if (typeof Search === "undefined") return;
    const textOf = Search.htmlToText;
    Search.htmlToText = (source, anchor) => {
      const page = new DOMParser().parseFromString(source, "text/html");
      for (const math of page.querySelectorAll(".math")) math.replaceWith(" … ");
      const beside = "nav, button, dialog, .cell, .bd-header-article, .bd-sidebar-secondary";
      for (const part of page.querySelectorAll(`${beside}, .gm-static, .gm-run`)) part.remove();
      return textOf(page.documentElement.outerHTML, anchor).replace(/\s+/g, " ");
    };
  });
})();
