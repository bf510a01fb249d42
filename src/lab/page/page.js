/* Draws the pictures of a report page, each from the JSON in its figure, and saves what figures show as CSV. */
"use strict";
(() => {
  const colours = 8, dashes = 4;
  const narrow = 440; /* pixels: no room for values beside the cursor */
  const printWidth = 330; /* of a picture, two of which stand beside each other on a page */

  /* --- elements */

  const svgSpace = "http://www.w3.org/2000/svg";

  function fill(element, attributes, text) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function html(parent, name, attributes = {}, text) {
    return parent.appendChild(fill(document.createElement(name), attributes, text));
  }
  function svg(parent, name, attributes = {}, text) {
    return parent.appendChild(fill(document.createElementNS(svgSpace, name), attributes, text));
  }

  /* How wide a text of the pictures is. */
  const ruler = document.createElement("canvas").getContext("2d");
  ruler.font = "12px " + getComputedStyle(document.body).fontFamily;
  const textWidth = (text) => ruler.measureText(text).width;

  /* --- numbers */

  const minus = (text) => text.replace("-", "\u2212");

  /* A value for people: whole numbers as they are, others with four digits. */
  function shown(value) {
    if (value === null) return "\u2013";
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e9) return minus(value.toLocaleString("en-US"));
    if (size >= 1e6 || size < 1e-4) return minus(value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e"));
    return minus(value.toLocaleString("en-US", { maximumSignificantDigits: 4 }));
  }

  /* A tick, in steps of `step`: "0.25", "12k", "2e-5". */
  function tickText(value, step) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e15 || size < 1e-4) return minus(value.toExponential(size / step > 10 ? 1 : 0).replace("e+", "e"));
    for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= unit && step >= unit / 1000 && (unit > 1e3 || size >= 1e4))
        return minus(String(Number((value / unit).toFixed(3)))) + letter;
    }
    const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
    return minus(value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  }

  const small = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";
  const raised = (power) => (power < 0 ? "\u207b" : "") + [...String(Math.abs(power))].map((c) => small[c]).join("");

  /* --- scales: from [low, high] to [0, 1], with about `count` ticks */

  function evenScale(low, high, count, whole) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw)), part = raw / power;
    let step = power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
    if (whole) step = Math.max(1, step);
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
    return {
      at: (value) => (value - low) / (high - low),
      ticks: ticks.map((value) => ({ value, text: tickText(value, step) })),
    };
  }

  function logScale(low, high, count) {
    const a = Math.log10(low), b = Math.log10(high), stride = Math.max(1, Math.ceil((b - a) / count)), ticks = [];
    const within = b - a > 2.5 ? [1] : b - a > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    const wide = within.length === 1 && (a < -3 || b > 6);
    for (let power = Math.floor(a / stride) * stride; power <= b; power += stride) {
      for (const first of within) {
        const value = first * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001)
          ticks.push({ value, text: wide ? "10" + raised(power) : tickText(value, 10 ** power / (first === 1.5 ? 10 : 1)) });
      }
    }
    if (ticks.length < 2) ticks.splice(0, 9, ...evenScale(low, high, count).ticks);
    return { at: (value) => (Math.log10(value) - a) / (b - a), ticks };
  }

  /* Over the given numbers, with some room at both ends where `loose`. null: there are none. */
  function scaleOver(values, log, count, loose, whole) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value === null || (log && value <= 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (low > high) return null;
    if (log) {
      const more = low === high ? 2 : loose ? (high / low) ** 0.04 : 1;
      return logScale(low / more, high * more, count);
    }
    if (low === high && loose) { /* one value alone: from 0, with as much again above it */
      const far = low * 1.5;
      return low ? evenScale(Math.min(0, far), Math.max(0, far), count, whole) : evenScale(-1, 1, count, whole);
    }
    const more = low === high ? 1 : loose ? (high - low) * 0.05 : 0;
    return evenScale(low - more, high + more, count, whole);
  }

  /* --- CSV */

  const csvCell = (cell) => {
    const text = cell === null ? "" : String(cell);
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };

  function addSave(figure, rows) {
    const title = figure.querySelector(".title").textContent;
    const name = `${document.title} ${title}`.toLowerCase().replace(/[^\p{L}\p{N}.]+/gu, "-").replace(/^-+|-+$/g, "");
    const button = html(figure.querySelector("figcaption"), "button",
                        { class: "save", type: "button", "aria-label": "Save the data as CSV: " + title }, "CSV");
    button.addEventListener("click", () => {
      const text = rows().map((row) => row.map(csvCell).join(",") + "\r\n").join("");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = (name.slice(0, 120) || "data") + ".csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  /* A row for each x, in the order in which they first come; a column for each array of each series. */
  function linesRows(chart) {
    const header = [chart.x || "x"], rows = new Map();
    for (const series of chart.series) {
      for (const [key, suffix] of [["y", ""], ["low", " low"], ["high", " high"]]) {
        if (!series[key]) continue;
        const column = header.push(series.name + suffix) - 1;
        series.x.forEach((x, i) => {
          if (!rows.has(x)) rows.set(x, []);
          rows.get(x)[column] = series[key][i];
        });
      }
    }
    const all = [...rows].map(([x, cells]) => header.map((_, i) => (i === 0 ? x : cells[i] ?? null)));
    return [header, ...all.sort((a, b) => a[0] - b[0])];
  }

  /* --- lines */

  function swatch(parent, series) {
    const box = svg(parent, "svg", { viewBox: "0 0 18 10", class: series.look, "aria-hidden": "true" });
    /* A band within others is seen through them. */
    for (let i = 0; series.low && i < series.depth; i++)
      svg(box, "rect", { x: 0, y: 0, width: 18, height: 10, class: "band" });
    if (series.y) svg(box, "path", { d: "M1 5H17", class: "line" });
  }

  /* The path through points, broken at gaps; `back`: closed by going back along other points. */
  function path(points, back) {
    let text = "", run = [];
    const end = () => {
      if (run.length === 1 && !back) text += `M${run[0].from}h0`;
      else if (run.length > 0) {
        text += "M" + run.map((p) => p.from).join("L");
        if (back) text += "L" + run.reverse().map((p) => p.to).join("L") + "Z";
      }
      run = [];
    };
    for (const point of points) point ? run.push(point) : end();
    end();
    return text;
  }

  function layout(chart, width) {
    const visible = chart.series.filter((series) => series.on);
    const height = Math.round(Math.min(320, Math.max(200, width * 0.52)));
    const xs = visible.flatMap((series) => series.x);
    const ys = visible.flatMap((series) => [...(series.y || []), ...(series.low || []), ...(series.high || [])]);
    const whole = xs.every(Number.isInteger);
    const x = scaleOver(xs, chart.logX, Math.max(3, Math.floor(width / 90)), false, whole);
    const y = scaleOver(ys, chart.logY, Math.max(3, Math.floor(height / 55)), true, false);
    if (!x || !y) return null;
    const left = 9 + Math.max(...y.ticks.map((tick) => textWidth(tick.text))), right = width - 14;
    const top = chart.y ? 26 : 10, bottom = height - (chart.x ? 42 : 24);
    const good = (value, log) => value !== null && (!log || value > 0);
    return {
      visible, width, height, left, right, top, bottom, x, y,
      px: (value) => (good(value, chart.logX) ? left + x.at(value) * (right - left) : null),
      py: (value) => (good(value, chart.logY) ? bottom - y.at(value) * (bottom - top) : null),
    };
  }

  function drawAxes(picture, chart, view) {
    const { left, right, top, bottom } = view;
    for (const tick of view.y.ticks) {
      const y = view.py(tick.value);
      if (y === null) continue;
      svg(picture, "line", { class: "grid", x1: left, x2: right, y1: y, y2: y });
      svg(picture, "text", { x: left - 7, y: y + 4, "text-anchor": "end" }, tick.text);
    }
    svg(picture, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    let free = -Infinity;
    for (const tick of view.x.ticks) {
      const x = view.px(tick.value), half = textWidth(tick.text) / 2;
      svg(picture, "line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 });
      if (x - half < free) continue; /* it would touch the one before */
      free = x + half + 8;
      const middle = Math.min(x, view.width - half - 1);
      svg(picture, "text", { x: middle, y: bottom + 18, "text-anchor": "middle" }, tick.text);
    }
    if (chart.x) svg(picture, "text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, chart.x);
    if (chart.y) svg(picture, "text", { x: 0, y: 12, class: "strong" }, chart.y);
  }

  function drawSeries(picture, view, series) {
    const group = svg(picture, "g", { class: series.look });
    const at = (value, i) => {
      const x = view.px(series.x[i]), y = view.py(value);
      return x === null || y === null ? null : `${x.toFixed(1)} ${y.toFixed(1)}`;
    };
    if (series.low) {
      const edges = series.x.map((_, i) => {
        const from = at(series.high[i], i), to = at(series.low[i], i);
        return from && to ? { from, to } : null;
      });
      svg(group, "path", { class: "band", d: path(edges, true) });
    }
    if (!series.y) return;
    const points = series.y.map((value, i) => at(value, i)).map((from) => from && { from });
    svg(group, "path", { class: "line", d: path(points, false) });
    const places = series.x.map(view.px), apart = places.map((x, i) => (i ? Math.abs(x - places[i - 1]) : Infinity));
    if (Math.min(...apart) < 10) return;
    series.y.forEach((value, i) => {
      if (points[i]) svg(group, "circle", { class: "dot", r: 3.5, cx: places[i], cy: view.py(value) });
    });
  }

  /* Index of the point nearest to a place on the screen. */
  function nearest(view, series, place) {
    let best = -1, distance = Infinity;
    series.x.forEach((value, i) => {
      const x = view.px(value), away = x === null ? Infinity : Math.abs(x - place);
      if (away < distance) [best, distance] = [i, away];
    });
    return { index: best, distance };
  }

  function valueText(series, i) {
    const range = series.low ? `${shown(series.low[i])} to ${shown(series.high[i])}` : "";
    if (!series.y) return range;
    return shown(series.y[i]) + (range && ` (${range})`);
  }

  /* The values at the points nearest to `place`, beside a line through them. */
  function showValues(chart, place) {
    const { view, marks, tip } = chart;
    marks.replaceChildren();
    tip.replaceChildren();
    let best = null;
    for (const series of view.visible) {
      const here = nearest(view, series, place);
      if (here.index >= 0 && (!best || here.distance < best.distance)) best = { series, ...here };
    }
    tip.hidden = !best;
    if (!best) return;
    const x = best.series.x[best.index], px = view.px(x);
    chart.cursor = px;
    svg(marks, "line", { class: "cursor", x1: px, x2: px, y1: view.top, y2: view.bottom });
    html(tip, "div", { class: "at" }, `${chart.x || "x"} ${shown(x)}`);
    for (const series of view.visible) {
      const i = nearest(view, series, px).index;
      if (i < 0) continue;
      const row = html(tip, "div", { class: "row" });
      swatch(row, series);
      html(row, "span", { class: "name" }, series.name + (series.x[i] === x ? "" : ` (at ${shown(series.x[i])})`));
      html(row, "span", { class: "value" }, valueText(series, i));
      const py = series.y && view.py(series.y[i]);
      if (py !== null && py !== undefined)
        svg(svg(marks, "g", { class: series.look }), "circle", { class: "dot", r: 4, cx: view.px(series.x[i]), cy: py });
    }
    placeValues(chart, px);
  }

  /* Beside the cursor, on the side where there is more room; below a narrow picture. */
  function placeValues(chart, x) {
    chart.tip.classList.toggle("below", chart.plot.clientWidth < narrow);
    const scale = chart.plot.clientWidth / chart.view.width, rightHalf = x > chart.view.width / 2;
    chart.tip.style.left = rightHalf ? "auto" : `${x * scale + 12}px`;
    chart.tip.style.right = rightHalf ? `${(chart.view.width - x) * scale + 12}px` : "auto";
    chart.tip.style.top = `${chart.view.top * scale}px`;
  }

  function hideValues(chart) {
    chart.tip.hidden = true;
    chart.marks?.replaceChildren();
    chart.view?.bars?.forEach((bar) => bar.classList.remove("lit"));
    chart.cursor = chart.row = null;
  }

  /* Right and left go to the next point of any visible series. */
  function moveCursor(chart, forward) {
    const places = chart.view.visible.flatMap((series) => series.x.map(chart.view.px)).filter((x) => x !== null);
    const from = chart.cursor ?? (forward ? -Infinity : Infinity);
    const beyond = places.filter((x) => (forward ? x > from + 0.01 : x < from - 0.01));
    if (beyond.length) showValues(chart, forward ? Math.min(...beyond) : Math.max(...beyond));
  }

  /* What all pictures share: pointer, finger and keys show values. */
  function listen(chart, picture, show, move) {
    const point = (event) => {
      const box = picture.getBoundingClientRect(), scale = chart.view.width / box.width;
      show((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
    };
    picture.addEventListener("pointerdown", point);
    picture.addEventListener("pointermove", point);
    picture.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideValues(chart));
    picture.addEventListener("blur", () => hideValues(chart));
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hideValues(chart);
      if (!step) return;
      event.preventDefault();
      move(step > 0);
    });
  }

  const clear = (chart) => chart.plot.querySelectorAll(":scope > svg, :scope > .empty").forEach((old) => old.remove());

  function showEmpty(chart, text) {
    clear(chart);
    html(chart.plot, "p", { class: "empty" }, text);
  }

  function newPicture(chart, width, height) {
    clear(chart);
    return svg(chart.plot, "svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
                                    "aria-label": chart.title + ". Arrow keys show the values." });
  }

  function drawLines(chart) {
    hideValues(chart);
    chart.view = layout(chart, chart.width);
    if (!chart.view) {
      const off = chart.series.length > 0 && !chart.series.some((series) => series.on);
      showEmpty(chart, off ? "All series are switched off." : "No values.");
      return;
    }
    const picture = newPicture(chart, chart.view.width, chart.view.height);
    drawAxes(picture, chart, chart.view);
    for (const series of chart.view.visible) drawSeries(picture, chart.view, series);
    chart.marks = svg(picture, "g");
    listen(chart, picture, (x) => showValues(chart, x), (forward) => moveCursor(chart, forward));
  }

  function addLegend(chart) {
    if (chart.series.length < 2) return;
    const legend = fill(document.createElement("div"), { class: "legend" });
    chart.plot.before(legend);
    for (const series of chart.series) {
      const button = html(legend, "button", { type: "button", "aria-pressed": "true" });
      swatch(button, series);
      html(button, "span", {}, series.name);
      button.addEventListener("click", () => {
        series.on = !series.on;
        button.setAttribute("aria-pressed", String(series.on));
        drawLines(chart);
      });
    }
  }

  /* Each series gets its look, and the x that it shares; a band alone has the colour of the series before it. */
  function prepareLines(chart) {
    let colour = -1;
    chart.series.forEach((series, i) => {
      if (series.y || colour < 0) colour++;
      series.look = `series${colour % colours} dash${Math.floor(colour / colours) % dashes}`;
      series.x ??= chart.series[i - 1].x;
      series.depth = chart.series.slice(i + 1).findIndex((later) => later.y) + 1 || chart.series.length - i;
      series.on = true;
    });
    addLegend(chart);
  }

  /* --- bars */

  function barsRows(chart) {
    return [[chart.x || "name", chart.y || "value"], ...chart.labels.map((label, i) => [label, chart.values[i]])];
  }

  /* As much of a text as `width` has room for. */
  function shortened(text, width) {
    let some = text;
    while (some && textWidth(some) > width) some = [...some.replace(/\u2026$/, "")].slice(0, -1).join("") + "\u2026";
    return some;
  }

  /* Lights the bar of a row and shows its whole name beside the value. */
  function showBar(chart, row) {
    hideValues(chart);
    if (row < 0 || row >= chart.labels.length) return;
    const { view, tip } = chart;
    chart.row = row;
    view.bars[row].classList.add("lit");
    tip.replaceChildren();
    tip.hidden = false;
    html(tip, "div", { class: "at" }, chart.labels[row]);
    html(tip, "div", {}, `${chart.y || "value"} ${shown(chart.values[row])}`);
    const scale = chart.plot.clientWidth / view.width;
    tip.classList.toggle("below", chart.plot.clientWidth < narrow);
    fill(tip, { style: `left: ${view.left * scale}px; top: ${(view.top + (row + 1) * view.each) * scale}px` });
  }

  function moveRow(chart, forward) {
    const count = chart.labels.length, row = chart.row ?? (forward ? -1 : count);
    showBar(chart, Math.min(count - 1, Math.max(0, row + (forward ? 1 : -1))));
  }

  function drawBar(picture, chart, view, row) {
    const value = chart.values[row], y = view.top + row * view.each, middle = y + view.each / 2 + 4;
    const some = value !== null && (!chart.logY || value > 0), to = some ? view.px(value) : view.zero;
    const left = Math.min(to, view.zero), right = Math.max(to, view.zero);
    svg(picture, "text", { x: view.left - 8, y: middle, "text-anchor": "end", class: "strong" },
        shortened(chart.labels[row], view.left - 9));
    svg(picture, "text", { x: right + 6, y: middle }, shown(value));
    return svg(picture, "rect", { class: "bar", x: left, y: y + view.each * 0.15, rx: 2, height: view.each * 0.7,
                                  width: some ? Math.max(1, right - left) : 0 });
  }

  function drawBars(chart) {
    hideValues(chart);
    const width = chart.width, count = chart.labels.length;
    const each = count > 30 ? 16 : 24, top = chart.y ? 24 : 4, bottom = top + each * count + 2;
    const left = Math.min(width * 0.42, 10 + Math.max(0, ...chart.labels.map(textWidth))), right = width - 64;
    const numbers = chart.logY ? chart.values : [0, ...chart.values];
    const scale = scaleOver(numbers, chart.logY, Math.max(2, Math.floor((right - left) / 80)), chart.logY, false);
    if (!scale || count === 0) return showEmpty(chart, "No values.");
    const px = (value) => left + scale.at(value) * (right - left);
    chart.view = { width, left, top, each, px, zero: chart.logY ? left : px(0) };
    const picture = newPicture(chart, width, bottom + 24);
    if (chart.y) svg(picture, "text", { x: 0, y: 12, class: "strong" }, chart.y);
    for (const tick of scale.ticks) {
      const x = px(tick.value);
      svg(picture, "line", { class: tick.value === 0 ? "axis" : "grid", x1: x, x2: x, y1: top, y2: bottom });
      svg(picture, "text", { x, y: bottom + 16, "text-anchor": "middle" }, tick.text);
    }
    chart.view.bars = chart.labels.map((_, row) => drawBar(picture, chart, chart.view, row));
    listen(chart, picture, (_, y) => showBar(chart, Math.floor((y - top) / each)),
           (forward) => moveRow(chart, forward));
  }

  /* --- the page */

  function drawAt(chart, draw, width) {
    chart.width = width || 560; /* 0: it is not laid out */
    draw(chart);
  }

  function start(figure) {
    const source = figure.querySelector("script"), chart = JSON.parse(source.textContent);
    chart.title = figure.querySelector(".title").textContent;
    chart.plot = fill(document.createElement("div"), { class: "plot" });
    source.replaceWith(chart.plot);
    chart.tip = html(chart.plot, "div", { class: "values", hidden: "" });
    const lines = chart.kind === "lines", draw = lines ? drawLines : drawBars;
    if (lines) prepareLines(chart);
    addSave(figure, () => (lines ? linesRows : barsRows)(chart));
    new ResizeObserver(() => {
      if (chart.plot.clientWidth !== chart.width) drawAt(chart, draw, chart.plot.clientWidth);
    }).observe(chart.plot);
    addEventListener("beforeprint", () => drawAt(chart, draw, printWidth));
    addEventListener("afterprint", () => drawAt(chart, draw, chart.plot.clientWidth));
    drawAt(chart, draw, chart.plot.clientWidth);
  }

  for (const figure of document.querySelectorAll("figure.chart")) start(figure);
  for (const figure of document.querySelectorAll("figure.table")) {
    addSave(figure, () => [...figure.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent)));
  }
})();
