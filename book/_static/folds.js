// The theme lets the keyboard scroll wide code when a page has loaded and when it is resized. Code
// that is unfolded later was not to be seen then, so it is looked at again.
(() => {
  const look = () => window.dispatchEvent(new Event("resize"));
  document.addEventListener("toggle", look, true);
  document.addEventListener("click", event => {
    if (event.target.closest(".toggle-button, .admonition-title")) look();
  });
})();
// On paper the page is light, and asides are open: paper cannot be unfolded.
(() => {
  "use strict";
  const root = document.documentElement;
  let theme = null, opened = [];
  addEventListener("beforeprint", () => {
    theme ??= root.dataset.theme;
    root.dataset.theme = "light";
    for (const aside of document.querySelectorAll("details.sd-dropdown:not([open])")) {
      aside.open = true;
      opened.push(aside);
    }
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    for (const aside of opened) aside.open = false;
    [theme, opened] = [null, []];
  });
})();
