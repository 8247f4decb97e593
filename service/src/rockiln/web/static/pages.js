// What the pages do beyond plain forms. Without this file every form still works.
"use strict";

const byId = (id) => document.getElementById(id);

// The job in hand is told of as it goes on; looking again by htmx is the fallback.
let watched = null;

function watch() {
  const live = byId("live");
  const job = live && !("ended" in live.dataset) ? live.dataset.job : null;
  if (watched && watched.job !== job) {
    watched.source.close();
    watched = null;
  }
  if (job && !watched) {
    const source = new EventSource(`/jobs/${job}/events`);
    watched = { job, source };
    const moved = () => {
      const now = byId("live");
      if (now && window.htmx) window.htmx.trigger(now, "job-moved");
    };
    for (const state of ["leased", "latents_stored", "published", "retry_wait", "done", "failed", "quarantined", "cancelled"]) {
      source.addEventListener(state, moved);
    }
    source.addEventListener("preview", (event) => preview(JSON.parse(event.data).preview));
    source.addEventListener("step", (event) => step(JSON.parse(event.data)));
  }
}

const steps = new Map();

function step(told) {
  const bar = byId("progress");
  if (!bar || !watched) return;
  steps.set(`${watched.job} ${told.payload.index}`, told.payload.step);
  let done = 0;
  for (const [picture, count] of steps) if (picture.startsWith(watched.job)) done += count;
  if (done <= bar.value || done > bar.max) return;
  bar.value = done;
  byId("steps-done").textContent = String(done);
  if (told.eta_seconds) byId("eta").textContent = `about ${Math.max(1, Math.round(told.eta_seconds))} s left`;
}

async function preview(base64) {
  const canvas = byId("preview");
  if (!canvas || !base64) return;
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const seen = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  canvas.width = seen.width;
  canvas.height = seen.height;
  canvas.getContext("2d").drawImage(seen, 0, 0);
  canvas.hidden = false;
}

// A screen reader is told of a state once, not of every look.
let said = "";

function say() {
  const live = byId("live");
  const state = live ? `The job is ${live.dataset.state}.` : "";
  if (state !== said) byId("said").textContent = said = state;
}

document.addEventListener("said", (event) => { byId("said").textContent = event.detail.value; });
document.addEventListener("DOMContentLoaded", () => { watch(); said = byId("live") ? `The job is ${byId("live").dataset.state}.` : ""; });
document.addEventListener("htmx:load", () => { watch(); say(); });
for (const lost of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(lost, () => { byId("offline").hidden = false; });
}
document.addEventListener("htmx:afterRequest", (event) => {
  const { xhr } = event.detail;
  if (xhr && xhr.status) byId("offline").hidden = xhr.status < 500;
});
window.addEventListener("pagehide", () => { if (watched) watched.source.close(); });

document.addEventListener("alpine:init", () => {
  const { Alpine } = window;

  Alpine.data("request", () => ({
    custom: false,
    noPicture: true,
    last: null,
    mask: null,
    init() { this.shape(); },
    shape() {
      const chosen = this.$root.querySelector("[name=size]:checked");
      this.custom = chosen !== null && chosen.value === "custom";
    },
    send() { this.$root.requestSubmit(); },
    random() {
      byId("seed").value = "";
      byId("seed").focus();
    },
    addLora(event) {
      if (event.target.value) byId("prompt").value += ` <lora:${event.target.value}:0.8>`;
      event.target.value = "";
    },
    // The picture is shown on the canvas; a second one, never shown, is the mask.
    async picture() {
      const [file] = byId("image").files;
      this.noPicture = true;
      const canvas = byId("painting");
      if (!file || !canvas) return;
      let shown;
      try {
        shown = await createImageBitmap(file);
      } catch {
        return; // no picture: the answer to the form says so
      }
      canvas.width = shown.width;
      canvas.height = shown.height;
      canvas.getContext("2d").drawImage(shown, 0, 0);
      this.shown = shown;
      this.clearPaint();
      this.noPicture = false;
    },
    clearPaint() {
      const canvas = byId("painting");
      this.mask = new OffscreenCanvas(canvas.width, canvas.height);
      const drawn = this.mask.getContext("2d");
      drawn.fillStyle = "black";
      drawn.fillRect(0, 0, canvas.width, canvas.height);
      canvas.getContext("2d").drawImage(this.shown, 0, 0);
      byId("mask").value = "";
    },
    paintFrom(event) { this.last = this.place(event); this.paintTo(event); },
    paintTo(event) {
      if (!this.last) return;
      const to = this.place(event);
      const width = Number(byId("brush").value) * to.scale;
      for (const [canvas, colour] of [[byId("painting"), "rgb(240 120 80 / 60%)"], [this.mask, "white"]]) {
        const drawn = canvas.getContext("2d");
        Object.assign(drawn, { strokeStyle: colour, lineWidth: width, lineCap: "round" });
        drawn.beginPath();
        drawn.moveTo(this.last.x, this.last.y);
        drawn.lineTo(to.x, to.y);
        drawn.stroke();
      }
      this.last = to;
    },
    async paintEnd() {
      if (!this.last) return;
      this.last = null;
      const files = new DataTransfer();
      files.items.add(new File([await this.mask.convertToBlob()], "mask.png", { type: "image/png" }));
      byId("mask").files = files.files;
    },
    place(event) {
      const box = event.target.getBoundingClientRect();
      const scale = event.target.width / box.width;
      return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale, scale };
    },
  }));

  Alpine.data("drop", () => ({
    look: "",
    over() { this.look = "over"; },
    out() { this.look = ""; },
    take(event) {
      this.look = "";
      if (event.dataTransfer.files.length !== 1) return;
      byId("file").files = event.dataTransfer.files;
      this.$root.requestSubmit();
    },
  }));

  Alpine.data("report", () => ({
    told: "",
    async copy(event) {
      const answer = await fetch(event.target.dataset.report);
      try {
        await navigator.clipboard.writeText(await answer.text());
        this.told = "Copied.";
      } catch {
        this.told = "The browser does not allow it; download it instead.";
      }
    },
  }));
});
