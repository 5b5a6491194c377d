"use strict";
// What a page does beyond being read: colors, copying, filter and sort, values under the pointer, one panel large.
// Everything it needs is in the page; without it all of the page can be read.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const between = (value, low, high) => Math.min(Math.max(value, low), high);
  const say = text => { one("#said").textContent = text; };

  // -- Light and dark ------------------------------------------------------------------------------------------------

  const THEME = "absence-plugins-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  // Storage is refused in some frames and private windows: the choice then lasts as long as the page.
  const kept = () => { try { return localStorage.getItem(THEME); } catch { return null; } };
  const keep = theme => { try { localStorage.setItem(THEME, theme); } catch { /* not kept */ } };

  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const themeButton = one(".theme");
  const showTheme = () => themeButton.setAttribute("aria-pressed", isDark());
  if (["dark", "light"].includes(kept())) root.dataset.theme = kept();
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep(root.dataset.theme);
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();

  // -- Copying -------------------------------------------------------------------------------------------------------

  function copyBySelection(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }

  async function copy(button) {
    let done = true;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      done = copyBySelection(button.dataset.copy);
      button.focus();
    }
    const before = button.dataset.label ??= button.textContent;
    button.textContent = done ? "Copied" : "Not copied";
    say(button.textContent);
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  for (const button of all(".copy")) button.addEventListener("click", () => copy(button));

  // -- Filter and sort -----------------------------------------------------------------------------------------------

  const tools = one(".tools");
  const sections = all(".row");
  const lines = all(".units tbody tr");
  const short = new Map(all("tr[data-of]").map(line => [line.dataset.of, line]));

  // "−1.2e-5 of 3" is -0.000012; NaN where a text does not begin with a number.
  function numberOf(text) {
    const found = /^\s*[≤≥<>~±]?\s*([-+−]?\d[\d,]*\.?\d*(?:e[-+−]?\d+)?)/i.exec(text);
    return found ? Number(found[1].replaceAll(",", "").replaceAll("−", "-")) : NaN;
  }

  function compare(a, b) {
    const [first, second] = [numberOf(a), numberOf(b)];
    if (Number.isNaN(first) !== Number.isNaN(second)) return Number.isNaN(first) ? 1 : -1;
    return first - second || a.localeCompare(b, undefined, { numeric: true });
  }

  const isNumeric = texts => texts.filter(text => !Number.isNaN(numberOf(text))).length * 2 >= texts.length;
  const factOf = (section, label) =>
    all(".facts > div", section).find(fact => one("dt", fact).textContent === label)?.lastElementChild.textContent ?? "";

  // What can be sorted by: the table's columns, or numbers that at least half of the rows have.
  function sorters() {
    if (lines.length) {
      return all(".units th[data-column]").map(head => ({
        name: head.textContent, head, items: lines,
        text: line => all("td[data-label]", line)[head.dataset.column].textContent,
      }));
    }
    const counts = new Map();
    for (const label of all(".row .facts dt")) counts.set(label.textContent, (counts.get(label.textContent) ?? 0) + 1);
    const shared = [...counts.keys()].filter(label => counts.get(label) * 2 >= sections.length && counts.get(label) > 1)
      .filter(label => isNumeric(sections.map(section => factOf(section, label))));
    if (!shared.length) return [];
    const name = { name: "Name", items: sections, text: section => one("h2", section).textContent };
    return [name, ...shared.map(label => ({ name: label, items: sections, text: section => factOf(section, label) }))];
  }

  function arrange(items) {
    for (const item of items) item.parentElement.append(item);
    for (const item of items) if (short.has(item.id)) short.get(item.id).parentElement.append(short.get(item.id));
  }

  function setUpSort(choices) {
    const select = one("select", tools);
    const turn = one(".turn", tools);
    select.append(new Option("order of the page", "-1"), ...choices.map((choice, i) => new Option(choice.name, i)));
    const sort = () => {
      const choice = choices[select.value];
      const down = turn.getAttribute("aria-pressed") === "true";
      for (const { head } of choices) head?.removeAttribute("aria-sort");
      turn.disabled = !choice;
      if (!choice) return arrange(choices[0].items);
      const text = choice.text;
      const known = choice.items.filter(item => text(item).trim() && text(item).trim() !== "–");
      known.sort((a, b) => compare(text(a), text(b)) * (down ? -1 : 1));
      arrange([...known, ...choice.items.filter(item => !known.includes(item))]);
      choice.head?.setAttribute("aria-sort", down ? "descending" : "ascending");
    };
    select.addEventListener("change", sort);
    turn.addEventListener("click", () => {
      turn.setAttribute("aria-pressed", turn.getAttribute("aria-pressed") !== "true");
      sort();
    });
    choices.forEach(({ head }, i) => {
      if (!head) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        turn.setAttribute("aria-pressed", Number(select.value) === i && turn.getAttribute("aria-pressed") !== "true");
        select.value = i;
        sort();
      });
    });
    turn.disabled = true;
    for (const hidden of [one(".sort", tools), turn]) hidden.hidden = false;
  }

  function setUpFilter() {
    const field = one("input", tools);
    const items = [...lines, ...sections];
    const counted = lines.length ? lines : sections;
    const texts = new Map(items.map(item => [item, item.textContent.toLowerCase()]));
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const item of items) {
        item.hidden = !words.every(word => texts.get(item).includes(word));
        if (short.has(item.id)) short.get(item.id).hidden = item.hidden;
      }
      const shown = counted.filter(item => !item.hidden).length;
      one(".shown", tools).textContent = words.length ? `${shown} of ${counted.length} shown` : "";
    };
    field.addEventListener("input", filter);
    // A link to a row that is filtered out leads to it all the same.
    addEventListener("hashchange", () => {
      const target = document.getElementById(location.hash.slice(1));
      if (!target?.hidden) return;
      field.value = "";
      filter();
      target.scrollIntoView();
    });
  }

  if (tools) {
    const choices = sorters();
    if (choices.length && choices[0].items.length > 1) setUpSort(choices);
    setUpFilter();
    tools.hidden = false;
  }

  // -- Values under the pointer --------------------------------------------------------------------------------------

  // A panel: where it is, the size of its data, and the values of a map, decoded when they are first asked for.
  function readPanel(box) {
    const { rows, columns, cell, bits, step, grid } = Object.fromEntries(
      Object.entries(box.dataset).filter(([name]) => name !== "values").map(([name, text]) => [name, Number(text)]));
    const frame = box.closest(".panel");
    const panel = { box, frame, rows, columns, cell, step, isMap: "values" in box.dataset, title: one("h3", frame).textContent };
    let numbers = null;
    panel.place = (across, down) => {
      const at = (share, count) => Math.floor(between(Math.floor(share * count), 0, count - 1) / cell);
      return [at(across, columns), at(down, rows)];
    };
    // A whole number; times step it is the value.
    panel.number = (column, row) => {
      numbers ??= new DataView(Uint8Array.from(atob(box.dataset.values), letter => letter.charCodeAt(0)).buffer);
      const i = row * grid + column;
      return bits === 8 ? numbers.getInt8(i) : numbers.getInt16(2 * i, true);
    };
    panel.value = (across, down) => {
      const number = panel.number(...panel.place(across, down));
      if (number === 0) return "0";
      const digits = between(Math.floor(Math.log10(Math.abs(number))) + 1, 1, 3); // no more than the rounding leaves
      const text = String(Number((number * step).toPrecision(digits)));
      return (number > 0 ? `+${text}` : text).replaceAll("-", "−");
    };
    panel.where = (across, down) => {
      const range = (index, count) =>
        cell === 1 ? `${index}` : `${index * cell}–${Math.min((index + 1) * cell, count) - 1}`;
      const [column, row] = panel.place(across, down);
      return `x ${range(column, columns)}, y ${range(row, rows)}`;
    };
    return panel;
  }

  // The picture becomes a button: it can have the focus, and its name is its alternative text.
  function makeButton(panel) {
    const button = document.createElement("button");
    for (const { name, value } of panel.box.attributes) button.setAttribute(name, value);
    button.type = "button";
    button.setAttribute("aria-haspopup", "dialog");
    button.append(...panel.box.childNodes);
    panel.box.replaceWith(button);
    panel.box = button;
  }

  // Crosshairs of a row: the same relative place in all panels of the same proportions.
  class Group {
    constructor(element) {
      this.panels = all(".picture", element).map(readPanel);
      this.maps = this.panels.filter(panel => panel.isMap);
      this.place = null;
      this.pointed = null;
      for (const panel of this.panels) {
        panel.group = this;
        makeButton(panel);
        if (!this.maps.length) continue;
        panel.readout = document.createElement("span");
        panel.readout.setAttribute("aria-hidden", "true"); // said once, by say()
        panel.box.append(panel.readout);
      }
      if (this.maps.length) this.listen(element);
    }

    alike(panel) {
      const ratio = panel.columns / panel.rows;
      return this.panels.filter(other => Math.abs(Math.log(other.columns / other.rows / ratio)) < 0.03);
    }

    point(panel, across, down) {
      this.clear();
      this.pointed = panel;
      this.place = [between(across, 0, 1), between(down, 0, 1)];
      for (const other of this.alike(panel)) {
        mark(other.box, this.place);
        const where = other.where(...this.place);
        other.readout.textContent = where;
        other.readout.className = this.place[1] < 0.3 ? "readout below" : "readout";
        if (!other.isMap) continue;
        const value = document.createElement("b");
        value.textContent = other.value(...this.place);
        other.readout.prepend(value, " at ");
      }
      shownLarge(this);
    }

    clear() {
      for (const panel of this.panels) {
        mark(panel.box, null);
        panel.readout.textContent = "";
      }
      this.place = this.pointed = null;
      shownLarge(this);
    }

    // "x 3, y 5. Map of 3: +0.2. Map of 8: −0.1."
    get said() {
      if (!this.place) return "";
      const maps = this.alike(this.pointed).filter(panel => panel.isMap);
      return [this.pointed.where(...this.place), ...maps.map(map => `${map.title}: ${map.value(...this.place)}`)].join(". ");
    }

    listen(element) {
      const panelOf = event => this.panels.find(panel => panel.box.contains(event.target));
      const follow = event => {
        const panel = panelOf(event);
        if (!panel) return;
        const { left, top, width, height } = panel.box.getBoundingClientRect();
        this.point(panel, (event.clientX - left) / width, (event.clientY - top) / height);
      };
      element.addEventListener("pointermove", follow);
      element.addEventListener("pointerdown", follow);
      element.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") this.clear(); });
      element.addEventListener("keydown", event => {
        const panel = panelOf(event);
        if (panel && this.step(panel, event)) event.preventDefault();
      });
    }

    // Arrow keys move by one cell of the panel, or of the row's first map where the panel is an image.
    step(panel, event) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape" && this.place) {
        this.clear();
        return true;
      }
      const move = moves[event.key];
      if (!move || event.ctrlKey || event.altKey || event.metaKey) return false;
      const { rows, columns, cell } = panel.isMap ? panel : this.maps[0];
      const [column, row] = this.place ?? [0.5, 0.5];
      const times = this.place ? (event.shiftKey ? 10 : 1) * cell : 0; // the first press shows the middle
      const stepped = (share, by, count) => {
        const pixel = between(Math.floor(share * count) + by * times, 0, count - 1);
        return (Math.floor(pixel / cell) * cell + Math.min(cell, count - Math.floor(pixel / cell) * cell) / 2) / count;
      };
      this.point(panel, stepped(column, move[0], columns), stepped(row, move[1], rows));
      say(this.said);
      return true;
    }
  }

  function mark(element, place) {
    element.classList.toggle("at", place !== null);
    if (!place) return;
    element.style.setProperty("--x", place[0]);
    element.style.setProperty("--y", place[1]);
  }

  // -- One panel, large ----------------------------------------------------------------------------------------------

  const MOST = 16; // times as large as the whole picture
  const dialog = one("#large");
  const stage = one(".stage", dialog);
  const sheet = one(".sheet", dialog);
  const view = { panel: null, scale: 1, x: 0.5, y: 0.5 }; // x, y: which place of the picture is in the middle
  let panels = [];

  function shownLarge(group) {
    if (view.panel?.group !== group || !dialog.open) return;
    const marked = group.place && group.alike(group.pointed).includes(view.panel);
    mark(sheet, marked ? group.place : null);
    one(".read", dialog).textContent = marked ? group.said : "";
  }

  function place() {
    const { clientWidth: wide, clientHeight: high } = stage;
    const ratio = Number(getComputedStyle(view.panel.box).getPropertyValue("--ratio"));
    const width = Math.min(wide - 24, (high - 24) * ratio) * view.scale;
    const height = width / ratio;
    // Some of the picture stays in the middle of the stage; the whole picture is in the middle itself.
    const limit = share => view.scale === 1 ? 0.5 : between(share, 0, 1);
    view.x = limit(view.x);
    view.y = limit(view.y);
    Object.assign(sheet.style, {
      width: `${width}px`, height: `${height}px`, left: `${wide / 2 - view.x * width}px`, top: `${high / 2 - view.y * height}px`,
    });
  }

  // The place under (left, top) on the stage stays there.
  function zoom(times, left = stage.clientWidth / 2, top = stage.clientHeight / 2) {
    const before = sheet.getBoundingClientRect();
    const frame = stage.getBoundingClientRect();
    const across = (left - (before.left - frame.left)) / before.width;
    const down = (top - (before.top - frame.top)) / before.height;
    const scale = between(view.scale * times, 1, MOST);
    const growth = scale / view.scale;
    view.scale = scale;
    view.x = across + (stage.clientWidth / 2 - left) / (before.width * growth);
    view.y = down + (stage.clientHeight / 2 - top) / (before.height * growth);
    place();
  }

  function pan(across, down) {
    view.x += across / sheet.offsetWidth;
    view.y += down / sheet.offsetHeight;
    place();
  }

  function whole() {
    Object.assign(view, { scale: 1, x: 0.5, y: 0.5 });
    place();
  }

  function show(panel) {
    const same = view.panel && Math.abs(view.panel.columns / view.panel.rows - panel.columns / panel.rows) < 0.03;
    if (!same) Object.assign(view, { scale: 1, x: 0.5, y: 0.5 });
    view.panel = panel;
    const image = one("img", panel.box).cloneNode();
    image.draggable = false;
    sheet.replaceChildren(image);
    sheet.classList.toggle("pixelated", panel.box.classList.contains("pixelated"));
    const heading = one("h2", panel.frame.closest(".row")).textContent;
    one("h2", dialog).textContent = panel.title;
    const shown = panels.filter(other => !other.frame.closest(".row").hidden);
    one(".count", dialog).textContent = `${shown.indexOf(panel) + 1} of ${shown.length} · ${heading}`;
    one(".copy-of", dialog).replaceChildren(...all(".bar, figcaption", panel.frame).map(part => part.cloneNode(true)));
    one(".read", dialog).hidden = !panel.group.maps.length;
    if (!dialog.open) dialog.showModal();
    place();
    shownLarge(panel.group);
  }

  function go(by) {
    const shown = panels.filter(panel => !panel.frame.closest(".row").hidden);
    const next = shown[(shown.indexOf(view.panel) + by + shown.length) % shown.length];
    show(next);
  }

  const ACTIONS = {
    previous: () => go(-1), next: () => go(1), in: () => zoom(1.5), out: () => zoom(1 / 1.5), whole, close: () => dialog.close(),
  };
  const KEYS = { ArrowLeft: "previous", ArrowRight: "next", "+": "in", "=": "in", "-": "out", "−": "out", 0: "whole" };
  const PANS = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] };

  function setUpDialog() {
    for (const button of all("[data-do]", dialog)) button.addEventListener("click", () => ACTIONS[button.dataset.do]());
    dialog.addEventListener("keydown", event => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const by = event.key in PANS && (event.shiftKey || event.key === "ArrowUp" || event.key === "ArrowDown");
      if (by) pan(...PANS[event.key]);
      else if (event.key in KEYS) ACTIONS[KEYS[event.key]]();
      else return;
      event.preventDefault();
    });
    dialog.addEventListener("close", () => view.panel.box.focus());
    addEventListener("resize", () => { if (dialog.open) place(); });
    stage.addEventListener("wheel", event => {
      event.preventDefault();
      const frame = stage.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / (event.deltaMode ? 20 : 400)), event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    stage.addEventListener("dblclick", event => {
      const frame = stage.getBoundingClientRect();
      zoom(2, event.clientX - frame.left, event.clientY - frame.top);
    });
    setUpPointers();
  }

  // One pointer drags, two pinch; each shows the value below it.
  function setUpPointers() {
    const down = new Map();
    stage.addEventListener("pointerdown", event => {
      down.set(event.pointerId, event);
      stage.setPointerCapture(event.pointerId);
      follow(event);
    });
    stage.addEventListener("pointermove", event => {
      const before = down.get(event.pointerId);
      if (before && down.size === 1) pan(before.clientX - event.clientX, before.clientY - event.clientY);
      if (before && down.size === 2) {
        const other = [...down.values()].find(pointer => pointer.pointerId !== event.pointerId);
        const apart = pointer => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
        const frame = stage.getBoundingClientRect();
        zoom(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2 - frame.left,
          (event.clientY + other.clientY) / 2 - frame.top);
      }
      if (before) down.set(event.pointerId, event);
      else follow(event);
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, event => down.delete(event.pointerId));
    function follow(event) {
      const group = view.panel.group;
      if (!group.maps.length) return;
      const { left, top, width, height } = sheet.getBoundingClientRect();
      const [across, below] = [(event.clientX - left) / width, (event.clientY - top) / height];
      if (across < 0 || across > 1 || below < 0 || below > 1) group.clear();
      else group.point(view.panel, across, below);
    }
  }

  // -- Slices of a volume ---------------------------------------------------------------------------------------------

  // A slider per axis; the lines in the slices across the other axes show where it is.
  for (const scroller of all(".scroller")) {
    const sliders = all("input[type='range']", scroller);
    const share = slider => (Number(slider.value) + 0.5) / (Number(slider.max) + 1);
    const labels = sliders.map(slider => JSON.parse(slider.dataset.labels));
    const step = () => {
      for (const { dataset, style } of all(".slice", scroller)) {
        style.setProperty("--at", sliders[dataset.axis].value);
        style.setProperty("--x", share(sliders[dataset.across]));
        style.setProperty("--y", share(sliders[dataset.down]));
      }
      sliders.forEach((slider, axis) => {
        const label = labels[axis][slider.value];
        slider.setAttribute("aria-valuetext", label);
        one("output", slider.parentElement).textContent = label;
      });
    };
    for (const slider of sliders) {
      slider.addEventListener("input", step);
      slider.hidden = slider.max === "0";
    }
  }

  panels = all(".panels").flatMap(element => new Group(element).panels);
  setUpDialog();
  for (const panel of panels) panel.box.addEventListener("click", () => show(panel));

  for (const control of all(".theme, .copy, .hint")) control.hidden = false;
  // On paper nothing can be unfolded.
  addEventListener("beforeprint", () => { for (const folded of all(".reading")) folded.open = true; });
})();
