const byId = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const isTouch = matchMedia("(pointer: coarse)").matches;
const themes = JSON.parse(byId("themes").textContent);
let figures = JSON.parse(byId("figures").textContent);

async function loadPlotly() {
  const packed = Uint8Array.from(atob(byId("plotly").textContent), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}

function paint(trace, scheme) {
  if (trace.type === "heatmap") return { ...trace, colorscale: themes[scheme].layout.colorscale.sequential };
  const color = trace.meta?.[scheme];
  return color ? { ...trace, line: { ...trace.line, color }, marker: { ...trace.marker, color } } : trace;
}

function draw(id) {
  const figure = figures[id];
  const scheme = dark.matches ? "dark" : "light";
  // On a touch screen, dragging scrolls the page instead of zooming the plot. The constant uirevision keeps the zoom.
  const layout = { ...figure.layout, template: themes[scheme], dragmode: isTouch ? false : "zoom", uirevision: "kept" };
  const settings = { responsive: true, displaylogo: false, displayModeBar: false };
  Plotly.react(id, figure.data.map((trace) => paint(trace, scheme)), layout, settings);
  drawn.add(id);
}

// Plots are drawn when they come near the visible area, so that a long page opens at once.
const drawn = new Set();
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    observer.unobserve(entry.target);
    draw(entry.target.id);
  }
}, { rootMargin: "800px" });
function watch() {
  for (const plot of document.querySelectorAll(".plot")) if (!drawn.has(plot.id)) observer.observe(plot);
}
function redraw() {
  for (const id of drawn) draw(id);
}

function replaceContent(content) {
  figures = content.figures;
  byId("facts").innerHTML = content.facts;
  byId("last-update").textContent = content.last_update;
  const fresh = document.createElement("main");
  fresh.innerHTML = content.sections;
  const ids = (root) => [...root.querySelectorAll(".plot, .wide-table, .verdict, .health")].map((part) => part.id).join();
  const main = document.querySelector("main");
  if (ids(main) === ids(fresh)) {
    for (const part of fresh.querySelectorAll(".wide-table, .verdict, .health")) {
      byId(part.id).className = part.className;
      byId(part.id).innerHTML = part.innerHTML;
    }
    redraw();
    return;
  }
  // There is a new plot: the existing plots are moved to the new page, so that they neither flicker nor lose their zoom.
  for (const slot of fresh.querySelectorAll(".plot")) {
    const shown = byId(slot.id);
    if (shown) slot.replaceWith(shown);
  }
  const top = scrollY;
  main.replaceChildren(...fresh.children);
  for (const id of drawn) if (!byId(id)) drawn.delete(id);
  redraw();
  watch();
  scrollTo({ top, behavior: "instant" });
}

async function follow() {
  const status = byId("live");
  try {
    const answer = await fetch(`content?version=${version}`, { cache: "no-store" });
    if (answer.status === 200) {
      const content = await answer.json();
      version = content.version;
      replaceContent(content);
    }
    status.className = "on";
    status.textContent = "live";
  } catch {
    status.className = "off";
    status.textContent = "the server does not respond";
  }
  setTimeout(follow, 3000);
}

loadPlotly().then(() => {
  watch();
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => Object.keys(figures).forEach(draw));
  if (version !== null) follow();
}).catch((error) => {
  document.querySelector("footer").textContent =
    "The plots need a browser of 2023 or newer; this browser reports: " + error.message;
});
