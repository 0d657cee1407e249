'use strict';
{
  // Draws the lines that are in sight, and moves among their tiles.
  const { el, byId, arrange, data, tile } = seedream;
  const GAP = 12;
  const AHEAD = 400;
  const NARROW = 640;

  const grid = byId('grid');
  const space = el('div', { class: 'space', role: 'presentation' });
  const head = el('div', { class: 'head', role: 'row' });
  space.append(head);
  grid.append(space);

  let view = null;
  let plan = { lines: [], columns: [] };
  let order = [];
  let current = null;
  let rest = [];
  let onOpen = () => {};
  const drawn = new Map();

  // Measured once for each arrangement: to measure between changes makes the browser lay out the page each time.
  let slim = false;
  let beside = 0;

  function narrow() {
    return grid.clientWidth <= NARROW;
  }

  function drawHead() {
    head.replaceChildren();
    head.hidden = view.columns < 0;
    if (head.hidden) return;
    const names = [view.rows, view.columns].filter((axis) => axis >= 0).map((axis) => data.job.axes[axis].name);
    const corner = el('div', { class: 'corner', role: 'columnheader' }, el('span', null, names.join(' × ')));
    corner.style.width = `${beside}px`;
    head.append(corner);
    plan.columns.forEach((value, at) => {
      const label = data.word(view.columns, value);
      const node = el('div', { role: 'columnheader', title: label, 'aria-colindex': at + 2 }, el('span', null, label));
      node.style.left = `${beside + at * plan.column}px`;
      node.style.width = `${plan.column}px`;
      head.append(node);
    });
  }

  function drawLine(number) {
    const line = plan.lines[number];
    const node = el('div', { class: `line ${line.first ? 'first' : ''}`, role: 'row', 'aria-rowindex': number + 2 });
    node.style.top = `${line.top + headHeight()}px`;
    node.style.height = `${line.height}px`;
    node.style.width = '100%';
    if (line.kind === 'group') {
      const label = `${data.job.axes[view.groups].name}: ${data.word(view.groups, line.value)}`;
      const count = line.count.toLocaleString('en');
      node.append(el('div', { class: 'group-name', role: 'rowheader' }, `${label} `, el('small', null, count)));
      return node;
    }
    if (line.first && view.rows >= 0) {
      const label = data.word(view.rows, line.value);
      const name = el('div', { class: 'row-name', role: 'rowheader', title: label }, el('span', null, label));
      if (!slim) {
        name.style.width = `${beside}px`;
        name.style.height = `${line.height - 2}px`;
      }
      node.append(name);
    }
    drawCells(line, node);
    return node;
  }

  // Only the columns in sight: there may be as many as images.
  function drawCells(line, node) {
    const left = grid.scrollLeft - AHEAD - beside;
    const first = Math.max(0, Math.floor(left / plan.column));
    const last = Math.floor((grid.scrollLeft + grid.clientWidth + AHEAD) / plan.column);
    for (let at = first; at <= Math.min(last, line.parts.length - 1); at += 1) {
      if (!line.parts[at].length) continue;
      const cell = el('div', { class: 'cell', role: 'gridcell', 'aria-colindex': at + 2 });
      cell.style.left = `${beside + at * plan.column}px`;
      cell.style.top = `${line.named}px`;
      cell.append(...line.parts[at].map((item) => drawTile(item, line)));
      node.append(cell);
    }
    node.columns = [first, last];
  }

  function drawTile(item, line) {
    const node = tile(item, { width: plan.width, high: line.high, rest, caption: plan.caption > 0 });
    if (item === current) {
      node.tabIndex = 0;
      node.classList.add('current');
    }
    return node;
  }

  function headHeight() {
    return view.columns < 0 ? 0 : 32;
  }

  // The first line that ends below a height, by halving.
  function lineAt(height) {
    let low = 0;
    let high = plan.lines.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (plan.lines[middle].top + plan.lines[middle].height < height) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function draw() {
    if (!view) return;
    const wanted = new Set();
    const end = grid.scrollTop + grid.clientHeight + AHEAD;
    let number = lineAt(grid.scrollTop - AHEAD);
    while (number < plan.lines.length && plan.lines[number].top < end) {
      wanted.add(number);
      number += 1;
    }
    // The line with the focus stays: without it, the keys would lead nowhere.
    if (current && current.place) wanted.add(current.place.line);
    for (const [old, node] of drawn) {
      if (!wanted.has(old)) {
        node.remove();
        drawn.delete(old);
      }
    }
    for (const line of wanted) {
      const old = drawn.get(line);
      if (old && !moved(old)) continue;
      const node = drawLine(line);
      const focused = old && old.contains(document.activeElement);
      if (old) old.replaceWith(node);
      else space.append(node);
      drawn.set(line, node);
      if (focused) focusTile();
    }
  }

  // Whether columns came into sight since the line was drawn.
  function moved(node) {
    if (!node.columns) return false;
    const first = Math.max(0, Math.floor((grid.scrollLeft - beside) / plan.column));
    const last = Math.min(plan.columns.length - 1, Math.floor((grid.scrollLeft + grid.clientWidth) / plan.column));
    return first < node.columns[0] || last > node.columns[1];
  }

  function tileOf(item) {
    const line = item && item.place && drawn.get(item.place.line);
    return line ? [...line.querySelectorAll('.tile')].find((node) => node.item === item) : undefined;
  }

  function focusTile() {
    const node = tileOf(current);
    if (node) node.focus({ preventScroll: true });
  }

  function setCurrent(item) {
    const before = tileOf(current);
    if (before) {
      before.tabIndex = -1;
      before.classList.remove('current');
    }
    current = item;
    const node = tileOf(item);
    if (node) {
      node.tabIndex = 0;
      node.classList.add('current');
    }
  }

  // Brings a tile into sight, below the head and beside the names.
  function reveal(item) {
    const line = plan.lines[item.place.line];
    const top = line.top;
    const room = grid.clientHeight - headHeight();
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + line.height > grid.scrollTop + room) grid.scrollTop = top + line.height - room;
    const left = item.place.cell * plan.column;
    const wide = grid.clientWidth - beside;
    if (left < grid.scrollLeft) grid.scrollLeft = left;
    else if (left + plan.column > grid.scrollLeft + wide) grid.scrollLeft = left + plan.column - wide;
  }

  function go(item) {
    if (!item) return;
    setCurrent(item);
    reveal(item);
    draw();
    focusTile();
  }

  // The nearest tile in the lines above or below, in the same column where it has one.
  function vertical(step) {
    const { line, cell, slot } = current.place;
    for (let number = line + step; number >= 0 && number < plan.lines.length; number += step) {
      const parts = plan.lines[number].parts;
      if (!parts) continue;
      const near = parts.map((part, at) => [Math.abs(at - cell), part]).filter(([, part]) => part.length);
      near.sort(([one], [other]) => one - other);
      if (near.length) return near[0][1][Math.min(slot, near[0][1].length - 1)];
    }
    return null;
  }

  function keyed(event) {
    if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
    const flat = plan.lines[current.place.line].parts.flat();
    const at = flat.indexOf(current);
    const goes = {
      ArrowLeft: () => flat[at - 1],
      ArrowRight: () => flat[at + 1],
      ArrowUp: () => vertical(-1),
      ArrowDown: () => vertical(1),
      Home: () => flat[0],
      End: () => flat[flat.length - 1],
    }[event.key];
    if (!goes) return;
    event.preventDefault();
    go(goes());
  }

  grid.addEventListener('scroll', draw, { passive: true });
  grid.addEventListener('keydown', keyed);
  grid.addEventListener('focusin', (event) => {
    const node = event.target.closest('.tile');
    if (node) setCurrent(node.item);
    else if (event.target === grid && current) focusTile();
  });
  grid.addEventListener('click', (event) => {
    const node = event.target.closest('.tile');
    if (node) onOpen(node.item);
  });

  seedream.grid = {
    narrow,

    onOpen(listener) {
      onOpen = listener;
    },

    // Shows these items in this arrangement; `size` is how wide a tile is at least.
    show(items, arrangement, size) {
      const focused = grid.contains(document.activeElement) && document.activeElement !== grid;
      view = arrangement;
      slim = narrow();
      beside = slim ? 12 : view.rows < 0 ? 14 : 148;
      rest = arrange.rest(view);
      const room = grid.clientWidth - beside - 12;
      grid.classList.toggle('narrow', slim);
      order.forEach((item) => (item.place = null));
      plan = arrange.lines(items, view, { room, size, gap: GAP, narrow: slim, name: 30 });
      order = plan.lines.flatMap((line) => (line.parts ? line.parts.flat() : []));
      drawn.forEach((node) => node.remove());
      drawn.clear();
      if (!current || !current.place) current = order[0] || null;
      const wide = beside + plan.columns.length * plan.column;
      space.style.width = `${Math.max(wide, grid.clientWidth)}px`;
      space.style.height = `${plan.height + headHeight() + 24}px`;
      grid.setAttribute('aria-rowcount', plan.lines.length + 1);
      grid.setAttribute('aria-colcount', plan.columns.length + 1);
      drawHead();
      draw();
      if (focused) focusTile();
    },

    // One item looks different now; without it, all do.
    refresh(item) {
      const all = () => [...space.querySelectorAll('.tile')].map((node) => node.item);
      for (const one of item ? [item] : all()) {
        const node = tileOf(one);
        if (!node) continue;
        const focused = node === document.activeElement;
        const fresh = drawTile(one, plan.lines[one.place.line]);
        node.replaceWith(fresh);
        if (focused) fresh.focus({ preventScroll: true });
      }
    },

    get current() {
      return current;
    },

    get order() {
      return order;
    },

    go,

    top() {
      grid.scrollTop = 0;
    },
  };
}
