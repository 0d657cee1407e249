'use strict';
{
  // Brings the parts together: what is shown follows from the search, the filters and the arrangement.
  const { el, byId, data, marks, words, arrange, grid, detail, compare, filters, windows, choice } = seedream;
  const search = byId('search');
  const selects = { rows: byId('rows'), columns: byId('columns'), groups: byId('groups') };

  let items = [];
  let shown = [];
  let facets = [];
  let view = null;

  function summary() {
    const job = data.job;
    const parts = [el('span', null, words.count(job.cells, 'cell'))];
    for (const [name, count] of Object.entries(job.states)) {
      const state = words.state(name);
      parts.push(el('span', { class: state.kind }, `${state.sign} ${words.number(count)} ${state.word}`));
    }
    parts.push(el('span', null, `${words.usd(job.spent)}${job.held ? `, ${words.usd(job.held)} held` : ''}`));
    parts.push(el('span', null, `${job.running ? 'during a run, ' : ''}${words.time(job.at)}`));
    byId('summary').replaceChildren(...parts);
  }

  function offer(select, chosen) {
    select.replaceChildren(
      el('option', { value: -1 }, 'none'),
      ...data.job.axes.map((axis, number) => el('option', { value: number }, axis.name)),
    );
    select.value = chosen;
  }

  // An axis is in one place: where it goes to now, and the one it pushes out takes the place it came from.
  function rearrange(place) {
    const wanted = Number(selects[place].value);
    for (const other of Object.keys(view)) {
      if (other !== place && wanted >= 0 && view[other] === wanted) view[other] = view[place];
    }
    view[place] = wanted;
    for (const name of Object.keys(selects)) selects[name].value = view[name];
    draw();
    grid.top();
  }

  function draw() {
    grid.show(shown, view, Number(byId('size').value));
  }

  function update() {
    shown = arrange.fitting(items, { text: search.value, facets });
    const all = shown.length === items.length;
    const count = words.number(items.length);
    byId('shown').textContent = all ? `All ${count}` : `${words.number(shown.length)} of ${count}`;
    byId('nothing').hidden = shown.length > 0;
    byId('grid').hidden = shown.length === 0;
    draw();
  }

  function marked(item) {
    grid.refresh(item);
    const kept = items.filter((one) => marks.of(one) === marks.KEEP).length;
    const rejected = items.filter((one) => marks.of(one) === marks.REJECT).length;
    const compared = marks.compared.length;
    byId('chosen').hidden = !kept && !rejected && !compared;
    byId('chosen-text').textContent = [
      `${words.number(kept)} kept`,
      `${words.number(rejected)} rejected`,
      ...(compared ? [`${words.number(compared)} to compare`] : []),
    ].join(', ');
    byId('open-compare').disabled = compared < 2;
    byId('open-export').disabled = !kept && !rejected;
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, textarea')) return;
    const open = windows.shown;
    const item = detail.item || (open ? null : grid.current);
    const does = {
      k: item && (() => marks.set(item, marks.KEEP)),
      r: item && (() => marks.set(item, marks.REJECT)),
      u: item && (() => marks.set(item, '')),
      c: item && (() => marks.toggleCompare(item)),
      '/': !open && (() => search.select()),
      '?': !open && (() => windows.open('help')),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  function resized() {
    if (view) draw();
  }

  async function start() {
    const job = data.job;
    if (!job) {
      byId('shown').textContent = 'data/index.js is missing. Run `seedream-batch report` again.';
      return;
    }
    marks.open(job);
    summary();
    items = await data.items();
    facets = arrange.facets(items);
    view = arrange.usual(grid.narrow());
    for (const [place, select] of Object.entries(selects)) {
      offer(select, view[place]);
      select.addEventListener('change', () => rearrange(place));
    }
    filters.open(facets, items, update);
    if (grid.narrow()) byId('size').value = 120;
    update();
    marked(null);
    document.documentElement.dataset.ready = 'yes';
  }

  seedream.resized = resized;
  marks.listen(marked);
  grid.onOpen(detail.show);
  search.addEventListener('input', () => {
    update();
    grid.top();
  });
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !search.value) search.blur();
    if (event.key === 'Enter' && grid.current) grid.go(grid.current);
  });
  byId('size').addEventListener('input', resized);
  byId('show-all').addEventListener('click', () => {
    search.value = '';
    filters.reset();
    update();
  });
  byId('open-compare').addEventListener('click', compare.open);
  byId('open-export').addEventListener('click', () => choice.open(items));
  byId('open-help').addEventListener('click', () => windows.open('help'));
  document.addEventListener('keydown', pressed);
  new ResizeObserver(resized).observe(byId('grid'));
  start().catch((error) => (byId('shown').textContent = error.message));
}
