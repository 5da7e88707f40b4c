// The browser's camera, and what the kernel makes of its frames (see camera.py). A frame is sent
// when the one before has come back, and only while the page is seen; out of sight, the camera is
// released.

import { make } from "./elements.js";
import { picture } from "./pictures.js";

const TIMEOUT = 10000; // ms without an answer after which nothing more is sent
const QUALITY = 0.9; // of the JPEGs that are sent
const COUNTED = 21; // answers over which the rate is measured
const NO_CAMERA = "The browser gives the camera only to pages from localhost or by https";
const NO_ANSWER = "The kernel does not answer; is it busy?";

// A slider from 0 to 1 with its name.
function slider(name, value) {
  const input = make("input", {
    type: "range", min: 0, max: 1, step: 0.01, value, "aria-label": name,
  });
  const node = make("label", {}, make("span", {}, name.replaceAll("_", " ")), input);
  return { node, value: () => Number(input.value) };
}

// A slider for the share of each painting; the first has all at first.
function mixer(names) {
  const sliders = names.map((name, i) => slider(name, i ? 0 : 1));
  const values = () => {
    const shares = sliders.map(({ value }) => value());
    if (shares.every((share) => share === 0)) shares[0] = 1;
    return shares;
  };
  return { nodes: sliders.map(({ node }) => node), values };
}

// How many pictures a second have come lately.
function rate() {
  const node = make("span", { class: "nst-rate" });
  let times = [];
  const count = () => {
    times = [...times.slice(1 - COUNTED), performance.now()];
    if (times.length < 2) return;
    const seconds = (times.at(-1) - times[0]) / 1000;
    node.textContent = `${((times.length - 1) / seconds).toFixed(1)} pictures a second`;
  };
  const reset = () => {
    times = [];
    node.textContent = "";
  };
  return { node, count, reset };
}

// Calls onChange(whether the element can be seen), and returns a function that ends it.
function watchVisibility(el, onChange) {
  let onScreen = false;
  const update = () => onChange(onScreen && document.visibilityState === "visible");
  const observer = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).isIntersecting;
    update();
  });
  observer.observe(el);
  document.addEventListener("visibilitychange", update);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", update);
  };
}

// The video's picture as a JPEG, as in a mirror, with a long side of so many pixels.
function capture(video, canvas, side) {
  const factor = side / Math.max(video.videoWidth, video.videoHeight);
  canvas.width = Math.round(video.videoWidth * factor);
  canvas.height = Math.round(video.videoHeight * factor);
  const context = canvas.getContext("2d");
  context.setTransform(-1, 0, 0, 1, canvas.width, 0);
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}

function render({ model, el }) {
  const video = make("video", { playsinline: "", "aria-label": "The camera" });
  video.muted = true;
  const canvas = make("canvas");
  const painted = picture("The camera's picture, painted", "");
  const status = make("div", { class: "nst-status-line", role: "status" });
  const speed = rate();
  const shares = mixer(model.get("paintings"));
  const strength = slider("strength", 1);
  const side = make("select", { "aria-label": "Long side of the picture in pixels" },
    ...model.get("sides").map((px) => make("option", { value: px }, `${px} px`)));
  side.value = model.get("side");
  const start = make("button", { onclick: () => (wanted ? end() : begin()) }, "Start the camera");
  const save = make("button", {
    title: "Keep this picture as a file", onclick: () => model.send({ do: "save" }),
  }, "Save picture");
  let stream = null;
  let wanted = false; // whether the button says so
  let seen = false;
  let waiting = false; // for a frame to come back
  let number = 0; // of the last frame that was sent
  let timeout = 0;

  const stopTracks = (media) => media?.getTracks().forEach((track) => track.stop());
  const begin = async () => {
    wanted = true;
    start.textContent = "Stop";
    if (stream || !seen) return;
    try {
      const media = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
      if (!wanted || !seen || stream) {
        stopTracks(media);
        return;
      }
      stream = media;
      video.srcObject = media;
      await video.play();
    } catch (error) {
      end();
      status.textContent =
        navigator.mediaDevices ? `The camera cannot be used: ${error.message}` : NO_CAMERA;
      return;
    }
    status.textContent = "";
    model.send({ do: "begin" });
    sendFrame();
  };
  const release = () => {
    stopTracks(stream);
    stream = null;
    video.srcObject = null;
    clearTimeout(timeout);
    waiting = false;
    speed.reset();
  };
  const end = () => {
    wanted = false;
    start.textContent = "Start the camera";
    release();
    model.send({ do: "end" });
  };

  const sendFrame = async () => {
    if (!stream || waiting) return;
    if (!video.videoWidth) {
      requestAnimationFrame(sendFrame);
      return;
    }
    waiting = true;
    const blob = await capture(video, canvas, Number(side.value));
    const data = await blob.arrayBuffer();
    if (!stream) return;
    number += 1;
    const content = {
      do: "frame", id: number, shares: shares.values(), alpha: strength.value(),
    };
    model.send(content, undefined, [data]);
    timeout = setTimeout(() => {
      end();
      status.textContent = NO_ANSWER;
    }, TIMEOUT);
  };
  const receive = (content, buffers) => {
    if (content.do === "say") {
      status.textContent = content.text;
      if (content.error && waiting) end();
      return;
    }
    if (content.id !== number || !stream) return;
    clearTimeout(timeout);
    painted.show(buffers[0]);
    speed.count();
    waiting = false;
    requestAnimationFrame(sendFrame);
  };
  model.on("msg:custom", receive);

  const unwatch = watchVisibility(el, (visible) => {
    const before = seen;
    seen = visible;
    if (seen && !before && wanted) begin();
    if (!seen && before && stream) {
      release();
      model.send({ do: "end" });
    }
  });
  el.classList.add("nst-screen", "nst-camera");
  el.append(
    make("div", { class: "nst-frame" }, painted, video),
    make("div", { class: "nst-row" }, start, save, side, speed.node),
    status, strength.node, ...shares.nodes);
  return () => {
    wanted = false;
    release();
    model.send({ do: "end" });
    model.off("msg:custom", receive);
    unwatch();
    painted.release();
  };
}

export default { render };
