"use strict";
// The page of the endpoint: what there is to ask for, the asking itself, and the same request elsewhere. Loaded last: the
// buttons name functions of board.js and results.js.

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
  tellReferences();
  const m = state.model;
  $("about").textContent = `${m.resolution} × ${m.resolution} pixels · weights ${m.weights_sha256.slice(0, 8)}` +
    (m.licence ? ` · licence of the images: ${m.licence}` : "");
  state.number = 0;
  state.own = null;
  await showBase();
}

// The run's real defects that one may start from; they have numbers, not pictures.
function tellReferences() {
  const count = state.model.references[$("defect").value] || 0, kept = $("reference").value;
  $("reference").replaceChildren(new Option("any, by the seed", ""),
    ...Array.from({ length: count }, (_, at) => new Option(`number ${at + 1} of ${count}`, at)));
  if (kept && Number(kept) < count) $("reference").value = kept;
}

const DEPTHS = { base: 80, reference: 45 };

function chooseStart() {
  const from = $("from").value;
  $("noised").hidden = !from;
  $("which-reference").hidden = from !== "reference";
  if (from) $("strength").value = DEPTHS[from];
  $("told").textContent = `${$("strength").value}%`;
  tellRequest();
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
  state.example = false;
  if (!state.greeted && !state.own) drawExample();
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
  if ($("from").value) said.strength = Number($("strength").value) / 100;
  if ($("from").value === "reference") {
    said.start = "reference";
    if ($("reference").value) said.reference_number = Number($("reference").value);
  }
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
    state.greeted = true;
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
        remember(state.pairs);
        return;
      }
    }
  }
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
$("clear").addEventListener("click", () => { state.shapes = []; state.example = false; state.corner = null; draw(); });
$("stop").addEventListener("click", () => state.asking && state.asking.abort());
$("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 1e9); tellRequest(); });
$("from").addEventListener("change", chooseStart);
$("defect").addEventListener("change", () => { tellReferences(); tellRequest(); });
$("strength").addEventListener("input", () => { $("told").textContent = `${$("strength").value}%`; });
$("overlay").addEventListener("change", () => document.querySelectorAll("#results .two canvas").forEach((c) => c.redraw()));
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
