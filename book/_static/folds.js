// The theme lets the keyboard scroll wide code when a page has loaded and when it is resized. Code
// that is unfolded later was not to be seen then, so it is looked at again.
(() => {
  const look = () => window.dispatchEvent(new Event("resize"));
  document.addEventListener("toggle", look, true);
  document.addEventListener("click", event => {
    if (event.target.closest(".toggle-button, .admonition-title")) look();
  });
})();
