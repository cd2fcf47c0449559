"use strict";
// The page of the endpoint: draws where a defect shall be, asks for pairs as events, shows and hands them out.

const $ = (id) => document.getElementById(id);
const board = $("board"), pen = board.getContext("2d");
const state = { models: [], model: null, number: 0, own: null, picture: null, shapes: [], pairs: [], asking: null,
  cross: null, corner: null, token: sessionStorage.getItem("dhdiff-token") || "" };

// ---- talking to the endpoint

async function call(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) { $("locked").hidden = false; $("token").focus(); }
  const error = new Error(problem.detail || `the endpoint answered ${answer.status}`);
  error.wait = answer.status === 503 || answer.status === 429 ? Number(answer.headers.get("Retry-After") || 3) : 0;
  throw error;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function begin() {
  try {
    state.models = (await (await call("v1/models")).json()).models;
    $("locked").hidden = true;
    fill($("category"), state.models.map((m) => m.category));
    await chooseCategory();
    say("");
  } catch (error) { say(error.message, true); }
}

function fill(select, words) {
  select.replaceChildren(...words.map((word) => new Option(word, word)));
}

async function chooseCategory() {
  const name = encodeURIComponent($("category").value);
  state.model = await (await call(`v1/models/${name}`)).json();
  fill($("defect"), state.model.defects);
  $("n").max = state.model.limits.max_n;
  $("steps").max = state.model.limits.max_steps;
  $("steps").placeholder = state.model.defaults.steps;
  $("guidance").placeholder = state.model.defaults.guidance;
  const m = state.model;
  $("about").textContent = `${m.resolution} × ${m.resolution} pixels · weights ${m.weights_sha256.slice(0, 8)}` +
    (m.licence ? ` · licence of the images: ${m.licence}` : "");
  state.number = 0;
  state.own = null;
  await showBase();
}

async function showBase() {
  if (state.own) {
    state.picture = state.own;
    $("which").textContent = "your image";
  } else {
    const path = `v1/models/${encodeURIComponent(state.model.category)}/bases/${state.number}`;
    state.picture = await createImageBitmap(await (await call(path)).blob());
    $("which").textContent = `normal image ${state.number + 1} of ${state.model.bases}`;
  }
  board.width = state.picture.width;
  board.height = state.picture.height;
  state.shapes = [];
  state.cross = [Math.floor(board.width / 2), Math.floor(board.height / 2)];
  state.corner = null;
  draw();
}

async function step(by) {
  state.own = null;
  state.number = (state.number + by + state.model.bases) % state.model.bases;
  await showBase().catch((error) => say(error.message, true));
}

async function upload(file) {
  if (!file) return;
  try {
    const whole = await createImageBitmap(file);
    const scale = Math.min(1, 1024 / Math.max(whole.width, whole.height));
    state.own = await createImageBitmap(whole, { resizeWidth: Math.max(8, Math.round(whole.width * scale)),
      resizeHeight: Math.max(8, Math.round(whole.height * scale)), resizeQuality: "high" });
    await showBase();
  } catch { say("this file is no image that the browser can read; choose a PNG or JPEG", true); }
}

// ---- drawing

const tool = () => document.querySelector("input[name=tool]:checked").value;
const radius = () => Math.max(0.5, Number($("size").value) / 100 * Math.max(board.width, board.height));

function paint(target, shape) {
  if (shape.kind === "box") {
    const [left, top, right, bottom] = shape.box;
    target.fillRect(left, top, right - left, bottom - top);
  } else if (shape.kind === "point") {
    const grid = state.model.grid, [x, y] = shape.at, wide = board.width / grid, high = board.height / grid;
    const left = Math.round(Math.floor(x / wide) * wide), top = Math.round(Math.floor(y / high) * high);
    target.fillRect(left, top, Math.round(wide), Math.round(high));
  } else {
    for (const [x, y] of shape.dots) {
      target.beginPath();
      target.arc(x, y, shape.radius, 0, 7);
      target.fill();
    }
  }
}

