'use strict';
{
  // Which items are shown, and where: all of it pure, so that the grid only has to draw.
  const { data, marks, words } = seedream;
  const CHOICES = { keep: 'kept', reject: 'rejected', none: 'unmarked' };

  function haystack(item) {
    if (item.text === undefined) {
      const labels = data.job.axes.map((_, axis) => data.word(axis, data.value(axis, item)));
      item.text = [item.task.prompt, item.path, ...labels, item.task.ids].join('\n').toLowerCase();
    }
    return item.text;
  }

  // The items that have all of the words, and of each facet one of the values that were picked.
  function fitting(items, { text, facets }) {
    const parts = text.toLowerCase().split(/\s+/).filter(Boolean);
    const picked = facets.filter((facet) => facet.picked.size);
    return items.filter(
      (item) =>
        picked.every((facet) => facet.picked.has(facet.value(item))) &&
        (!parts.length || parts.every((part) => haystack(item).includes(part))),
    );
  }

  // What can be filtered by: the state, the choice, and each axis with more than one value.
  function facets(items) {
    const found = [
      { name: 'State', value: (item) => item.state, label: (value) => words.state(value).word },
      { name: 'Choice', value: (item) => marks.of(item) || 'none', label: (value) => CHOICES[value] },
    ];
    data.job.axes.forEach((axis, number) => {
      if (axis.values.length > 1) {
        const label = (value) => data.word(number, value);
        found.push({ name: axis.name, value: (item) => data.value(number, item), label });
      }
    });
    for (const facet of found) facet.picked = new Set();
    return found;
  }

  // The axes that fit rows, columns and groups best: as many columns as there is room for, rows for the rest.
  function usual(narrow) {
    const all = data.job.axes.map((axis, number) => ({ number, size: axis.values.length }));
    const left = all.filter((one) => one.size > 1);
    function take(most) {
      const fit = left.filter((one) => one.size <= most).sort((one, other) => other.size - one.size)[0];
      if (!fit) return -1;
      left.splice(left.indexOf(fit), 1);
      return fit.number;
    }
    const columns = take(narrow ? 3 : 12);
    const rows = take(Infinity);
    return { rows, columns, groups: take(8) };
  }

  function ratio(item) {
    if (item.width && item.height) return item.height / item.width;
    const [width, height] = item.task.size.split(':').map(Number);
    return width > 0 && height > 0 ? height / width : 1;
  }

  // How large an item is drawn: as wide as a column, but not much taller than that.
  function box(item, width) {
    const high = Math.min(width * ratio(item), width * 1.25);
    return { width: Math.round(Math.min(width, high / ratio(item))), height: Math.round(high) };
  }

  function split(items, axis) {
    const found = new Map();
    for (const item of items) {
      const value = axis < 0 ? -1 : data.value(axis, item);
      if (!found.has(value)) found.set(value, []);
      found.get(value).push(item);
    }
    return [...found].sort(([one], [other]) => one - other);
  }

  // The axes that neither rows, columns nor groups tell of.
  function rest({ rows, columns, groups }) {
    return data.job.axes
      .map((axis, number) => (axis.values.length > 1 ? number : -1))
      .filter((number) => number >= 0 && ![rows, columns, groups].includes(number));
  }

  // The lines of the grid, each with its place from above. A row of the matrix that has several items in a cell takes
  // several lines, so that each line stays small however much there is in a row.
  function lines(items, view, { room, size, name, gap, narrow }) {
    const columns = split(items, view.columns).map(([value]) => value);
    const wall = view.columns < 0;
    const each = wall ? Math.max(1, Math.floor(room / (size + gap))) : 1;
    const fair = Math.floor(room / (wall ? each : columns.length)) - gap;
    // A little smaller than asked for if all columns are in sight then; larger where there is room.
    const least = fair >= size * 0.75 ? Math.min(size, fair) : size;
    const width = Math.floor(Math.max(least, Math.min(fair, wall ? fair : size * 1.5, 256)));
    const column = wall ? room : width + gap;
    const caption = rest(view).length ? 22 : 0;
    const found = [];
    let top = 0;
    for (const [group, members] of split(items, view.groups)) {
      if (view.groups >= 0) {
        found.push({ kind: 'group', top, height: 52, value: group, count: members.length });
        top += 52;
      }
      for (const [row, ones] of split(members, view.rows)) {
        const cells = new Map(split(ones, view.columns));
        const longest = Math.max(...[...cells.values()].map((cell) => cell.length));
        for (let at = 0; at < longest; at += each) {
          const first = at === 0;
          const named = first && narrow && view.rows >= 0 ? name : 0;
          const parts = columns.map((value) => (cells.get(value) || []).slice(at, at + each));
          const high = Math.max(...parts.flat().map((item) => box(item, width).height), 40);
          const height = named + high + caption + 20;
          const line = { kind: 'line', top, height, value: row, first, named, high, parts };
          parts.forEach((part, cell) => {
            part.forEach((item, slot) => (item.place = { line: found.length, cell, slot }));
          });
          found.push(line);
          top += height;
        }
      }
    }
    return { lines: found, columns, width, column, caption, height: top };
  }

  seedream.arrange = { fitting, facets, usual, box, lines, rest };
}
