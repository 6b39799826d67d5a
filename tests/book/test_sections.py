"""What a search knows of a page: its sections and their words, no formula, code or solution."""

from __future__ import annotations

from sections import entries_of

PAGE = """<nav>Contents</nav><article class="bd-article">
<section id="top"><h1>2. Mixtures<a class="headerlink" href="#top">#</a></h1>
<p>A sum<br>of <span class="math">\\(K\\)</span>, <span class="math">\\(N\\)</span> parts.
<img alt="a" src="data:image/svg+xml;base64,abc"></p><script>run()</script>
<div class="cell"><div class="cell_input"><pre>code()</pre></div></div>
<section id="part"><h2>2.1. Part</h2><div class="admonition"><p class="admonition-title">In the
wild</p><p>Wolves &amp; sheep.</p></div>
<div class="exercise admonition" id="exercise-02-1"><p class="admonition-title">Exercise 2.1</p>
<section id="exercise-content"><p>Count.</p></section></div>
<div class="solution admonition" id="solution-1"><p class="admonition-title">Solution</p>
<section id="solution-content"><p>Seven.</p></section></div></section></section>
<dl><dt id="term-mean">mean</dt><dd><p>The center.</p></dd><dt id="term-mode">mode</dt>
<dd><p>The top.</p></dd></dl>
<dl><dt class="sig" id="gmmedu.fit">gmmedu.fit(x)</dt><dd><p>Fits.</p></dd></dl></article>"""


def test_a_page_is_its_sections_exercises_terms_and_names() -> None:
    assert entries_of(PAGE) == [
        ("top", "2. Mixtures", "A sum of … parts."),
        ("part", "2.1. Part", "In the wild Wolves & sheep."),
        ("exercise-02-1", "Exercise 2.1", "Count."),
        ("term-mean", "mean", "The center."),
        ("term-mode", "mode", "The top."),
        ("gmmedu.fit", "gmmedu.fit", "Fits."),
    ]
