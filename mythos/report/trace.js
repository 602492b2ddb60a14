const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const themes = JSON.parse(byId("themes").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const { T, S, L, K } = data;
const width = innerWidth < 640 ? 66 : 82;
const words = data.words.map(visible);
const state = { token: 0, measure: "top", loop: T - 1, layer: 0, map: 0, head: -1, hasFirst: false };
let maps = null;

function visible(word) {
  const shown = word.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  return shown.trim() ? shown.replace(/ /g, "\u00a0") : shown.replace(/\s/g, "␣") || "∅";
}
// In running text a word keeps its spaces, and one that is nothing but space is shown by symbols.
function inText(word) {
  return word.trim() ? word : visible(word) + (word.includes("\n") ? "\n" : "");
}
function element(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}
const at = (values, t, s) => values[t * S + s];
const number = (value, digits = 3) => value === null || value === undefined ? "–" : value.toFixed(digits);
const word = (t, s, rank = 0) => data.top[(t * S + s) * data.R + rank];
const prob = (t, s, rank = 0) => data.prob[(t * S + s) * data.R + rank];
const isHit = (t, s, rank = 0) => s + 1 < S && word(t, s, rank) === data.tokens[s + 1];

const measures = {
  top: { name: "its probability", of: (t, s) => prob(t, s), low: 0, high: 1 },
  next: { name: "probability of the true next token", of: (t, s) => at(data.next, t, s), low: 0, high: 1 },
  entropy: { name: "entropy, nats", of: (t, s) => at(data.entropy, t, s) },
  norm: { name: "state norm", of: (t, s) => at(data.norm, t, s) },
  change: { name: "relative change", of: (t, s) => at(data.change, t, s), low: 0 },
};
if (data.halting) measures.halting = { name: "exit probability", of: (t, s) => at(data.halting, t, s), low: 0, high: 1 };
for (const measure of Object.values(measures)) {
  const seen = [];
  for (let t = 0; t < T; t++) for (let s = 0; s < S; s++) seen.push(measure.of(t, s));
  const sorted = seen.filter((value) => value !== null).sort((a, b) => a - b);
  measure.low ??= sorted[Math.floor(sorted.length * 0.01)];
  measure.high ??= sorted[Math.floor(sorted.length * 0.99)];
}

const channels = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
const theme = () => themes[dark.matches ? "dark" : "light"];
let ramp = [];
function setScheme() {
  const stops = theme().surface.map(channels);
  ramp = Array.from({ length: 256 }, (_, index) => {
    const position = index / 255 * (stops.length - 1), low = Math.min(Math.floor(position), stops.length - 2);
    return stops[low].map((value, i) => Math.round(value + (stops[low + 1][i] - value) * (position - low)));
  });
}
function shade(fraction) {
  return ramp[Math.round(255 * Math.min(1, Math.max(0, fraction)))];
}
const css = ([red, green, blue]) => `rgb(${red},${green},${blue})`;
function ink([red, green, blue]) {
  const linear = (value) => (value / 255) ** 2.2;
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) > 0.2 ? "#12161c" : "#ffffff";
}
function expertColor(expert) {
  const colors = theme().categories.slice(0, -1); // without the text's own black or white
  const color = channels(colors[expert % colors.length]);
  const paler = Math.floor(expert / colors.length) % 2 ? 0.5 : 0; // every second round of the colours
  return `#${color.map((value) => Math.round(value + paler * (255 - value)).toString(16).padStart(2, "0")).join("")}`;
}
// A strip has the numbers of its experts as well where they fit, since colours repeat and not everybody sees them.
function expertMark(expert, count) {
  const color = expertColor(expert), text = width / count >= 18 ? `${expert}` : "";
  return element("i", { style: `background:${color};color:${ink(channels(color))}`, textContent: text });
}

