// What there is of a film, played (see player.py). Frames are asked for when they are to be shown,
// and some ahead. The newest is shown, until another one is chosen or the film is played.

import { make } from "./elements.js";

const AHEAD = 8; // frames that are asked for before they are shown
const KEPT = 1000; // frames that the page holds at most

function render({ model, el }) {
  const canvas = make("canvas", { role: "img", "aria-label": "The film so far" });
  const play = make("button", { onclick: () => (timer ? pause() : start()) }, "Play");
  const place = make("input", {
    type: "range",
    min: 0,
    max: 0,
    value: 0,
    "aria-label": "Frame",
    oninput: () => (pause(), show(Number(place.value))),
  });
  const where = make("span", { class: "nst-rate" });
  const go = make("button", { onclick: () => model.send({ do: go.dataset.do }) });
  const say = make("div", { class: "nst-says", role: "status" });
  const kept = new Map(); // JPEGs by the frames' names
  const asked = new Set();
  let frames = [],
    wanted = 0,
    drawn = "",
    decoding = false,
    timer = 0,
    begun = 0,
    following = true;

  // Whether a frame is here. If not, it is asked for.
  const has = (i) => {
    if (i >= frames.length || kept.has(frames[i][0])) return i < frames.length;
    if (!asked.has(frames[i][0])) model.send({ do: "frame", name: frames[i][0] });
    asked.add(frames[i][0]);
    return false;
  };
  const show = (i) => {
    wanted = i;
    following = i === frames.length - 1 && !timer;
    place.value = i;
    where.textContent = `${frames[i][1].toFixed(2)} s`;
    if (has(i)) draw();
  };
  // The wanted frame; while one is being decoded, others may pass by.
  const draw = async () => {
    const name = frames[wanted]?.[0];
    if (decoding || drawn === name || !kept.has(name)) return;
    decoding = true;
    const bitmap = await createImageBitmap(kept.get(name));
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    canvas.parentNode.style.aspectRatio = bitmap.width / bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    [drawn, decoding] = [name, false];
    draw();
  };

  // The clock stands still while the next frame is not here yet.
  const next = (now) => {
    if (now - begun > 1000 * frames.at(-1)[2]) begun = now;
    const i = Math.max(
      0,
      frames.findLastIndex(([, from]) => 1000 * from <= now - begun),
    );
    for (let k = 1; k <= AHEAD; k++) has((i + k) % frames.length);
    if (has(i)) show(i);
    else begun = now - 1000 * frames[wanted][1];
    timer = requestAnimationFrame(next);
  };
  const start = () => {
    if (!frames.length) return;
    if (wanted >= frames.length - 1) wanted = 0;
    begun = performance.now() - 1000 * frames[wanted][1];
    play.textContent = "Pause";
    timer = requestAnimationFrame(next);
  };
  const pause = () => {
    cancelAnimationFrame(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const hear = (content, buffers) => {
    asked.delete(content.name);
    kept.set(content.name, new Blob([buffers[0]], { type: "image/jpeg" }));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    draw();
  };
  const update = () => {
    frames = model.get("frames");
    place.max = Math.max(0, frames.length - 1);
    play.disabled = place.disabled = !frames.length;
    if (!frames.length) (pause(), asked.clear(), (following = true), (where.textContent = ""));
    else if (!timer) show(following ? frames.length - 1 : Math.min(wanted, frames.length - 1));
  };
  const tell = () => {
    const [{ text, error }, state] = [model.get("status"), model.get("state")];
    say.textContent = text;
    say.dataset.kind = error ? "error" : "note";
    say.ariaLive = state === "painting" ? "off" : "polite"; // not each frame is read out
    go.textContent = { painting: "Stop", stopping: "Stopping" }[state] ?? "Paint film";
    go.dataset.do = state === "painting" ? "stop" : "paint";
    go.disabled = state === "stopping";
  };
  el.classList.add("nst-screen", "nst-player");
  el.append(
    make("div", { class: "nst-row" }, go, say),
    make("div", { class: "nst-frame" }, canvas),
    make("div", { class: "nst-row" }, play, place, where),
  );
  model.on("msg:custom", hear);
  model.on("change:frames", update);
  model.on("change:status", tell);
  model.on("change:state", tell);
  update();
  tell();
  return () => {
    pause();
    model.off("msg:custom", hear);
    model.off("change:frames", update);
    model.off("change:status", tell);
    model.off("change:state", tell);
  };
}

export default { render };