function mask() {
  const made = new OffscreenCanvas(board.width, board.height), target = made.getContext("2d");
  target.fillStyle = "#000";
  target.fillRect(0, 0, made.width, made.height);
  target.fillStyle = "#fff";
  for (const shape of state.shapes) paint(target, shape);
  return made;
}

function draw() {
  pen.drawImage(state.picture, 0, 0, board.width, board.height);
  const veil = new OffscreenCanvas(board.width, board.height), target = veil.getContext("2d");
  target.fillStyle = "#00b4d8";
  for (const shape of state.shapes) paint(target, shape);
  pen.globalAlpha = 0.5;
  pen.drawImage(veil, 0, 0);
  pen.globalAlpha = 1;
  if (document.activeElement === board) {
    const [x, y] = state.cross, arm = Math.max(2, board.width / 16);
    pen.strokeStyle = "#000"; pen.lineWidth = Math.max(1, board.width / 128);
    pen.strokeRect(x - arm / 2, y - arm / 2, arm, arm);
    pen.strokeStyle = "#fff";
    pen.strokeRect(x - arm / 2 - pen.lineWidth, y - arm / 2 - pen.lineWidth, arm + 2 * pen.lineWidth, arm + 2 * pen.lineWidth);
  }
  const count = state.shapes.length;
  $("where").textContent = count ? `${count} ${count === 1 ? "mark" : "marks"} drawn` :
    "Nothing drawn: the defect goes where a real one was.";
  tellRequest();
}

function spot(event) {
  const frame = board.getBoundingClientRect();
  return [Math.min(Math.max((event.clientX - frame.left) / frame.width * board.width, 0), board.width - 0.01),
    Math.min(Math.max((event.clientY - frame.top) / frame.height * board.height, 0), board.height - 0.01)];
}

function boxOf([x, y], [u, v]) {
  const left = Math.floor(Math.min(x, u)), top = Math.floor(Math.min(y, v));
  return [left, top, Math.max(left + 1, Math.ceil(Math.max(x, u))), Math.max(top + 1, Math.ceil(Math.max(y, v)))];
}

function start(at) {
  const kind = tool();
  if (kind === "box") state.shapes.push({ kind, box: boxOf(at, at), from: at });
  else if (kind === "point") state.shapes.push({ kind, at: at.map(Math.floor) });
  else state.shapes.push({ kind, dots: [at], radius: radius() });
  draw();
}

function move(at) {
  const shape = state.shapes[state.shapes.length - 1];
  if (!shape) return;
  if (shape.kind === "box") shape.box = boxOf(shape.from, at);
  else if (shape.kind === "brush") {
    const [x, y] = shape.dots[shape.dots.length - 1], far = Math.hypot(at[0] - x, at[1] - y);
    const pieces = Math.max(1, Math.ceil(far / (shape.radius / 2)));
    for (let i = 1; i <= pieces; i++) shape.dots.push([x + (at[0] - x) * i / pieces, y + (at[1] - y) * i / pieces]);
  }
  draw();
}

board.addEventListener("pointerdown", (event) => {
  board.focus({ preventScroll: true });
  board.setPointerCapture(event.pointerId);
  state.cross = spot(event);
  start(state.cross);
});
board.addEventListener("pointermove", (event) => { if (board.hasPointerCapture(event.pointerId)) move(spot(event)); });
board.addEventListener("focus", () => state.picture && draw());
board.addEventListener("blur", () => state.picture && draw());
board.addEventListener("keydown", (event) => {
  const pace = Math.max(1, Math.round(board.width / 64)) * (event.shiftKey ? 4 : 1);
  const moves = { ArrowLeft: [-pace, 0], ArrowRight: [pace, 0], ArrowUp: [0, -pace], ArrowDown: [0, pace] };
  if (moves[event.key]) {
    const [x, y] = state.cross, [dx, dy] = moves[event.key];
    state.cross = [Math.min(Math.max(x + dx, 0), board.width - 1), Math.min(Math.max(y + dy, 0), board.height - 1)];
    if (state.corner) move(state.cross); else draw();
  } else if (event.key === " " || event.key === "Enter") {
    if (tool() === "box" && state.corner) { move(state.cross); state.corner = null; }
    else { start(state.cross); state.corner = tool() === "box" ? state.cross : null; }
  } else if ((event.key === "z" && (event.ctrlKey || event.metaKey)) || event.key === "Backspace") undo();
  else return;
  event.preventDefault();
});

