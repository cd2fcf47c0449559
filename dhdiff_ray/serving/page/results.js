"use strict";
// The pairs: shown, kept for this session, handed out. Shares its names with app.js and board.js.

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const png = (text) => new Blob([bytes(text)], { type: "image/png" });
const stem = (pair) => `${pair.category}_${pair.defect}_${pair.seed}`;

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

function figureAt(index) {
  const others = [...$("results").children].filter((other) => other.dataset.index);
  const there = others.find((other) => Number(other.dataset.index) === index);
  if (there) return there;
  const figure = element("figure"), canvas = element("canvas"), two = element("div", { className: "two" });
  canvas.setAttribute("role", "img");
  figure.dataset.index = index;
  two.append(canvas, element("img", { alt: "" }));
  figure.append(two, element("figcaption"));
  $("results").insertBefore(figure, others.find((other) => Number(other.dataset.index) > index) || null);
  return figure;
}

const SHOWN = 512;

// The image, enlarged in whole steps so that the outline of its mask is thin, and the mask beside it.
async function paintPair(figure, made, label) {
  const canvas = figure.querySelector("canvas"), beside = figure.querySelector("img");
  const image = await createImageBitmap(png(made.image)), veil = await createImageBitmap(png(made.mask));
  const factor = Math.max(1, Math.round(SHOWN / image.width)), line = outlineOf(veil);
  canvas.width = image.width * factor; canvas.height = image.height * factor;
  canvas.setAttribute("aria-label", label);
  beside.src = `data:image/png;base64,${made.mask}`;
  beside.alt = `mask of ${label}`;
  canvas.redraw = () => {
    const target = canvas.getContext("2d");
    target.setTransform(1, 0, 0, 1, 0, 0);
    target.imageSmoothingEnabled = false;
    target.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (!$("overlay").checked) return;
    target.scale(canvas.width / veil.width, canvas.height / veil.height);
    const thin = veil.width / canvas.width;
    for (const [colour, width] of [["#ffffffaa", 5], ["#e6007e", 2.5]]) {
      target.strokeStyle = colour; target.lineWidth = width * thin;
      target.stroke(line);
    }
  };
  canvas.redraw();
  return image;
}

// The edges between what is in a mask and what is not, as one path in the mask's pixels.
function outlineOf(veil) {
  const made = new OffscreenCanvas(veil.width, veil.height), target = made.getContext("2d");
  target.drawImage(veil, 0, 0);
  const data = target.getImageData(0, 0, veil.width, veil.height).data, path = new Path2D();
  const inside = (x, y) => x >= 0 && y >= 0 && x < veil.width && y < veil.height && data[4 * (y * veil.width + x)] > 127;
  for (let y = 0; y <= veil.height; y++) {
    for (let x = 0; x <= veil.width; x++) {
      if (inside(x, y) !== inside(x, y - 1)) { path.moveTo(x, y); path.lineTo(x + 1, y); }
      if (inside(x, y) !== inside(x - 1, y)) { path.moveTo(x, y); path.lineTo(x, y + 1); }
    }
  }
  return path;
}

function recoloured(grey, colour) {
  const made = new OffscreenCanvas(grey.width, grey.height), target = made.getContext("2d");
  target.drawImage(grey, 0, 0);
  const pixels = target.getImageData(0, 0, grey.width, grey.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(colour(pixels.data[i], pixels.data[i + 3]), i);
  target.putImageData(pixels, 0, 0);
  return made;
}

async function show(index, pair) {
  const figure = figureAt(index), links = element("div", { className: "row" });
  const image = await paintPair(figure, pair, `${pair.prompt}, seed ${pair.seed}`);
  figure.querySelector("figcaption").textContent = `${pair.defect.replaceAll("_", " ")}, seed ${pair.seed}`;
  for (const [part, word, end] of [["image", "Image", ""], ["mask", "Mask", "_mask"]]) {
    links.append(element("a", { className: "button", download: `${stem(pair)}${end}.png`,
      href: `data:image/png;base64,${pair[part]}`, textContent: `${word} (PNG)` }));
  }
  figure.append(links);
  if (pair.score_maps) {
    const folded = element("details", { open: true });
    folded.append(element("summary", { textContent: "Score maps: where the defect's words look" }), await scoreMaps(pair, image));
    figure.append(folded);
  }
}

// What text attention saw, dark blue to yellow, on the dimmed pair.
const MAPS = { image: ["S", "I", "image"], annotation: ["S", "A", "mask"], control: ["S", "O", "place"],
  image_hat: ["Ŝ", "I", "image, fused"], annotation_hat: ["Ŝ", "A", "mask, fused"] };
const clip = (value) => Math.round(255 * Math.min(1, Math.max(0, value)));
const heat = (value) => [clip(2 * value), clip(2 * value - 1), clip(0.4 - 0.8 * Math.abs(value - 0.25))];

async function scoreMaps(pair, image) {
  const shown = element("div", { className: "maps" });
  for (const [name, [letter, raised, words]] of Object.entries(MAPS)) {
    const map = pair.score_maps[name];
    if (!map) continue;
    const canvas = element("canvas", { width: image.width, height: image.height });
    const target = canvas.getContext("2d"), range = `${map.low.toFixed(2)} to ${map.high.toFixed(2)}`;
    target.globalAlpha = 0.35;
    target.drawImage(image, 0, 0);
    target.globalAlpha = 1;
    const grey = await createImageBitmap(png(map.png));
    target.drawImage(recoloured(grey, (value, alpha) => [...heat(value / 255), alpha]), 0, 0);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `score map of "${pair.defect.replaceAll("_", " ")}": ${words}, ${range}`);
    const told = element("span");
    told.append(letter, element("sup", { textContent: raised }), ` ${words}`, element("br"), range);
    const cell = element("div");
    cell.append(canvas, told);
    shown.append(cell);
  }
  return shown;
}

