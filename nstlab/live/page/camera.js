// The browser's camera, and what the kernel makes of its frames (see camera.py). A frame is sent
// when the one before has come back, and only while the page is seen; out of sight, the camera is
// let go of.

import { make } from "./elements.js";

const LATE = 10000; // ms without an answer after which nothing more is sent
const QUALITY = 0.9; // of the JPEGs that are sent

// A slider from 0 to 1 with its name.
function slider(name, value) {
  const input = make("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    value,
    "aria-label": name,
  });
  return {
    node: make("label", {}, make("span", {}, name.replaceAll("_", " ")), input),
    value: () => Number(input.value),
  };
}

function render({ model, el }) {
  const video = make("video", { playsinline: "", "aria-label": "The camera" });
  video.muted = true;
  const canvas = make("canvas");
  const painted = make("img", { alt: "The camera's picture, painted", draggable: "false" });
  const say = make("div", { class: "nst-says", role: "status" });
  const rate = make("span", { class: "nst-rate" });
  const names = model.get("paintings");
  const shares = names.map((name, i) => slider(name, i ? 0 : 1));
  const strength = slider("strength", 1);
  const side = make(
    "select",
    { "aria-label": "Long side of the picture in pixels" },
    ...model.get("sides").map((px) => make("option", { value: px }, `${px} px`)),
  );
  side.value = model.get("side");
  const go = make("button", { onclick: () => (wanted ? end() : begin()) }, "Start the camera");
  const save = make(
    "button",
    { title: "Keep this picture as a file", onclick: () => model.send({ do: "save" }) },
    "Save picture",
  );
  let stream = null,
    wanted = false,
    seen = false,
    waiting = false,
    number = 0,
    late = 0,
    url = "",
    moments = [];

  const begin = async () => {
    wanted = true;
    go.textContent = "Stop";
    if (stream || !seen) return;
    try {
      const got = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
      if (!wanted || !seen || stream) return got.getTracks().forEach((track) => track.stop());
      stream = video.srcObject = got;
      await video.play();
    } catch (error) {
      end();
      say.textContent = navigator.mediaDevices
        ? `The camera cannot be used: ${error.message}`
        : "The browser gives the camera only to pages from localhost or by https";
      return;
    }
    say.textContent = "";
    model.send({ do: "begin" });
    next();
  };
  const release = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
    clearTimeout(late);
    waiting = false;
    moments = [];
    rate.textContent = "";
  };
  const end = () => {
    wanted = false;
    go.textContent = "Start the camera";
    release();
    model.send({ do: "end" });
  };

  const next = () => {
    if (!stream || waiting) return;
    if (!video.videoWidth) return requestAnimationFrame(next);
    const factor = Number(side.value) / Math.max(video.videoWidth, video.videoHeight);
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight].map((px) =>
      Math.round(px * factor),
    );
    const context = canvas.getContext("2d");
    context.setTransform(-1, 0, 0, 1, canvas.width, 0); // as in a mirror
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    waiting = true;
    canvas.toBlob(
      async (blob) => {
        const data = await blob.arrayBuffer();
        if (!stream) return;
        const each = shares.map(({ value }) => value());
        if (!each.some((share) => share > 0)) each[0] = 1;
        model.send(
          { do: "frame", id: ++number, shares: each, alpha: strength.value() },
          undefined,
          [data],
        );
        late = setTimeout(
          () => (end(), (say.textContent = "The kernel does not answer; is it busy?")),
          LATE,
        );
      },
      "image/jpeg",
      QUALITY,
    );
  };
  const hear = (content, buffers) => {
    if (content.do === "say") {
      say.textContent = content.text;
      if (content.error && waiting) end();
      return;
    }
    if (content.id !== number || !stream) return;
    clearTimeout(late);
    const last = url;
    painted.src = url = URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
    if (last) URL.revokeObjectURL(last);
    moments = [...moments.slice(-20), performance.now()];
    if (moments.length > 1) {
      const interval = (moments.at(-1) - moments[0]) / (moments.length - 1); // ms
      rate.textContent = `${(1000 / interval).toFixed(1)} pictures a second`;
    }
    waiting = false;
    requestAnimationFrame(next);
  };
  model.on("msg:custom", hear);

  const watch = () => {
    const before = seen;
    seen = visible && document.visibilityState === "visible";
    if (seen && !before && wanted) begin();
    if (!seen && before && stream) (release(), model.send({ do: "end" }));
  };
  let visible = false;
  const observer = new IntersectionObserver(
    (entries) => ((visible = entries.at(-1).isIntersecting), watch()),
  );
  observer.observe(el);
  document.addEventListener("visibilitychange", watch);

  el.classList.add("nst-screen", "nst-camera");
  el.append(
    make("div", { class: "nst-frame" }, painted, video),
    make("div", { class: "nst-row" }, go, save, side, rate),
    say,
    strength.node,
    ...shares.map(({ node }) => node),
  );
  return () => {
    wanted = false;
    release();
    model.send({ do: "end" });
    model.off("msg:custom", hear);
    observer.disconnect();
    document.removeEventListener("visibilitychange", watch);
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
