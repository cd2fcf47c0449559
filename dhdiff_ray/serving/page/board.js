"use strict";
// The board: where a defect shall be, drawn by mouse, finger or keys. Loaded first: holds what all three scripts share.

const $ = (id) => document.getElementById(id);
const state = { models: [], model: null, number: 0, own: null, picture: null, shapes: [], pairs: [], asking: null,
  history: [], example: false, greeted: false, cross: null, corner: null, token: sessionStorage.getItem("dhdiff-token") || "" };

const board = $("board"), pen = board.getContext("2d");
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
  $("where").textContent = state.example ? "An example is drawn: press Make pairs, or draw your own place over it." :
    count ? `${count} ${count === 1 ? "mark" : "marks"} drawn` : "Nothing drawn: the defect goes where a real one was.";
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

// A box in the middle, so that the first press of Make pairs shows what a place is; the first mark of one's own ends it.
function drawExample() {
  const third = (side, at) => Math.round(side * at);
  state.shapes = [{ kind: "box", box: [third(board.width, 0.375), third(board.height, 0.375),
    third(board.width, 0.625), third(board.height, 0.625)] }];
  state.example = true;
}

function endExample() {
  if (state.example) state.shapes = [];
  state.example = false;
}

function start(at) {
  endExample();
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

function undo() { state.shapes.pop(); state.example = false; state.corner = null; draw(); }
