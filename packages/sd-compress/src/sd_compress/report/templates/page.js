"use strict";
(() => {
  const one = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  document.documentElement.classList.add("scripted");

  const layers = one(".layers tbody");
  const rows = all("tr", layers);

  // Sorting: the value of a cell is in its data-value; cells without one come last, whichever the direction.
  const sortBy = (heading) => {
    const column = heading.cellIndex;
    const isNumber = heading.dataset.sort === "number";
    const before = heading.getAttribute("aria-sort");
    const down = before === null ? isNumber : before === "ascending";
    const value = (row) => row.cells[column].dataset.value;
    const sign = down ? -1 : 1;
    rows.sort((left, right) => {
      const [a, b] = [value(left), value(right)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (isNumber ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
    });
    layers.append(...rows);
    all(".layers thead th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  all(".layers thead th").forEach((heading) => one("button", heading).addEventListener("click", () => sortBy(heading)));

  // Filtering: every word has to be in the name, the module or the operation.
  const filter = one(".filter");
  const component = one(".component");
  const stored = one(".stored");
  const texts = new Map(rows.map((row) => [row, `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase()]));
  const bytesOf = (row) => row.dataset.stored.split(",")[stored.value];
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0, bytes = 0;
    for (const row of rows) {
      const fits = words.every((word) => texts.get(row).includes(word));
      row.hidden = !(fits && (!component?.value || row.dataset.component === component.value));
      if (!row.hidden) { count += 1; bytes += Number(bytesOf(row)); }
    }
    const name = stored.selectedOptions[0].textContent;
    one(".count").textContent = `${count} of ${rows.length} weights, ${(bytes / 1e6).toFixed(2)} MB as stored by ${name}`;
  };

  // Another candidate: its bits and megabytes, where it says them.
  const restore = () => {
    for (const row of rows) {
      const bytes = bytesOf(row);
      const elements = Number(row.cells[3].dataset.value);
      const write = (cell, value, text) => { cell.dataset.value = value; cell.textContent = text; };
      const known = bytes !== "" && elements > 0;
      write(one(".bits", row), known ? 8 * bytes / elements : "", known ? (8 * bytes / elements).toFixed(2) : "");
      write(one(".megabytes", row), bytes, bytes === "" ? "" : (bytes / 1e6).toFixed(3));
    }
    show();
  };
  filter.addEventListener("input", show);
  component?.addEventListener("change", show);
  stored.addEventListener("change", restore);
  show();

  const choose = (name) => {
    const option = [...stored.options].find((candidate) => candidate.textContent === name);
    if (option) { stored.value = option.value; restore(); }
  };

  // Two pictures, one over the other, cut at the slider.
  const stage = one(".stage");
  const thumbs = all(".thumb");
  let compare = () => {};
  if (stage) {
    const prompt = one(".prompt"), left = one(".side.left"), right = one(".side.right"), split = one(".split");
    const thumbOf = (name) => thumbs.find((thumb) => thumb.dataset.prompt === prompt.value && thumb.dataset.candidate === name);
    const place = (image, badge, name) => {
      const picture = one("img", thumbOf(name));
      image.src = picture.src;
      image.alt = picture.alt;
      badge.textContent = name;
    };
    const fact = (name, small) => {
      const row = document.createElement("div");
      const term = document.createElement("dt"), value = document.createElement("dd");
      term.textContent = name;
      value.textContent = small.textContent;
      row.append(term, value);
      return row;
    };
    const draw = () => {
      place(one(".before"), one(".badge.left"), left.value);
      place(one(".after"), one(".badge.right"), right.value);
      const picture = one(".after");
      stage.style.aspectRatio = picture.naturalWidth ? `${picture.naturalWidth} / ${picture.naturalHeight}` : "";
      const shown = [left.value, right.value];
      one(".facts").replaceChildren(...shown.map((name) => fact(name, one("small", thumbOf(name)))));
      thumbs.forEach((thumb) => thumb.classList.toggle("shown", thumb.dataset.prompt === prompt.value && shown.includes(thumb.dataset.candidate)));
    };
    const cut = () => {
      stage.style.setProperty("--split", `${split.value}%`);
      split.setAttribute("aria-valuetext", `${split.value} % ${left.value}, the rest ${right.value}`);
    };
    split.addEventListener("input", cut);
    [prompt, left, right].forEach((choice) => choice.addEventListener("change", () => { draw(); cut(); }));
    one(".after").addEventListener("load", () => {
      const picture = one(".after");
      stage.style.aspectRatio = `${picture.naturalWidth} / ${picture.naturalHeight}`;
    });
    compare = (name, number) => {
      if (number !== undefined) prompt.value = number;
      if ([...right.options].some((option) => option.value === name)) right.value = name;
      draw();
      cut();
    };
    thumbs.forEach((thumb) => thumb.addEventListener("click", () => { compare(thumb.dataset.candidate, thumb.dataset.prompt); choose(thumb.dataset.candidate); }));
    draw();
    cut();
  }
  all(".dot").forEach((dot) => dot.addEventListener("click", () => { choose(dot.dataset.candidate); compare(dot.dataset.candidate); }));
})();
