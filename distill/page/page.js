"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, words) => Object.assign(document.createElement(name), words);
  const reading = document.getElementById("reading");
  const said = document.getElementById("said");

  // Light or dark: as the system has it, until the button is pressed.
  const root = document.documentElement, theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.ariaLabel = theme.textContent + " theme"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  name();

  // Tables: a header is a button that sorts, first the highest number or the first word.
  const value = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    const number = /^[+-]?[\d.,]+/.exec(text);
    return text === "-" || text === "" ? null : number ? Number(number[0].replaceAll(",", "")) : text;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true }));
  const sort = (table, header, column) => {
    const before = header.ariaSort, numbers = header.classList.contains("number");
    const up = before === "descending" || (before !== "ascending" && !numbers);
    const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
    const known = rows.filter(([one]) => one !== null).sort(([a], [b]) => (up ? 1 : -1) * compare(a, b));
    table.tBodies[0].append(...[...known, ...rows.filter(([one]) => one === null)].map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
    header.ariaSort = up ? "ascending" : "descending";
    said.textContent = `Sorted by ${header.textContent}, ${header.ariaSort}`;
  };
  for (const table of $("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = make("button", { type: "button" });
      button.append(...header.childNodes);
      header.append(button);
      header.ariaSort = "none";
      button.addEventListener("click", () => sort(table, header, column));
    });
  }

  // Readings: what is told of a mark, or of the curves at a step, beside the pointer.
  const show = (lines, x, y) => {
    reading.replaceChildren(...lines.map((line) => make("div", { textContent: line })));
    reading.hidden = false;
    const box = reading.getBoundingClientRect(), gap = 14;
    const left = x + gap + box.width > innerWidth - 4 ? x - gap - box.width : x + gap;
    reading.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
    reading.style.top = `${Math.max(4, y - box.height - gap < 4 ? y + gap : y - box.height - gap)}px`;
  };
  const hide = () => { reading.hidden = true; };
  const short = (number, unit) => `${Number(number.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 5 })}${unit}`;
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle; else high = middle; }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  };
  const between = ([low, high, start, end], place) => low + (place - start) / (end - start) * (high - low);
  const place = ([low, high, start, end], one) => start + (one - low) / (high - low) * (end - start);

  const curves = (plot, data) => {
    const svg = plot.querySelector("svg");
    const width = svg.viewBox.baseVal.width;
    const rule = document.createElementNS(SVG, "line");
    rule.setAttribute("class", "rule");
    rule.setAttribute("y1", data.y[3]);
    rule.setAttribute("y2", data.y[2]);
    const steps = [...new Set(data.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    let at = -1;
    const read = (step, y) => {
      const near = data.lines.map((line) => [line.name, line.y[nearest(line.x, step)]]);
      const height = (one) => place(data.y, one / (data.unit ? 100 : 1));
      if (near.length > 10) near.sort(([, a], [, b]) => Math.abs(height(a) - y) - Math.abs(height(b) - y)).splice(10);
      near.sort(([, a], [, b]) => b - a);
      const x = place(data.x, step);
      rule.setAttribute("x1", x);
      rule.setAttribute("x2", x);
      if (!rule.isConnected) svg.append(rule);
      return [`step ${step.toLocaleString("en")}`, ...near.map(([line, one]) => `${line}: ${short(one, data.unit)}`)];
    };
    const clear = () => { rule.remove(); hide(); };
    plot.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), scale = width / box.width;
      const inside = (event.clientX - box.left) * scale;
      if (inside < data.x[2] - 8 || inside > data.x[3] + 8) { clear(); return; }
      at = nearest(steps, between(data.x, inside));
      show(read(steps[at], (event.clientY - box.top) * scale), event.clientX, event.clientY);
    });
    plot.addEventListener("pointerleave", clear);
    plot.addEventListener("blur", clear);
    plot.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") clear();
      if (!move) return;
      event.preventDefault();
      at = Math.max(0, Math.min(steps.length - 1, at + move));
      const lines = read(steps[at], (data.y[2] + data.y[3]) / 2), box = svg.getBoundingClientRect();
      show(lines, box.left + place(data.x, steps[at]) * box.width / width, box.top + box.height / 2);
      said.textContent = lines.join("; ");
    });
  };

  const marks = (plot) => {
    const all = $(".mark", plot).filter((mark) => mark.querySelector("title"));
    all.forEach((mark) => { const title = mark.querySelector("title"); mark.dataset.tip = title.textContent; title.remove(); });
    let at = -1;
    const clear = () => { all.forEach((mark) => mark.classList.remove("read")); hide(); };
    plot.addEventListener("pointermove", (event) => {
      const mark = event.target.closest(".mark[data-tip]");
      if (mark) show([mark.dataset.tip], event.clientX, event.clientY); else hide();
    });
    plot.addEventListener("pointerleave", clear);
    plot.addEventListener("blur", clear);
    plot.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") clear();
      if (!move || !all.length) return;
      event.preventDefault();
      clear();
      at = Math.max(0, Math.min(all.length - 1, at + move));
      all[at].classList.add("read");
      const box = all[at].getBoundingClientRect();
      show([all[at].dataset.tip], box.left + box.width / 2, box.top);
      said.textContent = all[at].dataset.tip;
    });
  };

  // Saving: the drawing with its colours written into it, as it looks now.
  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap",
    "opacity", "font-size", "font-family"];
  const standalone = (svg) => {
    const copy = svg.cloneNode(true), from = [svg, ...$("*", svg)], to = [copy, ...$("*", copy)];
    from.forEach((one, number) => {
      const style = getComputedStyle(one);
      for (const key of STYLES) to[number].setAttribute(key, style.getPropertyValue(key));
      for (const key of ["class", "data-tip"]) to[number].removeAttribute(key);
    });
    $(".rule", copy).forEach((one) => one.remove());
    const { width, height } = svg.viewBox.baseVal;
    for (const [key, one] of Object.entries({ xmlns: SVG, width, height })) copy.setAttribute(key, one);
    const back = document.createElementNS(SVG, "rect");
    const colour = getComputedStyle(svg.closest(".chart")).backgroundColor;
    for (const [key, one] of Object.entries({ width: "100%", height: "100%", fill: colour })) back.setAttribute(key, one);
    copy.prepend(back);
    return new XMLSerializer().serializeToString(copy);
  };
  const download = (blob, file) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const picture = (text, svg, file) => {
    const { width, height } = svg.viewBox.baseVal, image = new Image(), canvas = make("canvas", { width: 3 * width, height: 3 * height });
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => download(blob, file), "image/png");
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  };
  for (const chart of $(".chart")) {
    const plot = chart.querySelector(".plot"), svg = plot.querySelector("svg"), data = plot.querySelector("script");
    if (data) curves(plot, JSON.parse(data.textContent)); else marks(plot);
    const title = chart.querySelector("figcaption").textContent;
    const file = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "plot";
    const row = make("div", { className: "save" });
    for (const kind of ["SVG", "PNG"]) {
      const button = make("button", { type: "button", textContent: kind, ariaLabel: `Save ${title} as ${kind}` });
      button.addEventListener("click", () => {
        const text = standalone(svg);
        if (kind === "PNG") picture(text, svg, `${file}.png`);
        else download(new Blob([text], { type: "image/svg+xml" }), `${file}.svg`);
      });
      row.append(button);
    }
    chart.append(row);
  }

  // The part of the page that is read, in the contents.
  const links = new Map($("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -70% 0px" });
  $("section").forEach((section) => seen.observe(section));
})();