// ---- what was made in this session

const KEPT = 24;

function remember(pairs) {
  const made = pairs.filter(Boolean);
  if (!made.length) return;
  state.pairs = made;
  state.history.unshift(made);
  state.history.length = Math.min(state.history.length, KEPT);
  tellHistory();
}

function tellHistory() {
  $("past").hidden = state.history.length < 2;
  $("history").replaceChildren(...state.history.map((pairs) => {
    const [first] = pairs, more = pairs.length > 1 ? ` and ${pairs.length - 1} more` : "";
    const words = `${first.category}, ${first.defect.replaceAll("_", " ")}, seed ${first.seed}${more}`;
    const button = element("button", { type: "button", title: words, ariaLabel: `Show again: ${words}` });
    if (pairs === state.pairs) button.setAttribute("aria-current", "true");
    button.append(element("img", { src: `data:image/png;base64,${first.image}`, alt: "" }));
    button.addEventListener("click", () => showAgain(pairs).catch((error) => say(error.message, true)));
    const item = element("li");
    item.append(button);
    return item;
  }));
}

async function showAgain(pairs) {
  if (state.asking) return say("Wait until the pairs are made, or stop them.");
  state.pairs = pairs;
  $("results").replaceChildren();
  for (const [index, pair] of pairs.entries()) await show(index, pair);
  tellHistory();
  say(`Shown again: ${pairs.length} ${pairs.length === 1 ? "pair" : "pairs"}.`);
}

// ---- handing out

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const table = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});
const crc = (data) => ~data.reduce((sum, byte) => table[(sum ^ byte) & 255] ^ (sum >>> 8), -1) >>> 0;

// A zip of stored files: local headers and contents, then the directory.
function zip(files) {
  const parts = [], directory = [];
  let at = 0;
  for (const [name, data] of files) {
    const word = new TextEncoder().encode(name), head = new DataView(new ArrayBuffer(26));
    [[0, 20], [2, 0x800], [4, 0], [6, 0], [8, 33]].forEach(([where, value]) => head.setUint16(where, value, true));
    head.setUint32(10, crc(data), true);
    head.setUint32(14, data.length, true);
    head.setUint32(18, data.length, true);
    head.setUint16(22, word.length, true);
    const entry = new DataView(new ArrayBuffer(16));
    entry.setUint32(12, at, true);
    parts.push("PK\x03\x04", head, word, data);
    directory.push(new Uint8Array([80, 75, 1, 2, 20, 0]), head, entry.buffer.slice(2), word);
    at += 30 + word.length + data.length;
  }
  const length = files.reduce((sum, [name]) => sum + 46 + new TextEncoder().encode(name).length, 0);
  const end = new DataView(new ArrayBuffer(18));
  end.setUint16(4, files.length, true);
  end.setUint16(6, files.length, true);
  end.setUint32(8, length, true);
  end.setUint32(12, at, true);
  return new Blob([...parts, ...directory, "PK\x05\x06", end], { type: "application/zip" });
}

function saveAll() {
  const files = [], rows = [];
  for (const pair of state.pairs.filter(Boolean)) {
    const { image, mask: drawn, score_maps: maps, ...row } = pair;
    files.push([`${stem(pair)}.png`, bytes(image)], [`${stem(pair)}_mask.png`, bytes(drawn)]);
    if (maps) row.score_maps = {};
    for (const [name, { png: map, low, high }] of Object.entries(maps || {})) {
      files.push([`${stem(pair)}_score_${name}.png`, bytes(map)]);
      row.score_maps[name] = { low, high };
    }
    rows.push(JSON.stringify(row) + "\n");
  }
  files.push(["metadata.jsonl", new TextEncoder().encode(rows.join(""))]);
  save(zip(files), "pairs.zip");
}