function undo() { state.shapes.pop(); state.corner = null; draw(); }

// ---- asking

const blobOf = (canvas) => canvas.convertToBlob({ type: "image/png" });
function baseCanvas() {
  const made = new OffscreenCanvas(board.width, board.height);
  made.getContext("2d").drawImage(state.picture, 0, 0);
  return made;
}

function fields() {
  const said = { defect: $("defect").value, seed: $("seed").value, n: Number($("n").value) };
  if (!state.own) said.base_number = state.number;
  if ($("steps").value) said.steps = Number($("steps").value);
  if ($("guidance").value) said.guidance = Number($("guidance").value);
  if ($("weak").checked) said.strength = Number($("strength").value) / 100;
  if ($("maps").checked) said.score_maps = true;
  const kinds = new Set(state.shapes.map((shape) => shape.kind));
  if (kinds.size === 1 && kinds.has("point")) said.points = state.shapes.map((shape) => shape.at);
  if (kinds.size === 1 && kinds.has("box")) said.boxes = state.shapes.map((shape) => shape.box);
  said.drawn = kinds.has("brush") || kinds.size > 1;
  return said;
}

async function form() {
  const { drawn, ...said } = fields(), made = new FormData();
  for (const [name, value] of Object.entries(said)) {
    made.append(name, Array.isArray(value) ? JSON.stringify(value) : String(value));
  }
  if (state.own) made.append("base", await blobOf(baseCanvas()), "base.png");
  if (drawn) made.append("control_mask", await blobOf(mask()), "control.png");
  if ($("previews").checked) made.append("previews", "true");
  return made;
}

async function ask() {
  state.asking = new AbortController();
  $("go").disabled = true;
  $("stop").disabled = false;
  $("bar").value = 0;
  say("Asking…");
  try {
    const path = `v1/categories/${encodeURIComponent(state.model.category)}/pairs:stream`;
    const answer = await call(path, { method: "POST", body: await form(), signal: state.asking.signal });
    state.pairs = [];
    await follow(answer.body.pipeThrough(new TextDecoderStream()).getReader());
  } catch (error) {
    const again = error.wait ? ` (in ${error.wait} s)` : "";
    if (error.name === "AbortError") say("Stopped."); else say(error.message + again, true);
  } finally {
    $("go").disabled = false;
    $("stop").disabled = true;
    state.asking = null;
  }
}

async function follow(reader) {
  let rest = "", wanted = 1;
  const done = {};
  for (;;) {
    const chunk = await reader.read();
    if (chunk.done) throw new Error("the endpoint broke off; ask again");
    const lines = (rest + chunk.value).split("\n");
    rest = lines.pop();
    for (const event of lines.map((line) => JSON.parse(line))) {
      if (event.event === "queued") {
        wanted = event.n;
        $("results").replaceChildren();
        say(event.ahead ? `Waiting behind ${event.ahead}…` : "Drawing…");
      } else if (event.event === "progress") {
        done[event.pair] = event.done / event.total;
        $("bar").value = Object.values(done).reduce((a, b) => a + b, 0) / wanted;
        say(`Drawing: step ${event.done} of ${event.total}`);
      } else if (event.event === "preview") {
        const figure = figureAt(event.pair), told = `step ${event.done} of ${event.total}`;
        figure.querySelector("figcaption").textContent = `being drawn: ${told}`;
        await paintPair(figure, event, `pair ${event.pair + 1} being drawn, ${told}`);
      } else if (event.event === "pair") {
        state.pairs[event.index] = event.pair;
        await show(event.index, event.pair);
      } else if (event.event === "failed") throw new Error(event.problem.detail);
      else if (event.event === "done") {
        $("bar").value = 1;
        say(`${event.n} ${event.n === 1 ? "pair" : "pairs"} made.`);
        $("zip").disabled = false;
        return;
      }
    }
  }
}