function choose(holder, key, options, then) {
  for (const [value, name] of options) {
    const button = element("button", { textContent: name, type: "button" });
    button.setAttribute("aria-pressed", state[key] === value);
    button.onclick = () => {
      state[key] = value;
      for (const other of holder.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
      then();
    };
    holder.append(button);
  }
  holder.hidden = options.length < 2;
}

function drawLabels() {
  const labels = byId("labels");
  labels.replaceChildren(element("div", { className: "token", textContent: "token" }));
  for (let t = 0; t < T; t++) labels.append(element("div", { className: "cell", textContent: `loop ${t + 1}` }));
  if (!data.experts) return;
  labels.append(element("div", { className: "gap", textContent: "experts" }));
  for (let layer = 0; layer < L; layer++) {
    for (let t = 0; t < T; t++) {
      const label = t ? "" : `layer ${layer}`;
      labels.append(element("div", { className: "experts", textContent: label, style: "display:block;line-height:14px" }));
    }
    labels.append(element("div", { style: "height:8px" }));
  }
}

function column(s) {
  const measure = measures[state.measure], made = element("div", { className: "column" });
  made.style.cssText = `left:${s * width}px;width:${width}px`;
  made.classList.toggle("on", s === state.token);
  made.append(element("div", { className: "token", textContent: words[data.tokens[s]], title: `token ${s}` }));
  for (let t = 0; t < T; t++) {
    const value = measure.of(t, s);
    const cell = element("div", { className: isHit(t, s) ? "cell hit" : "cell", textContent: words[word(t, s)] });
    cell.title = `loop ${t + 1}: ${words[word(t, s)]} ${number(prob(t, s))}\n${measure.name}: ${number(value)}`;
    if (value !== null) {
      const color = shade((value - measure.low) / (measure.high - measure.low || 1));
      cell.style.background = css(color);
      cell.style.color = ink(color);
    }
    made.append(cell);
  }
  if (data.experts) {
    made.append(element("div", { className: "gap" }));
    for (let layer = 0; layer < L; layer++) {
      for (let t = 0; t < T; t++) made.append(experts(t, layer, s));
      made.append(element("div", { style: "height:8px" }));
    }
  }
  made.onclick = () => select(s, false);
  return made;
}
function expertsOf(t, layer, s) {
  const start = ((t * L + layer) * S + s) * K;
  return data.experts.slice(start, start + K).sort((a, b) => a - b);
}
function experts(t, layer, s) {
  const indices = expertsOf(t, layer, s);
  const strip = element("div", { className: "experts", title: `loop ${t + 1}, layer ${layer}: experts ${indices.join(", ")}` });
  strip.append(...indices.map((expert) => expertMark(expert, indices.length)));
  return strip;
}

let shown = "";
function drawColumns(force = false) {
  const scroll = byId("scroll");
  const first = Math.max(0, Math.floor(scroll.scrollLeft / width) - 8);
  const last = Math.min(S, Math.ceil((scroll.scrollLeft + scroll.clientWidth) / width) + 8);
  if (!force && shown === `${first}-${last}`) return;
  shown = `${first}-${last}`;
  byId("sheet").replaceChildren(...Array.from({ length: last - first }, (_, index) => column(first + index)));
}
function drawScale() {
  const measure = measures[state.measure];
  const stops = [0, 51, 102, 153, 204, 255].map((index) => css(ramp[index])).join(",");
  byId("scale").replaceChildren(
    number(measure.low, 2), element("i", { style: `background:linear-gradient(to right,${stops})` }), number(measure.high, 2));
}
function drawSwatches() {
  const bar = byId("swatches");
  bar.replaceChildren();
  for (let expert = 0; data.experts && expert < Math.min(data.E, 64); expert++) {
    bar.append(element("span", {}, element("i", { style: `background:${expertColor(expert)}` }), `expert ${expert}`));
  }
}

function gain(s) {
  return at(data.next, T - 1, s) - at(data.next, 0, s);
}
function drawChips() {
  if (T < 2 || S < 2) return;
  const order = Array.from({ length: S - 1 }, (_, s) => s).sort((a, b) => gain(b) - gain(a));
  state.token = order[0];
  const chips = byId("chips");
  chips.append(element("span", { className: "note", textContent: "Largest gains from looping" }));
  for (const s of order.slice(0, 6).filter((s) => gain(s) > 0.01)) {
    const chip = element("button", { type: "button", onclick: () => select(s) });
    chip.append(words[data.tokens[s + 1]] + " ", element("b", { textContent: `+${gain(s).toFixed(2)}` }));
    chips.append(chip);
  }
  chips.hidden = chips.childElementCount < 2;
}

function drawToken() {
  const s = state.token, before = data.tokens.slice(Math.max(0, s - 14), s).map((id) => inText(data.words[id])).join("");
  const next = s + 1 < S ? data.words[data.tokens[s + 1]] : null;
  byId("context").replaceChildren(
    element("span", { textContent: (s > 14 ? "…" : "") + before }), element("mark", { textContent: words[data.tokens[s]] }),
    element("span", { textContent: next === null ? "  → end of the text" : inText(next) }));
  const heads = ["loop", ..."12345".slice(0, data.R), "true next", "entropy", "norm", "change"];
  if (data.halting) heads.push("exit");
  if (data.experts) for (let layer = 0; layer < L; layer++) heads.push(`experts, layer ${layer}`);
  const rows = [element("tr", {}, ...heads.map((name) => element("th", { textContent: name })))];
  for (let t = 0; t < T; t++) {
    const row = element("tr", {}, element("td", { textContent: t + 1 }));
    for (let rank = 0; rank < data.R; rank++) {
      const bar = element("div", {}, element("i", { style: `width:${100 * prob(t, s, rank)}%` }),
        element("span", { textContent: words[word(t, s, rank)] }), element("small", { textContent: number(prob(t, s, rank)) }));
      row.append(element("td", { className: isHit(t, s, rank) ? "prediction hit" : "prediction" }, bar));
    }
    const numbers = [at(data.next, t, s), at(data.entropy, t, s), at(data.norm, t, s), at(data.change, t, s)];
    if (data.halting) numbers.push(at(data.halting, t, s));
    row.append(...numbers.map((value) => element("td", { textContent: number(value) })));
    for (let layer = 0; data.experts && layer < L; layer++) {
      row.append(element("td", {}, experts(t, layer, s)));
      row.lastChild.firstChild.style.minWidth = "60px";
    }
    rows.push(row);
  }
  byId("predictions").replaceChildren(...rows);
}

function select(s, scrollTo = true) {
  state.token = Math.min(S - 1, Math.max(0, s));
  if (scrollTo) {
    const scroll = byId("scroll"), left = state.token * width;
    if (left < scroll.scrollLeft + width || left > scroll.scrollLeft + scroll.clientWidth - 2 * width) {
      scroll.scrollLeft = left - scroll.clientWidth / 2;
    }
  }
  drawColumns(true);
  drawToken();
  drawMaps();
}

async function unpackMaps() {
  const text = byId("maps-packed").textContent.trim();
  if (!text) {
    byId("attention").hidden = true;
    return;
  }
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  maps = new Uint8Array(await new Response(unpacked).arrayBuffer());
  byId("loop").max = T - 1;
  byId("loop").value = state.loop;
  for (let head = 0; head < data.heads.length; head++) {
    for (let source = 0; source < data.sources; source++) {
      const canvas = element("canvas", { width: S, height: S });
      canvas.onmousemove = (event) => point(event, canvas, head, source);
      canvas.onclick = (event) => select(cellAt(event, canvas)[0]);
      byId("maps").append(element("figure", {}, element("figcaption"), canvas));
    }
  }
  drawMaps();
}
function mapName(head, source) {
  if (!source) return `head ${data.heads[head]}`;
  const gate = data.gates === null ? "" : `, gate ${number(data.gates[state.map * data.heads.length + head])}`;
  return `head ${data.heads[head]}, second attention${gate}${state.loop ? "" : " (none in the first loop)"}`;
}
function weightRow(head, query, source = 0, loop = state.loop) {
  const start = ((((source * T + loop) * data.layers.length + state.map) * data.heads.length + head) * S + query) * S;
  return maps.subarray(start, start + S);
}
// The largest byte of a map among the tokens that are shown, over all loops, so that its colours stay comparable.
function largest(head, source) {
  let most = 1;
  for (let loop = 0; loop < T; loop++) {
    for (let query = 0; query < S; query++) {
      const row = weightRow(head, query, source, loop);
      for (let key = state.hasFirst ? 0 : 1; key <= query; key++) most = Math.max(most, row[key]);
    }
  }
  return most;
}
function cellAt(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const of = (part, size) => Math.min(S - 1, Math.max(0, Math.floor(part / size * S)));
  return [of(event.clientY - box.top, box.height), of(event.clientX - box.left, box.width)];
}
function point(event, canvas, head, source) {
  const [query, key] = cellAt(event, canvas);
  const weight = (weightRow(head, query, source)[key] / 255) ** 2;
  byId("weight").textContent = key > query ? "" :
    `${mapName(head, source)}: ${words[data.tokens[query]]} (token ${query}) attends to ${words[data.tokens[key]]} (token ${key}) ` +
    `with weight ${weight.toFixed(3)}`;
}
function drawMaps() {
  if (!maps) return;
  byId("loop-name").textContent = `${state.loop + 1} of ${T}`;
  const mark = channels(getComputedStyle(document.documentElement).getPropertyValue("--validation").trim());
  const empty = channels(getComputedStyle(document.documentElement).getPropertyValue("--page").trim());
  byId("maps").querySelectorAll("canvas").forEach((canvas, index) => {
    const head = Math.floor(index / data.sources), source = index % data.sources, most = largest(head, source);
    canvas.previousElementSibling.textContent = `${mapName(head, source)}, up to ${((most / 255) ** 2).toFixed(2)}`;
    const image = new ImageData(S, S);
    for (let query = 0; query < S; query++) {
      const row = weightRow(head, query, source);
      for (let key = 0; key < S; key++) {
        const isShown = key <= query && (key > 0 || state.hasFirst);
        const color = isShown ? ramp[Math.round(255 * row[key] / most)] : key > query && query === state.token ? mark : empty;
        image.data.set([...color, 255], 4 * (query * S + key));
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  });
  const used = state.head < 0 ? data.heads.map((_, head) => head) : [state.head];
  const rows = used.map((head) => weightRow(head, state.token));
  const weights = Array.from({ length: S }, (_, key) => rows.reduce((sum, row) => sum + (row[key] / 255) ** 2, 0) / rows.length);
  const isColored = (key) => key <= state.token && (key > 0 || state.hasFirst);
  const heaviest = Math.max(1e-6, ...weights.filter((_, key) => isColored(key)));
  byId("attended").replaceChildren(...Array.from({ length: S }, (_, key) => {
    const weight = weights[key];
    const span = element("span", { textContent: inText(data.words[data.tokens[key]]), onclick: () => select(key) });
    if (isColored(key)) {
      const color = shade(Math.sqrt(weight / heaviest));
      span.style.background = css(color);
      span.style.color = ink(color);
      span.title = `weight ${weight.toFixed(3)}`;
    } else {
      span.className = "note";
    }
    if (key === state.token) span.style.outline = "2px solid var(--validation)";
    return span;
  }));
}

let timer = null;
function play() {
  if (timer) {
    clearInterval(timer);
    timer = null;
  } else {
    timer = setInterval(() => {
      state.loop = (state.loop + 1) % T;
      byId("loop").value = state.loop;
      drawMaps();
    }, 450);
  }
  byId("play").textContent = timer ? "Stop" : "Play";
}

function drawAll() {
  setScheme();
  drawScale();
  drawSwatches();
  drawColumns(true);
  drawToken();
  drawMaps();
}

setScheme();
drawChips();
choose(byId("measures"), "measure", Object.entries(measures).map(([key, measure]) => [key, measure.name]), () => {
  drawScale();
  drawColumns(true);
});
choose(byId("layers"), "map", data.layers.map((layer, index) => [index, layer]), drawMaps);
choose(byId("first"), "hasFirst", [[false, "hidden"], [true, "shown"]], drawMaps);
choose(byId("heads"), "head", [[-1, "mean of heads"], ...data.heads.map((head, index) => [index, `head ${head}`])], drawMaps);
drawLabels();
const stripHeight = data.experts ? 26 + L * (T * 16 + 8) : 0;
byId("sheet").style.cssText = `position:relative;width:${S * width}px;height:${30 + T * 30 + stripHeight}px`;
byId("scroll").onscroll = () => drawColumns();
byId("loop").oninput = (event) => { state.loop = +event.target.value; drawMaps(); };
byId("play").onclick = play;
byId("play").hidden = T < 2;
dark.addEventListener("change", drawAll);
addEventListener("resize", () => drawColumns(true));
addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT") return;
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (move) { event.preventDefault(); select(state.token + move); }
});
unpackMaps().then(() => { setScheme(); select(state.token); drawScale(); drawSwatches(); }).catch((error) => {
  document.querySelector("footer").textContent =
    "The attention maps need a browser of 2023 or newer; this browser reports: " + error.message;
});
drawAll();
