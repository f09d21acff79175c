// The timeline of one modelled step on a canvas: it pans, zooms, says what an operation is, and walks the critical path.
// Everything from the run is drawn on the canvas or put into text nodes, so no name can become markup.
(() => {
  const element = document.getElementById("timeline-data");
  if (!element) return;
  const data = JSON.parse(element.textContent);
  const { ops, marks, rows, kinds, names, reasons, path } = data;
  const GUTTER = window.matchMedia("(max-width: 760px)").matches ? 92 : 190;
  const ROW = 17, BAR = 13, AXIS = 26, TALLEST = 560;
  const INK = "#1b232d", SOFT = "#5b6775", LINE = "#e1e6ed", GROUND = "#f4f6f9";

  // --- data: marks are sorted by row and start, so a row is a range of them ---

  const opOf = new Map(ops.id.map((id, i) => [id, i]));
  const first = new Array(rows.length + 1).fill(marks.row.length);
  for (let i = marks.row.length - 1; i >= 0; i--) first[marks.row[i]] = i;
  for (let r = rows.length - 1; r >= 0; r--) first[r] = Math.min(first[r], first[r + 1]);
  const start = (mark) => marks.start[mark];
  const end = (mark) => marks.start[mark] + marks.length[mark];
  const stepOfPath = new Map(path.map((mark, n) => [marks.op[mark], n]));
  const whole = Math.max(data.end, 1);

  // --- view: picoseconds per pixel and what lies at the left edge ---

  const view = { left: 0, scale: 1, width: 0, chosen: -1, hovered: -1, only: false, fitted: true };

  function make(tag, parent, text, className) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (className) made.className = className;
    parent.append(made);
    return made;
  }
  const root = document.getElementById("timeline");
  const bar = make("div", root, "", "tools");
  const button = (text, title, action) => {
    const made = make("button", bar, text);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", action);
    return made;
  };
  button("+", "zoom in (+)", () => zoom(0.5));
  button("−", "zoom out (−)", () => zoom(2));
  button("whole step", "zoom out to everything (0)", fit);
  button("‹ previous", "the operation before on the critical path (p)", () => walk(-1)).dataset.act = "previous";
  button("next on critical path ›", "the next operation on the critical path (n)", () => walk(1)).dataset.act = "next";
  const label = make("label", bar);
  const only = make("input", label);
  only.type = "checkbox";
  label.append(" critical path only");
  only.addEventListener("change", () => { view.only = only.checked; draw(); });
  const legend = make("div", root, "", "legend");
  for (const [name, colour] of data.legend) {
    const entry = make("span", legend, name);
    const swatch = document.createElement("i");
    swatch.style.background = colour;
    entry.prepend(swatch);
  }
  const box = make("div", root, "", "lanes");
  const canvas = make("canvas", box);
  canvas.tabIndex = 0;
  canvas.setAttribute("aria-label", "timeline of the modelled step; arrow keys move, + and − zoom, n and p walk the critical path");
  const space = make("div", box);
  const tip = make("div", root, "", "tip");
  tip.hidden = true;
  const detail = make("p", root, "", "detail");
  detail.setAttribute("aria-live", "polite");
  const brush = canvas.getContext("2d");
  const height = Math.min(TALLEST, AXIS + rows.length * ROW + 6);

  // --- words ---

  function seconds(picoseconds) {
    const units = [[1e12, "s"], [1e9, "ms"], [1e6, "µs"], [1e3, "ns"], [1, "ps"]];
    const [size, unit] = units.find(([size]) => picoseconds >= size) || units[4];
    return `${picoseconds === 0 ? 0 : Number((picoseconds / size).toPrecision(4))} ${unit}`;
  }
  function scaled(value, unit, prefixes, factor) {
    let n = 0;
    while (n < prefixes.length - 1 && value < factor ** -n) n++;
    return `${Number((value * factor ** n).toPrecision(4))} ${prefixes[n]}${unit}`;
  }
  const joules = (value) => scaled(value, "J", ["", "m", "µ", "n", "p", "f"], 1000);
  const bytes = (value) => value < 1e3 ? `${value} B` : scaled(value / 1e9, "B", ["G", "M", "k"], 1000);
  function describe(mark) {
    const op = marks.op[mark], row = rows[marks.row[mark]], lines = [names[ops.name[op]]];
    lines.push(`${row.group}, ${row.label}: operation ${ops.id[op]}, ${kinds[ops.kind[op]].name}`);
    lines.push(`starts at ${seconds(ops.start[op])}, takes ${seconds(ops.length[op])}`);
    if (row.link) lines.push(`has this link from ${seconds(start(mark))} to ${seconds(end(mark))}`);
    if (marks.bytes[mark]) lines.push(`carries ${bytes(marks.bytes[mark])}`);
    lines.push(`energy ${joules(ops.energy[op])}${row.link ? " on each accelerator" : ""}`);
    const cause = opOf.get(ops.cause[op]);
    if (cause !== undefined) {
      const waited = ops.waited[op] > 0 ? `, ${seconds(ops.waited[op])}` : "";
      lines.push(`waited for ${reasons[ops.reason[op]]}${waited}: ${names[ops.name[cause]]} (operation ${ops.cause[op]})`);
    }
    const n = stepOfPath.get(op);
    if (n !== undefined) lines.push(`on the critical path, ${n + 1} of ${path.length}`);
    return lines;
  }

  // --- drawing ---

  const x = (time) => GUTTER + (time - view.left) / view.scale;
  const timeAt = (px) => view.left + (px - GUTTER) * view.scale;
  const y = (row) => AXIS + row * ROW - box.scrollTop;
  /** The first mark of a row that ends after a time. */
  function search(row, time) {
    let low = first[row], high = first[row + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (end(middle) > time) high = middle; else low = middle + 1;
    }
    return low;
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(view.width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(view.width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    brush.fillStyle = "#ffffff";
    brush.fillRect(0, 0, view.width, height);
    brush.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    brush.textBaseline = "middle";
    const top = Math.max(0, Math.floor(box.scrollTop / ROW));
    const bottom = Math.min(rows.length, Math.ceil((box.scrollTop + height - AXIS) / ROW));
    for (let r = top; r < bottom; r++) if (rows[r].band) {
      brush.fillStyle = GROUND;
      brush.fillRect(0, y(r), view.width, ROW);
    }
    drawGrid();
    for (let r = top; r < bottom; r++) drawRow(r);
    drawPath(top, bottom);
    outline(view.hovered, SOFT);
    outline(view.chosen, "#d4006a");
    drawGutter(top, bottom);
  }
  function drawRow(row) {
    const limit = timeAt(view.width), stop = first[row + 1], above = y(row) + 2;
    let drawn = -1;
    for (let mark = search(row, view.left); mark < stop && start(mark) < limit; mark++) {
      const from = Math.max(x(start(mark)), GUTTER - 2), to = Math.min(x(end(mark)), view.width + 2);
      // what lies within a pixel that is painted already cannot be seen
      if (to <= drawn + 0.5) continue;
      const op = marks.op[mark], critical = ops.critical[op] === 1;
      brush.globalAlpha = view.only && !critical ? 0.15 : 1;
      brush.fillStyle = kinds[ops.kind[op]].colour;
      const wide = Math.max(to - from - (to - from > 4 ? 0.6 : 0), 1);
      brush.fillRect(from, above, wide, BAR);
      if (critical) {
        brush.fillStyle = INK;
        brush.fillRect(from, above + BAR - 2.5, wide, 2.5);
      }
      if (wide > 58) {
        brush.fillStyle = kinds[ops.kind[op]].ink;
        const name = names[ops.name[op]], fits = Math.floor((wide - 8) / 6.6);
        brush.fillText(name.length <= fits ? name : name.slice(0, fits - 1) + "…", from + 4, above + BAR / 2 - (critical ? 1 : 0));
      }
      drawn = from + wide;
    }
    brush.globalAlpha = 1;
  }
  /** Lines from each operation of the critical path to the next, where that is on another row. */
  function drawPath(top, bottom) {
    let low = 0, high = path.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (start(path[middle]) >= view.left) high = middle; else low = middle + 1;
    }
    const limit = timeAt(view.width);
    let drawn = -2;
    brush.strokeStyle = INK;
    brush.lineWidth = 0.8;
    brush.beginPath();
    for (let n = Math.max(low, 1); n < path.length && start(path[n]) <= limit; n++) {
      const before = marks.row[path[n - 1]], row = marks.row[path[n]];
      const at = x(start(path[n]));
      if (before === row || at - drawn < 1 || Math.max(before, row) < top || Math.min(before, row) >= bottom) continue;
      brush.moveTo(at, y(before) + ROW / 2 + (row > before ? BAR / 2 : -BAR / 2));
      brush.lineTo(at, y(row) + ROW / 2);
      drawn = at;
    }
    brush.stroke();
  }
  function outline(mark, colour) {
    if (mark < 0) return;
    brush.strokeStyle = colour;
    brush.lineWidth = 2;
    for (const each of [mark, ...sisters(mark)]) {
      const from = Math.max(x(start(each)), GUTTER - 4), to = Math.min(x(end(each)), view.width + 4);
      if (to >= GUTTER) brush.strokeRect(from - 1, y(marks.row[each]) + 1, Math.max(to - from, 1) + 2, BAR + 2);
      brush.lineWidth = 1;
    }
  }
  /** The marks of the same operation on other rows, of those that a search by time finds. */
  function sisters(mark) {
    const found = [], op = marks.op[mark];
    const at = ops.start[op] + ops.length[op] / 2;
    for (let row = 0; row < rows.length && rows.length <= 400; row++) {
      const other = search(row, at);
      if (other < first[row + 1] && other !== mark && marks.op[other] === op) found.push(other);
    }
    return found;
  }
  function drawGrid() {
    const aim = (view.width - GUTTER) / 110, rough = (view.scale * (view.width - GUTTER)) / Math.max(aim, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    brush.strokeStyle = LINE;
    brush.lineWidth = 1;
    brush.fillStyle = SOFT;
    brush.textAlign = "center";
    const begin = Math.max(0, Math.ceil(view.left / step));
    for (let n = begin; n * step <= timeAt(view.width); n++) {
      const at = Math.round(x(n * step)) + 0.5;
      brush.beginPath();
      brush.moveTo(at, AXIS - 4);
      brush.lineTo(at, height);
      brush.stroke();
      brush.fillText(n ? seconds(n * step) : "0", at, AXIS / 2);
    }
    brush.textAlign = "left";
    const links = rows.findIndex((row) => row.link);
    if (links > 0) brush.fillRect(0, y(links) - 1, view.width, 0.8);
  }
  function drawGutter(top, bottom) {
    brush.fillStyle = "#ffffff";
    brush.fillRect(0, 0, GUTTER - 4, AXIS);
    for (let r = top; r < bottom; r++) {
      brush.fillStyle = rows[r].band ? GROUND : "#ffffff";
      brush.fillRect(0, y(r), GUTTER - 4, ROW);
      const head = !rows[r].link && (r === top || rows[r - 1].group !== rows[r].group);
      brush.fillStyle = head ? INK : SOFT;
      const short = GUTTER < 100 ? rows[r].group.replace("accelerator ", "") : rows[r].group;
      const text = head ? `${short} ${rows[r].label}` : rows[r].label;
      brush.fillText(text, head || rows[r].link ? 4 : 16, y(r) + ROW / 2, GUTTER - 22);
    }
    brush.fillStyle = "#ffffff";
    brush.fillRect(0, 0, GUTTER - 4, AXIS);
  }

  // --- moving ---

  function place(left, scale) {
    const room = view.width - GUTTER - 8;
    view.scale = Math.min(Math.max(scale, 1e-3), whole / room);
    view.left = Math.min(Math.max(left, 0), Math.max(0, whole - view.scale * room));
    view.fitted = view.scale >= whole / room;
    draw();
  }
  function fit() { place(0, Infinity); }
  function zoom(factor, at = GUTTER + (view.width - GUTTER) / 2) {
    const time = timeAt(at), scale = Math.min(view.scale * factor, whole / (view.width - GUTTER - 8));
    place(time - (at - GUTTER) * scale, scale);
  }
  function pan(pixels) { place(view.left + pixels * view.scale, view.scale); }
  function walk(way) {
    if (!path.length) return;
    const here = view.chosen < 0 ? undefined : stepOfPath.get(marks.op[view.chosen]);
    choose(here === undefined ? (way > 0 ? 0 : path.length - 1) : (here + way + path.length) % path.length);
  }
  /** Select the n-th operation of the critical path and bring it into sight. */
  function choose(n) {
    const mark = path[n];
    tip.hidden = true;
    select(mark);
    const room = view.width - GUTTER - 8, length = Math.max(marks.length[mark], 1);
    const scale = Math.min(Math.max(view.scale, (2 * length) / room), Math.max((30 * length) / room, 1e-3));
    const visible = scale === view.scale && start(mark) >= view.left && end(mark) <= timeAt(view.width - 8);
    const above = marks.row[mark] * ROW;
    if (above < box.scrollTop || above + ROW > box.scrollTop + height - AXIS) box.scrollTop = above - height / 2;
    if (visible) draw(); else place(start(mark) + length / 2 - (scale * room) / 2, scale);
  }
  function select(mark) {
    view.chosen = mark;
    detail.textContent = mark < 0 ? "" : describe(mark).join(" · ");
  }
  function markAt(px, py) {
    const row = Math.floor((py - AXIS + box.scrollTop) / ROW);
    if (px < GUTTER || py < AXIS || row < 0 || row >= rows.length) return -1;
    const slack = 2 * view.scale, time = timeAt(px), mark = search(row, time - slack);
    return mark < first[row + 1] && start(mark) <= time + slack ? mark : -1;
  }

  let drag = null;
  const point = (event) => [event.clientX - canvas.getBoundingClientRect().left, event.clientY - canvas.getBoundingClientRect().top];
  canvas.addEventListener("pointerdown", (event) => {
    drag = { at: event.clientX, left: view.left, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      drag.moved = drag.moved || Math.abs(event.clientX - drag.at) > 3;
      if (drag.moved) place(drag.left - (event.clientX - drag.at) * view.scale, view.scale);
      tip.hidden = true;
      return;
    }
    const [px, py] = point(event), mark = markAt(px, py);
    if (mark !== view.hovered) {
      view.hovered = mark;
      draw();
    }
    tip.hidden = mark < 0;
    if (mark < 0) return;
    tip.replaceChildren(...describe(mark).map((line, n) => {
      const made = document.createElement(n ? "div" : "b");
      made.textContent = line;
      return made;
    }));
    const edge = root.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(event.clientX - edge.left + 14, edge.width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY - edge.top + 16}px`;
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) {
      select(markAt(...point(event)));
      draw();
    }
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { view.hovered = -1; tip.hidden = true; draw(); });
  canvas.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 3 : 1 / 3, point(event)[0]));
  canvas.addEventListener("wheel", (event) => {
    // a plain wheel scrolls the page or the rows; with a key, or sideways, it is ours
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!sideways && !event.ctrlKey && !event.metaKey && !event.altKey) return;
    event.preventDefault();
    if (sideways) pan(event.deltaX); else zoom(Math.exp(Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) / 250), point(event)[0]);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const room = view.width - GUTTER;
    const keys = {
      ArrowLeft: () => pan(-room / 8), ArrowRight: () => pan(room / 8), "+": () => zoom(0.5), "=": () => zoom(0.5),
      "-": () => zoom(2), 0: fit, n: () => walk(1), p: () => walk(-1), Escape: () => { select(-1); draw(); },
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  box.addEventListener("scroll", draw);
  new ResizeObserver(() => {
    if (box.clientWidth === view.width) return;
    view.width = box.clientWidth;
    canvas.style.width = `${view.width}px`;
    place(view.left, view.fitted ? Infinity : view.scale);
  }).observe(box);
  canvas.style.height = `${height}px`;
  box.style.height = `${height + 2}px`;  // its border
  space.style.height = `${Math.max(0, AXIS + rows.length * ROW + 6 - height)}px`;

  // for whoever drives the page: where a mark is on the canvas, and what is in sight
  root.timeline = {
    marks: marks.row.length, path, view,
    at: (mark, part = 0.5) => [x(start(mark) + marks.length[mark] * part), y(marks.row[mark]) + ROW / 2],
  };
})();