// ---- showing and handing out

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
  const figure = element("figure"), canvas = element("canvas");
  canvas.setAttribute("role", "img");
  figure.dataset.index = index;
  figure.append(canvas, element("figcaption"));
  $("results").insertBefore(figure, others.find((other) => Number(other.dataset.index) > index) || null);
  return figure;
}

async function paintPair(figure, made, label) {
  const canvas = figure.querySelector("canvas");
  const image = await createImageBitmap(png(made.image)), veil = await createImageBitmap(png(made.mask));
  canvas.width = image.width; canvas.height = image.height;
  canvas.setAttribute("aria-label", label);
  canvas.redraw = () => {
    const target = canvas.getContext("2d");
    target.drawImage(image, 0, 0);
    if (!$("overlay").checked) return;
    target.drawImage(recoloured(veil, (value) => [0, 180, 216, value ? 130 : 0]), 0, 0);
  };
  canvas.redraw();
  return image;
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
  if (pair.score_maps) figure.append(await scoreMaps(pair, image));
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

// ---- the same request elsewhere

function tellRequest() {
  if (!state.model) return;
  const { drawn, ...said } = fields(), base = location.href.replace(/[?#].*$/, "").replace(/\/$/, "");
  const category = state.model.category;
  const files = [...(state.own ? ["base"] : []), ...(drawn ? ["control_mask"] : [])];
  const named = { base: "base.png", control_mask: "control.png" };
  const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  const lines = [`curl -s ${quoted(`${base}/v1/categories/${encodeURIComponent(category)}/pairs`)}`];
  if (state.token) lines.push('-H "Authorization: Bearer $TOKEN"');
  for (const [name, value] of Object.entries(said)) {
    lines.push(`-F ${quoted(`${name}=${Array.isArray(value) ? JSON.stringify(value) : value}`)}`);
  }
  for (const name of files) lines.push(`-F ${name}=@${named[name]}`);
  lines.push("-F response=zip -o pairs.zip");
  $("curl").textContent = lines.join(" \\\n  ");
  const written = (name, value) => (name === "seed" ? value : value === true ? "True" : JSON.stringify(value));
  const words = Object.entries(said).map(([name, value]) => `${name}=${written(name, value)}`);
  for (const name of files) words.push(`${name}=open(${JSON.stringify(named[name])}, "rb").read()`);
  const token = state.token ? ', token=os.environ["TOKEN"]' : "";
  $("python").textContent = (state.token ? "import os\n" : "") + "from dhdiff_ray.client import Client\n\n" +
    `with Client(${JSON.stringify(base)}${token}) as client:\n` +
    `    for pair in client.pairs(${JSON.stringify(category)}, ${words.join(", ")}):\n` +
    '        open(f"{pair.seed}.png", "wb").write(pair.image)\n' +
    '        open(f"{pair.seed}_mask.png", "wb").write(pair.mask)\n';
  $("save-base").hidden = !state.own;
  $("save-control").hidden = !drawn;
}

// ---- buttons

$("ask").addEventListener("submit", (event) => { event.preventDefault(); if (!state.asking && state.model) ask(); });
$("ask").addEventListener("input", tellRequest);
$("category").addEventListener("change", () => chooseCategory().catch((error) => say(error.message, true)));
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("upload").addEventListener("change", (event) => upload(event.target.files[0]));
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", () => { state.shapes = []; state.corner = null; draw(); });
$("stop").addEventListener("click", () => state.asking && state.asking.abort());
$("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 1e9); tellRequest(); });
$("weak").addEventListener("change", () => { $("strength").disabled = !$("weak").checked; });
$("strength").addEventListener("input", () => { $("told").textContent = `${$("strength").value}%`; });
$("overlay").addEventListener("change", () => document.querySelectorAll("#results figure > canvas").forEach((c) => c.redraw()));
$("zip").addEventListener("click", saveAll);
$("save-base").addEventListener("click", async () => save(await blobOf(baseCanvas()), "base.png"));
$("save-control").addEventListener("click", async () => save(await blobOf(mask()), "control.png"));
$("unlock").addEventListener("click", () => {
  state.token = $("token").value.trim();
  sessionStorage.setItem("dhdiff-token", state.token);
  begin();
});
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.from).textContent).catch(() => {});
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
begin();
