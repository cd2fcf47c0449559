// Faults of a page that a rule can find: what has no name, what is missing, what is too pale. Value: a list of words.
(() => {
  const faults = [];
  const seen = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const told = (e) => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""}.${[...e.classList].join(".")} ` +
    `"${(e.textContent || "").trim().slice(0, 40)}"`;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const say = (what, elements) => elements.forEach((e) => faults.push(`${what}: ${told(e)}`));

  if (!document.documentElement.lang) faults.push("no language");
  if (!document.title) faults.push("no title");
  if (all("main").length !== 1) faults.push("not one main");
  if (all("h1").length !== 1) faults.push("not one h1");
  say("no alt", all("img").filter((e) => !e.hasAttribute("alt")));
  say("no name", all("input, select, textarea, button, a[href], summary").filter((e) =>
    !(e.labels?.length || e.ariaLabel || e.getAttribute("aria-labelledby") || e.textContent.trim())));
  say("picture without a name", all("svg, canvas").filter((e) =>
    !(e.ariaLabel || e.getAttribute("aria-hidden") === "true")));
  say("region without a name", all("section").filter((e) => {
    const name = e.getAttribute("aria-labelledby");
    return name && !document.getElementById(name);
  }));
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  faults.push(...ids.filter((id, at) => ids.indexOf(id) !== at).map((id) => `twice: #${id}`));
  let last = 1;
  for (const head of all("h1, h2, h3, h4, h5, h6")) {
    const level = Number(head.tagName[1]);
    if (level > last + 1) faults.push(`h${last} is followed by ${told(head)}`);
    last = level;
  }
  say("scrolls without a key", all("*").filter((e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX) &&
    e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0));

  // Contrast of text that stands on a plain ground (WCAG 2.1: 4.5, large text 3).
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour[3] === undefined || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  for (const e of all("body *")) {
    const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || e.closest("svg, script, style, option, :disabled")) continue;
    const style = getComputedStyle(e), two = [light(parts(style.color)), light(ground(e))].sort((a, b) => b - a);
    const ratio = (two[0] + 0.05) / (two[1] + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)}: ${told(e)}`);
  }
  return [...new Set(faults)];
})()
