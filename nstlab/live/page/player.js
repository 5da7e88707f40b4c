// The frames of a film so far, played (see player.py). Frames are asked for when they are to be
// shown, and some ahead. The newest is shown, until another one is chosen or the film is played.

import { make } from "./elements.js";

const AHEAD = 8; // frames that are asked for before they are shown
const KEPT = 1000; // frames that the page holds at most
const LABELS = { painting: "Stop", stopping: "Stopping" }; // of the button, by the film's state

function render({ model, el }) {
  const canvas = make("canvas", { role: "img", "aria-label": "The film so far" });
  const play = make("button", { onclick: () => (timer ? pause() : start()) }, "Play");
  const position = make("input", {
    type: "range", min: 0, max: 0, value: 0, "aria-label": "Frame",
    oninput: () => {
      pause();
      show(Number(position.value));
    },
  });
  const time = make("span", { class: "nst-rate" });
  const paint = make("button", { onclick: () => model.send({ do: paint.dataset.do }) });
  const status = make("div", { class: "nst-status-line", role: "status" });
  const jpegs = new Map(); // by the frames' names
  const requested = new Set(); // names of frames
  let frames = []; // [name, when it is shown, until when]
  let shown = 0; // index of the frame to show
  let drawn = ""; // name of the frame on the canvas
  let decoding = false;
  let timer = 0; // 0 unless the film is played
  let startedAt = 0; // ms: when its first frame was shown, or would have been
  let following = true; // whether the newest frame is shown

  // Whether a frame is in the page. If not, it is asked for.
  const has = (index) => {
    if (index >= frames.length) return false;
    const name = frames[index][0];
    if (jpegs.has(name)) return true;
    if (!requested.has(name)) model.send({ do: "frame", name });
    requested.add(name);
    return false;
  };
  const show = (index) => {
    shown = index;
    following = index === frames.length - 1 && !timer;
    position.value = index;
    time.textContent = `${frames[index][1].toFixed(2)} s`;
    if (has(index)) draw();
  };
  // Draws the frame to show. While one is being decoded, others may pass by.
  const draw = async () => {
    const name = frames[shown]?.[0];
    if (decoding || drawn === name || !jpegs.has(name)) return;
    decoding = true;
    const bitmap = await createImageBitmap(jpegs.get(name));
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    canvas.parentNode.style.aspectRatio = bitmap.width / bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    drawn = name;
    decoding = false;
    draw();
  };

  // The clock stands still while the next frame is not in the page yet.
  const tick = (now) => {
    if (now - startedAt > 1000 * frames.at(-1)[2]) startedAt = now;
    const begun = frames.findLastIndex(([, from]) => 1000 * from <= now - startedAt);
    const index = Math.max(0, begun);
    for (let i = 1; i <= AHEAD; i++) has((index + i) % frames.length);
    if (has(index)) show(index);
    else startedAt = now - 1000 * frames[shown][1];
    timer = requestAnimationFrame(tick);
  };
  const start = () => {
    if (!frames.length) return;
    if (shown >= frames.length - 1) shown = 0;
    startedAt = performance.now() - 1000 * frames[shown][1];
    play.textContent = "Pause";
    timer = requestAnimationFrame(tick);
  };
  const pause = () => {
    cancelAnimationFrame(timer);
    timer = 0;
    play.textContent = "Play";
  };

  const receive = (content, buffers) => {
    requested.delete(content.name);
    jpegs.set(content.name, new Blob([buffers[0]], { type: "image/jpeg" }));
    if (jpegs.size > KEPT) jpegs.delete(jpegs.keys().next().value);
    draw();
  };
  const showFrames = () => {
    frames = model.get("frames");
    const last = Math.max(0, frames.length - 1);
    position.max = last;
    position.disabled = !frames.length;
    play.disabled = !frames.length;
    if (!frames.length) {
      pause();
      requested.clear();
      following = true;
      time.textContent = "";
    } else if (!timer) {
      show(following ? last : Math.min(shown, last));
    }
  };
  const showStatus = () => {
    const { text, error } = model.get("status");
    const state = model.get("state");
    status.textContent = text;
    status.dataset.kind = error ? "error" : "note";
    status.ariaLive = state === "painting" ? "off" : "polite"; // not each frame is read out
    paint.textContent = LABELS[state] ?? "Paint film";
    paint.dataset.do = state === "painting" ? "stop" : "paint";
    paint.disabled = state === "stopping";
  };

  el.classList.add("nst-screen", "nst-player");
  el.append(
    make("div", { class: "nst-row" }, paint, status),
    make("div", { class: "nst-frame" }, canvas),
    make("div", { class: "nst-row" }, play, position, time));
  const listeners = {
    "msg:custom": receive,
    "change:frames": showFrames,
    "change:status": showStatus,
    "change:state": showStatus,
  };
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  showFrames();
  showStatus();
  return () => {
    pause();
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
  };
}

export default { render };
