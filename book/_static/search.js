// A search leads to sections. Sphinx's own index knows pages, so the words of each section, which
// the build wrote beside it, are searched in its place; the field and the page of results are the
// theme's.
(() => {
  "use strict";
  const LIMIT = 50;

  const read = () => new Promise((done, failed) => {
    const script = document.createElement("script");
    const root = document.documentElement.dataset.content_root;
    Object.assign(script, { src: `${root}_static/sections.js`, onload: done, onerror: failed });
    document.head.append(script);
  });

  /** The words of a query, and how often each is in a text. */
  function matcher(query) {
    const stemmer = new Stemmer(), stems = new Map();
    const stem = (word) => {
      if (!stems.has(word)) stems.set(word, stemmer.stemWord(word));
      return stems.get(word);
    };
    const split = (text) => splitQuery(text.toLowerCase());
    const asked = split(query).filter((word) => !stopwords.includes(word));
    // The beginning of a word will do, from three letters on.
    const fits = (ask) => (word) =>
      stem(word) === stem(ask) || (ask.length > 2 && word.startsWith(ask));
    const count = (text) => {
      const words = split(text);
      return asked.map((ask) => words.filter(fits(ask)).length);
    };
    const any = (word) => asked.some((ask) => fits(ask)(word.toLowerCase()));
    return { asked, split, count, fits: any };
  }

  /** Entries in which every word is, the best first: in a title, as a phrase, often. */
  function find(query) {
    const { asked, count, split } = matcher(query), phrase = query.trim().toLowerCase(), found = [];
    if (!asked.length) return found;
    for (const [page, entries] of globalThis.gmSections) {
      for (const [anchor, title, words] of entries) {
        const inTitle = count(title), inText = count(words);
        if (!asked.every((_, i) => inTitle[i] + inText[i])) continue;
        // A title that says little else is what was looked for.
        const share = 20 / Math.max(1, split(title).length);
        let score = asked.length > 1 && words.toLowerCase().includes(phrase) ? 20 : 0;
        asked.forEach((_, i) => { score += share * inTitle[i] + Math.min(inText[i], 5); });
        found.push({ page, pageTitle: entries[0][1], anchor, title, words, score });
      }
    }
    return found.sort((a, b) => b.score - a.score);
  }

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  /** The words around the first that fits, those that fit marked. */
  function excerpt(words, fits) {
    const parts = words.split(/([\p{Letter}\p{Number}_]+)/u);
    const first = Math.max(0, parts.findIndex((part) => fits(part)));
    const from = Math.max(0, first - 30), to = from + 90;
    const line = make("p", { className: "context" }, from ? "… " : "");
    for (const part of parts.slice(from, to))
      line.append(fits(part) ? make("mark", {}, part) : part);
    if (to < parts.length) line.append(" …");
    return line;
  }

  function said(asked, count) {
    if (!asked) return "Every page has these words: add one that few have.";
    if (!count) return "Nothing in the book has all these words.";
    const places = count > 1 ? `${count} places` : "One place";
    const shown = count > LIMIT ? `; the first ${LIMIT} are shown` : "";
    return `${places} with all these words${shown}.`;
  }

  function show(query, found) {
    const { asked, fits } = matcher(query);
    for (const { page, pageTitle, anchor, title, words, score } of found.slice(0, LIMIT)) {
      const link = make("a", { href: `${page}${DOCUMENTATION_OPTIONS.LINK_SUFFIX}#${anchor}` });
      link.append(title || pageTitle);
      const below = title && title !== pageTitle;
      const where = below ? make("span", { className: "gm-page" }, pageTitle) : "";
      const result = make("li", {}, link, where, excerpt(words, fits));
      result.dataset.score = score;
      Search.output.append(result);
    }
    Search.stopPulse();
    Search.title.textContent = "Search results";
    Search.status.textContent = said(asked.length, found.length);
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (typeof Search === "undefined") return;
    Search.query = async (query) => {
      // The page that a result leads to marks these words, where the browser may keep them.
      try { Search._parseQuery(query); } catch { /* then it does not */ }
      try {
        await read();
        show(query, find(query));
      } catch {
        Search.stopPulse();
        Search.status.textContent = "The index could not be loaded.";
      }
    };
  });
})();
